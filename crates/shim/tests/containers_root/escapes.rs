//! What containers and images have tried before, by CVE. Each must be refused, or come to nothing.

use std::fs;
use std::os::unix::fs::symlink;

use shim::protocol::*;

use crate::pod::{Pod, wait_until};

/// The root file system's upper layer, for an image to lie in.
fn upper(pod: &Pod, id: &str) -> std::path::PathBuf {
    pod.dir.join(id).join("layer/upper")
}

#[test]
fn symlinked_kernel_mounts_are_refused_as_root() {
    let mut pod = Pod::new("symlinks", |_| {});
    for (id, name, kind) in [("a", "proc", "proc"), ("b", "sys", "sysfs")] {
        let spec = pod.spec(id, "true");
        fs::create_dir(upper(&pod, id).join("elsewhere")).unwrap();
        symlink("/elsewhere", upper(&pod, id).join(name)).unwrap();
        let failure = pod.create(spec).unwrap_err();
        let expected = format!("filesystem {kind:?} must be mounted on ordinary directory");
        assert!(failure.message.ends_with(&expected), "{}", failure.message);
    }
}

#[test]
fn mount_targets_stay_inside_as_root() {
    let mut pod = Pod::new("targets", |_| {});
    let canary = pod.dir.join("canary");
    fs::create_dir(&canary).unwrap();
    let mut spec = pod.spec("a", "cat /link/made/file; ls /");
    // Leads out of the root by its text; inside it is just another path.
    symlink(format!("/../../../..{}", canary.display()), upper(&pod, "a").join("link")).unwrap();
    let source = pod.dir.join("volume");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let kind = MountKind::Bind { source: source.to_string_lossy().into() };
    spec.mounts.push(Mount { destination: "/link/made".into(), kind, ..Mount::default() });
    let failure = pod.create(spec).unwrap_err();
    assert!(failure.message.contains("mounting at \"/link/made\""), "{}", failure.message);
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

/// CVE-2021-30465 and CVE-2024-45310: a container that swaps a directory of a shared volume for a link while another,
/// which mounts something below it, is made.
#[test]
fn swapped_mount_targets_stay_inside_as_root() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut pod = Pod::new("swaps", |_| {});
    let (shared, canary) = (pod.dir.join("shared"), pod.dir.join("canary"));
    for dir in [shared.join("dir"), canary.join("inside")] {
        fs::create_dir_all(dir).unwrap();
    }
    // In the second container this is a way up and out, if it is followed on the host.
    symlink(format!("/../../../..{}", canary.display()), shared.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let mut made = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(here, shared.join("dir"), here, shared.join("link"), exchange)
                    .unwrap();
            }
        });
        for number in 0..100 {
            let id = format!("c{number}");
            let mut spec = pod.spec(&id, "true");
            let kind = MountKind::Bind { source: shared.to_string_lossy().into() };
            spec.mounts.push(Mount { destination: "/shared".into(), kind, ..Mount::default() });
            for path in ["/shared/dir/new", "/shared/dir/inside"] {
                let kind = MountKind::Tmpfs { data: "size=4k".into() };
                spec.mounts.push(Mount { destination: path.into(), kind, ..Mount::default() });
            }
            if pod.create(spec).is_ok() {
                made += 1;
                pod.client.ask(Request::Delete { container: id }).unwrap();
            }
            let names: Vec<_> =
                fs::read_dir(&canary).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["inside"]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{made} of 100 were made");
}

#[test]
fn working_directories_stay_inside_as_root() {
    let mut pod = Pod::new("cwd", |_| {});
    for number in 0..64 {
        let mut spec = pod.spec("a", "ls");
        spec.process.cwd = format!("/proc/self/fd/{number}");
        let failure = pod.create(spec).map(drop).unwrap_err();
        assert_eq!(failure.kind, FailureKind::ExecFailed, "{number}: {}", failure.message);
    }
    let spec = pod.spec("b", "sleep 1000");
    pod.create(spec).unwrap();
    pod.start("b").unwrap();
    for number in 3..32 {
        let (exit, text) =
            pod.exec("b", &["sh", "-c", &format!("cd /proc/self/fd/{number} && pwd && ls ..")]).unwrap();
        assert_ne!(exit.code, 0, "{number}: {text}");
    }
    let (_, text) = pod.exec("b", &["ls", "/proc/self/fd"]).unwrap();
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[test]
fn programs_of_the_host_cannot_be_written_as_root() {
    let mut pod = Pod::new("exe", |spec| spec.pid = PidMode::Pod);
    // Both the pod's init and whatever runs before the program are out of reach, even to a root with every capability.
    let script = "for pid in 1 self $$; do readlink /proc/$pid/exe; echo x >> /proc/$pid/exe && echo WRITTEN; done; sleep 1000";
    let mut spec = pod.spec("a", script);
    spec.process.capabilities = Capabilities { bounding: !0, effective: !0, permitted: !0, ambient: 0 };
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    wait_until(|| pod.log("a").lines().count() >= 6);
    let log = pod.log("a");
    assert!(!log.contains("WRITTEN"), "{log}");
    assert!(log.contains("stdout F /memfd:tiphys-shim (deleted)"), "{log}");
    // The interpreter trick: a program that is executed by way of the process's own executable.
    let mut spec = pod.spec("b", "");
    let trap = upper(&pod, "b").join("trap");
    fs::write(&trap, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    spec.process.args = vec!["/trap".into()];
    pod.create(spec).unwrap();
    let started = pod.start("b");
    if started.is_ok() {
        assert_ne!(pod.wait("b").code, 0);
    }
}

#[test]
fn masks_cannot_be_forged_as_root() {
    let mut pod = Pod::new("masks", |_| {});
    let mut spec = pod.spec(
        "a",
        "cat /proc/version; wc -c < /proc/version; ls -A /proc/fs | wc -l; echo x > /proc/bus/x || echo no",
    );
    spec.masked_paths = ["/proc/version", "/proc/fs", "/proc/absent"].map(String::from).to_vec();
    let (_, log) = pod.run(spec);
    // What a shell complains of comes by another pipe, and stands before or after.
    let (said, complaints): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| line.starts_with("stdout "));
    assert_eq!(said, ["stdout F 0", "stdout F 0", "stdout F no"], "{log}");
    assert_eq!(complaints.len(), 1, "{log}");
    // Without a /dev of ours the image's null device counts, and it had better be one (CVE-2025-31133).
    let mut spec = pod.spec("b", "true");
    spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    fs::create_dir(upper(&pod, "b").join("dev")).unwrap();
    fs::write(upper(&pod, "b").join("dev/null"), "").unwrap();
    spec.masked_paths = vec!["/proc/version".into()];
    assert_eq!(pod.create(spec).unwrap_err().message, "/dev/null of the container is not the null device");
    let mut spec = pod.spec("c", "true");
    spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    fs::create_dir(upper(&pod, "c").join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", upper(&pod, "c").join("dev/null")).unwrap();
    spec.masked_paths = vec!["/proc/version".into()];
    assert!(pod.create(spec).is_err());
}

#[test]
fn terminals_come_from_devpts_only_as_root() {
    let mut pod = Pod::new("pts", |_| {});
    let mut spec = pod.spec("a", "true");
    spec.stdio.terminal = true;
    spec.mounts.retain(|mount| mount.destination != "/dev/pts");
    let failure = pod.create(spec).unwrap_err();
    assert!(failure.message.contains("/dev/pts"), "{}", failure.message);
    let mut spec = pod.spec("b", "true");
    spec.stdio.terminal = true;
    for mount in &mut spec.mounts {
        if mount.destination == "/dev/pts" {
            mount.kind = MountKind::Tmpfs { data: String::new() };
        }
    }
    assert_eq!(pod.create(spec).unwrap_err().message, "/dev/pts is no devpts");
}

#[test]
fn log_symlinks_are_not_followed_as_root() {
    let mut pod = Pod::new("log-links", |_| {});
    let target = pod.dir.join("target");
    fs::write(&target, "").unwrap();
    let spec = pod.spec("a", "echo leaked");
    fs::create_dir(pod.dir.join("a/logs")).unwrap();
    symlink(&target, pod.dir.join("a/logs/0.log")).unwrap();
    assert!(pod.create(spec).is_err());
    let spec = pod.spec("b", "echo leaked");
    symlink(&pod.dir, pod.dir.join("b/logs")).unwrap();
    assert!(pod.create(spec).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
    assert!(!pod.dir.join("0.log").exists());
}

/// One instruction of a filter.
fn instruction(code: u64, jt: u64, jf: u64, k: u64) -> u64 {
    code << 48 | jt << 40 | jf << 32 | k
}

#[test]
fn filters_are_loaded_as_root() {
    let mut pod = Pod::new("filters", |_| {});
    // Refuse mkdir(2) and mkdirat(2), allow all else.
    let filter = vec![
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 1, 0, libc::SYS_mkdir as u64),
        instruction(0x15, 0, 1, libc::SYS_mkdirat as u64),
        instruction(0x06, 0, 0, 0x0005_0001),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ];
    for (id, no_new_privileges, uid) in
        [("a", true, 0), ("b", false, 0), ("c", true, 1000), ("d", false, 1000)]
    {
        let mut spec = pod.spec(id, "mkdir /tmp/x; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status");
        spec.process.seccomp = Some(Seccomp { filter: filter.clone(), flags: 0 });
        spec.process.no_new_privileges = no_new_privileges;
        spec.process.user.uid = uid;
        let (_, log) = pod.run(spec);
        let expected = format!("NoNewPrivs:\t{}\nstdout F Seccomp:\t2\n", i32::from(no_new_privileges));
        assert!(log.contains("mkdir: can't create directory '/tmp/x': Operation not permitted"), "{log}");
        assert!(log.contains(&expected), "{log}");
    }
    let mut spec = pod.spec("e", "true");
    spec.process.seccomp =
        Some(Seccomp { filter: vec![instruction(0x06, 0, 0, 0x7fff_0000)], flags: 1 << 30 });
    spec.process.no_new_privileges = false;
    assert!(pod.create(spec).unwrap_err().message.starts_with("loading the seccomp filter"));
}
