//! What of the node's own files pods can have.

use cluster_tests::Room;
use cluster_tests::cluster::{NODE, image};
use cluster_tests::manifests::shell;
use std::os::unix::net::UnixListener;

/// A shell with one volume at `/v`.
fn with(name: &str, path: &str, ty: &str) -> String {
    let volume = format!("volumes: [{{name: v, hostPath: {{path: {path}, type: {ty}}}}}]");
    shell(name, &volume)
        .replace("[sleep, infinity]", "[sleep, infinity]\n    volumeMounts: [{name: v, mountPath: /v}]")
}

pub(crate) fn has_of_the_node_what_it_names(room: &Room) {
    let k = &room.kubectl;
    let place = k.home().join(format!("{}-places", k.namespace));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("file"), "land").unwrap();
    let _socket = UnixListener::bind(place.join("socket")).unwrap();
    let at = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let kinds = [
        ("file", at("file"), "File", "test -f /v"),
        ("socket", at("socket"), "Socket", "test -S /v"),
        ("char", "/dev/null".to_owned(), "CharDevice", "test -c /v"),
        ("dir", at(""), "Directory", "test -f /v/file"),
        ("new-file", at("new"), "FileOrCreate", "test -f /v"),
        ("new-dir", at("below"), "DirectoryOrCreate", "test -d /v"),
        ("any", at("file"), "\"\"", "test -f /v"),
    ];
    let all: String = kinds.iter().map(|(name, path, ty, _)| with(name, path, ty)).collect();
    k.apply(&all);
    for (name, _, _, check) in &kinds {
        k.wait("condition=Ready", &format!("pod/{name}"));
        k.run(&format!("exec {name} -- sh -c '{check}'"));
    }
    // What is of another kind is not mounted.
    for (name, path, ty, kind) in [
        ("no-dir", at("file"), "Directory", "a directory"),
        ("no-file", at(""), "File", "a file"),
        ("no-socket", at("file"), "Socket", "a socket file"),
        ("no-char", at("file"), "CharDevice", "a character device"),
        ("no-block", "/dev/null".to_owned(), "BlockDevice", "a block device"),
    ] {
        k.apply(&with(name, &path, ty));
        let said = k.event(name, "FailedMount");
        let path = path.trim_end_matches('/');
        assert!(said.contains(&format!("hostPath type check failed: {path}")), "{said}");
        assert!(said.contains(&format!("is not {kind}")), "{said}");
    }
}

pub(crate) fn reads_only_all_the_way_down(room: &Room) {
    let k = &room.kubectl;
    let place = k.home().join(format!("{}-deep", k.namespace));
    std::fs::create_dir_all(place.join("below")).unwrap();
    let below = place.join("below");
    let output =
        std::process::Command::new("mount").args(["-t", "tmpfs", "deep"]).arg(&below).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let volume = format!("volumes: [{{name: v, hostPath: {{path: {}}}}}]", place.display());
    let pod = |name: &str, more: &str| {
        let mounts = format!(
            "[sleep, infinity]\n    volumeMounts: [{{name: v, mountPath: /v, readOnly: true{more}}}]"
        );
        shell(name, &volume).replace("[sleep, infinity]", &mounts)
    };
    k.apply(&(pod("shallow", "") + &pod("deep", ", recursiveReadOnly: Enabled")));
    k.wait("condition=Ready", "pod/shallow");
    assert!(k.refused("exec shallow -- touch /v/x").contains("Read-only file system"));
    k.run("exec shallow -- touch /v/below/x");
    let features = ".status.runtimeHandlers[?(@.name==\"\")].features.recursiveReadOnlyMounts";
    if k.field(&format!("node/{NODE}"), features) == "true" {
        k.wait("condition=Ready", "pod/deep");
        assert!(k.refused("exec deep -- touch /v/below/y").contains("Read-only file system"));
        let status = ".status.containerStatuses[0].volumeMounts[?(@.mountPath==\"/v\")].recursiveReadOnly";
        assert_eq!(k.field("pod/deep", status), "Enabled");
    } else {
        k.event("deep", "Failed");
    }
    k.run("delete pod shallow deep --now");
    let output = std::process::Command::new("umount").arg(&below).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An archive that is none keeps no other from being imported.
pub(crate) fn takes_the_archives_that_are_some(room: &Room) {
    let odd = room.kubectl.file("odd.tar", "no archive");
    let mut import = room.cluster.tiphys(&["image", "import", "--name", "localhost/taken:one"]);
    let output = import.arg(&odd).arg(image("busybox")).output().unwrap();
    let (told, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && told.contains("localhost/taken:one"), "{told}{why}");
    assert!(why.contains("odd.tar: ") && why.ends_with("error: 1 of 2 failed\n"), "{why}");
}
