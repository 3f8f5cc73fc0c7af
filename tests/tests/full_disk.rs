//! What a stranger does to a node: fills its disk while it works, and kills it while it pulls. Nothing is spoiled, it says
//! what is wrong, and goes on when it can.
#![allow(clippy::unwrap_used)]

use cluster_tests::cluster::{Settings, image};
use cluster_tests::disk::Cargo;
use cluster_tests::manifests::shell;
use cluster_tests::registry::{ADDRESS, PASSWORD, Registry, USER};
use cluster_tests::{Room, Scenario, Suite, scenarios, until};
use std::path::Path;
use std::process::{ExitCode, Output};

fn main() -> ExitCode {
    const ALONE: &[Scenario] = scenarios![a_full_disk_spoils_nothing, killed_while_it_pulls];
    // Images stay, however full the disk is.
    let configuration = "imageGCHighThresholdPercent: 100\n";
    let settings = Settings { configuration, disk_mib: 600, ..Default::default() };
    Suite { settings, alone: ALONE, ..Suite::new("full-disk", &[]) }.run()
}

fn words(output: &Output) -> String {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// How many bytes the files beneath a directory have.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = entries.filter_map(|entry| {
        let known = entry.metadata().ok()?;
        Some(if known.is_dir() { size(&entry.path()) } else { known.len() })
    });
    each.sum()
}

fn a_full_disk_spoils_nothing(room: &Room) {
    let k = &room.kubectl;
    let counts = "[sh, -c, 'i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done']";
    k.apply(&shell("counts", "").replace("[sleep, infinity]", counts));
    let writes = shell("calm", "volumes: [{name: v, emptyDir: {}}]");
    let mount = "[sleep, infinity]\n    volumeMounts: [{name: v, mountPath: /v}]";
    k.apply(&writes.replace("[sleep, infinity]", mount));
    k.apply(&shell("goes", ""));
    k.run("wait --for=condition=Ready pods --all --timeout=$PATIENCE");
    let archive = image("nginx");
    let import = || {
        let mut import = room.cluster.tiphys(&["image", "import"]);
        import.arg(&archive).output().unwrap()
    };
    let images = || words(&room.cluster.tiphys(&["image", "list"]).output().unwrap());
    let removed = room.cluster.tiphys(&["image", "rm", "localhost/nginx:debian12"]).output().unwrap();
    assert!(removed.status.success(), "{}", words(&removed));
    let cargo = Cargo::filling(&room.cluster.data(), 0);

    // Images do not fit, and nothing of them stays.
    let refused = import();
    assert!(!refused.status.success() && words(&refused).contains("No space left on device"));
    assert!(!images().contains("nginx"));
    // What runs goes on, and can be reached.
    assert_eq!(k.run("exec calm -- echo here"), "here");
    assert!(k.refused("exec calm -- sh -c 'echo x > /v/x && sync'").contains("No space left on device"));
    // Whether the store still takes it depends on what is left of its reserve.
    drop(k.script("kubectl -n $NS apply -f -", &shell("late", "")));
    k.run("delete pod goes --now");

    // With room it is as if nothing had been.
    drop(cargo);
    until("written again", || k.script("kubectl -n $NS apply -f -", &shell("late", "")).status.success());
    k.wait("condition=Ready", "pod/late");
    let imported = import();
    assert!(imported.status.success(), "{}", words(&imported));
    k.apply(&shell("serves", "").replace("localhost/busybox:debian12", "localhost/nginx:debian12"));
    k.wait("condition=Ready", "pod/serves");
    // The log goes on, and each of its lines is whole.
    let last = |lines: &str| -> u64 {
        let numbers: Vec<u64> =
            lines.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{lines}");
        *numbers.last().unwrap()
    };
    let before = last(&k.run("logs counts"));
    until("counted on", || last(&k.run("logs counts --tail=5")) > before + 50);
    room.cluster.stop();
    room.cluster.serve();
    // The node answers a moment later than the API server.
    until("its log is served again", || k.output("logs counts").status.success());
    last(&k.run("logs counts"));
    k.run("delete pod --all --now");
}

fn killed_while_it_pulls(room: &Room) {
    let k = &room.kubectl;
    let base = room.cluster.base().join("registry");
    let registry = Registry::start_of(&room.cluster.net, &base, "nginx", "crew/argo", "1.0");
    let name = format!("{ADDRESS}/crew/argo:1.0");
    k.run(&format!(
        "create secret docker-registry crew --docker-server={ADDRESS} --docker-username={USER} --docker-password={PASSWORD}"
    ));
    let pod = shell("sails", "imagePullSecrets: [{name: crew}]").replace("localhost/busybox:debian12", &name);
    let rm = |names: &[&str]| {
        let arguments: Vec<&str> = ["image", "rm"].iter().chain(names).copied().collect();
        room.cluster.tiphys(&arguments).output().unwrap()
    };
    rm(&["localhost/nginx:debian12"]);
    let images = room.cluster.data().join("runtime/images");
    for bytes in [0, 1, 64 << 10, 1 << 20, 4 << 20, 16 << 20] {
        let before = size(&images);
        k.apply(&pod);
        k.event("sails", "Pulling");
        until("pulled so much", || size(&images) >= before + bytes);
        room.cluster.kill();
        room.cluster.serve();
        k.wait("condition=Ready", "pod/sails");
        assert_eq!(k.run("exec sails -- sh -c 'nginx -v 2>&1 | cut -d/ -f1'"), "nginx version: nginx");
        k.run("delete pod sails --now");
        let gone = rm(&[&name]);
        assert!(gone.status.success(), "{}", words(&gone));
    }
    drop(registry);
    std::fs::remove_dir_all(base).unwrap();
}
