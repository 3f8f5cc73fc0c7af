//! Real containers through the real shim. Needs root, busybox-static, and a kernel with namespaces and overlayfs.

#![allow(clippy::unwrap_used)]

mod escapes;
mod pod;
mod stdio;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use pod::{Pod, wait_until};
use shim::protocol::*;

#[test]
fn exits_and_logs_as_root() {
    let mut pod = Pod::new("exits", |_| {});
    let mut check = |script: &str, code: i32, log: &str| {
        let spec = pod.spec("a", script);
        fs::remove_file(pod.dir.join("a/logs/0.log")).unwrap_or_default();
        assert_eq!(pod.run(spec), (code, log.to_owned()), "{script}");
    };
    check("echo one; echo two; printf partial; exit 7", 7, "stdout F one\nstdout F two\nstdout P partial\n");
    check("echo oops >&2", 0, "stderr F oops\n");
    check("kill -9 $$", 0, "");
    check("hostname; pwd", 0, "stdout F pod-host\nstdout F /\n");
    let line = "x".repeat(16384);
    check("printf '%016384d' 0 | tr 0 x; echo tail", 0, &format!("stdout P {line}\nstdout F tail\n"));
}

#[test]
fn a_container_sees_what_it_should_as_root() {
    let mut pod = Pod::new("sees", |_| {});
    let mut spec = pod.spec(
        "a",
        "pwd; id -u; id -G; echo $HOME; umask; ls /proc/self/fd; readlink /proc/1/exe; \
         echo x > /proc/sys/kernel/hostname || echo read-only; grep Cap /proc/self/status; \
         grep -c . /proc/net/dev; ls /dev; ls -l /dev/null | cut -c1-10; ulimit -n; \
         cat /secret; echo x > /secret || echo read-only; grep -cx 1 /sys/fs/cgroup/pids/cgroup.procs",
    );
    spec.process.cwd = "/made/here".into();
    spec.process.umask = Some(0o027);
    spec.process.user = User { uid: 1000, gid: 1000, groups: vec![5] };
    spec.process.capabilities.ambient = 1 << 10;
    spec.process.rlimits = vec![Rlimit { resource: libc::RLIMIT_NOFILE, soft: 99, hard: 100 }];
    let secret = pod.dir.join("secret");
    fs::write(&secret, "hidden\n").unwrap();
    let kind = MountKind::Bind { source: secret.to_string_lossy().into() };
    spec.mounts.push(Mount { destination: "/secret".into(), kind, readonly: true, ..Mount::default() });
    let (code, log) = pod.run(spec);
    let expected = "/made/here 1000 1000 5 /home/user 0027 0 1 2 3 /bin/busybox read-only \
        CapInh:\t0000000000000400 CapPrm:\t0000000000000400 CapEff:\t0000000000000400 CapBnd:\t00000000a80425fb \
        CapAmb:\t0000000000000400 3 core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom \
        zero crw-rw-rw- 99 hidden read-only 1";
    let out: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    assert_eq!((code, out.join(" ")), (0, expected.into()), "{log}");
}

#[test]
fn start_failures_are_upstreams_as_root() {
    let mut pod = Pod::new("failures", |_| {});
    let mut check = |args: &[&str], cwd: &str, message: &str| {
        let mut spec = pod.spec("a", "");
        spec.process.args = args.iter().map(|arg| arg.to_string()).collect();
        spec.process.cwd = cwd.into();
        let failure = pod.create(spec).map(drop).unwrap_err();
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::ExecFailed, message));
        assert!(pod.state().containers.is_empty());
    };
    check(&["nonesuch"], "/", "exec: \"nonesuch\": executable file not found in $PATH");
    check(&["/bin/none"], "/", "exec: \"/bin/none\": stat /bin/none: no such file or directory");
    check(&["/etc/passwd"], "/", "exec: \"/etc/passwd\": permission denied");
    check(&[], "/", "no command specified");
    check(
        &["sh"],
        "/etc/passwd",
        "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory",
    );
    // Executable, but no program: known only when it is executed.
    let mut spec = pod.spec("b", "");
    let upper = pod.dir.join("b/layer/upper/bad");
    fs::write(&upper, "\0\0\0").unwrap();
    fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    spec.process.args = vec!["/bad".into()];
    pod.create(spec).unwrap();
    assert_eq!(pod.start("b").unwrap_err().message, "exec /bad: exec format error");
    let exit = pod.wait("b");
    assert_eq!((exit.code, exit.message.as_str()), (128, "exec /bad: exec format error"));
}

#[test]
fn the_shim_outlives_its_clients_as_root() {
    let mut pod = Pod::new("outlives", |_| {});
    let spec = pod.spec("a", "trap 'exit 3' TERM; echo up; while :; do sleep 1 & wait; done");
    pod.create(spec).unwrap();
    let mut events = pod.connect();
    events.ask(Request::Subscribe).unwrap();
    pod.start("a").unwrap();
    assert!(matches!(events.event().unwrap().what, EventKind::Started));
    wait_until(|| pod.log("a") == "stdout F up\n");
    // Neither its parent nor its starter's session is left for a signal to travel along.
    let stat = |pid: &str| -> Vec<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split(' ').map(str::to_owned).collect()
    };
    let (shim, ours) = (stat(&pod.pid.to_string()), stat("self"));
    assert_eq!(shim[2], "1", "parent");
    // A test's own session may have no number in its PID namespace: then it reads as 0.
    assert_ne!(shim[4], ours[4], "session");
    let fds: Vec<String> = fs::read_dir(format!("/proc/{}/fd", pod.pid))
        .unwrap()
        .flatten()
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .filter(|target| target.contains("/target/") || target.starts_with("/dev/pts"))
        .collect();
    assert_eq!(fds, Vec::<String>::new());

    pod.client = pod.connect();
    let state = pod.state();
    assert_eq!(state.sandbox.unwrap().id, "outlives");
    assert_eq!((state.containers.len(), state.containers[0].status), (1, Status::Running));
    pod.signal("a", libc::SIGTERM);
    let EventKind::Exited(exit) = events.event().unwrap().what else { panic!() };
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, 0, false));
    let recorded: Exit =
        serde_json::from_slice(&fs::read(pod.dir.join("a").join(EXIT_FILE)).unwrap()).unwrap();
    assert_eq!(recorded, exit);
    assert_eq!(pod.wait("a"), exit);
    assert_eq!(pod.start("a").unwrap_err().kind, FailureKind::InvalidState);

    let spec = pod.spec("b", "sleep 60");
    pod.create(spec).unwrap();
    pod.start("b").unwrap();
    pod.signal("b", libc::SIGKILL);
    let exit = pod.wait("b");
    assert_eq!((exit.code, exit.signal), (137, 9));
}

/// At whatever moment of a container's making its pod is told to end, it ends.
#[test]
fn a_pod_ends_while_a_container_is_made_as_root() {
    for round in 0..60 {
        let pod = Pod::new(&format!("ends{round}"), |_| {});
        let (mut other, spec) = (pod.connect(), pod.spec("made", "sleep 100"));
        let made = std::thread::spawn(move || other.ask(Request::Create(Box::new(spec))));
        std::thread::sleep(Duration::from_micros(100 * round));
        let (told, heard) = std::sync::mpsc::channel();
        let ending = std::thread::spawn(move || {
            // Asks for the end, and looks at what is left.
            drop(pod);
            told.send(()).unwrap();
        });
        heard.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("round {round} does not end"));
        ending.join().unwrap();
        // Created in time, refused, or nobody is left to answer.
        let _ = made.join().unwrap();
    }
}

#[test]
fn processes_are_shared_when_asked_as_root() {
    let mut pod = Pod::new("shared-pids", |spec| spec.pid = PidMode::Pod);
    for id in ["a", "b"] {
        let spec =
            pod.spec(id, "sleep 1000 & (sleep 0.01 &) ; echo $$; cat /proc/1/comm; ls /proc/1/root; wait");
        pod.create(spec).unwrap();
        pod.start(id).unwrap();
        let done = || pod.log(id).lines().count() >= 3;
        wait_until(done);
        let log = pod.log(id);
        assert!(log.contains("stdout F pause\nstderr F ls: /proc/1/root: Permission denied\n"), "{log}");
    }
    // What a shell forks is called like the shell until it becomes something else.
    wait_until(|| {
        let (exit, text) = pod.exec("a", &["sh", "-c", "ps | grep -c '[s]leep 1000'"]).unwrap();
        (exit.code, text.as_str()) == (0, "4\n")
    });
    // One container's end takes its own processes only, and the other goes on.
    pod.signal("a", libc::SIGKILL);
    assert_eq!(pod.wait("a").code, 137);
    wait_until(|| {
        fs::read_to_string(format!("{}/cgroup.procs", pod.cgroup("a").dirs[0])).unwrap().is_empty()
    });
    assert!(pod.exec("b", &["true"]).is_ok());
    assert!(pod.state().sandbox.unwrap().ready);
}

#[test]
fn host_namespaces_as_root() {
    let mut pod = Pod::new("host", |spec| {
        (spec.network, spec.ipc, spec.uts) = (Namespace::Host, Namespace::Host, Namespace::Host);
        spec.pid = PidMode::Host;
    });
    let mut spec = pod.spec("a", "readlink /proc/self/ns/pid; readlink /proc/self/ns/net; (setsid sleep 1000 &); ls /sys/class/net >/dev/null");
    spec.mounts.retain(|mount| mount.destination != "/sys/fs/cgroup");
    let (code, log) = pod.run(spec);
    let link = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    assert_eq!((code, log), (0, format!("stdout F {}\nstdout F {}\n", link("pid"), link("net"))));
    // What it left behind was killed with it.
    wait_until(|| {
        fs::read_to_string(format!("{}/cgroup.procs", pod.cgroup("a").dirs[0])).unwrap().is_empty()
    });
}

#[test]
fn memory_that_runs_out_is_told_as_root() {
    let mut pod = Pod::new("oom", |_| {});
    let spec = pod.spec("a", "x=$(dd if=/dev/zero bs=1M count=200 | tr '\\0' x); echo never");
    let memory = spec.cgroup.dirs.iter().find(|dir| dir.contains("/memory/")).unwrap();
    fs::write(format!("{memory}/memory.limit_in_bytes"), "33554432").unwrap();
    pod.create(spec).unwrap();
    let mut events = pod.connect();
    events.ask(Request::Subscribe).unwrap();
    pod.start("a").unwrap();
    let exit = pod.wait("a");
    assert!(exit.oom_killed, "{exit:?}");
    let oom =
        std::iter::from_fn(|| events.event().ok()).find(|event| !matches!(event.what, EventKind::Started));
    assert!(matches!(oom.unwrap().what, EventKind::Oom));
}

#[test]
fn unified_groups_as_root() {
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let Some(unified) = unified.into_iter().find(|dir| dir.join("cgroup.controllers").exists()) else {
        return;
    };
    let mut pod = Pod::new("unified", |spec| spec.pid = PidMode::Pod);
    let dir = unified.join(format!("tiphys-test-unified-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let mut spec =
        pod.spec("a", "tail -n1 /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs; sleep 1000 & wait");
    spec.cgroup = Cgroup { dirs: vec![dir.to_string_lossy().into()], v2: true };
    spec.cgroup_namespace = true;
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    wait_until(|| pod.log("a") == "stdout F 0::/\nstdout F /sys/fs/cgroup/cgroup.procs\n");
    let (exit, text) = pod.exec("a", &["tail", "-n1", "/proc/self/cgroup"]).unwrap();
    assert_eq!((exit.code, text.as_str()), (0, "0::/\n"));
    pod.client.ask(Request::Signal { container: "a".into(), signal: libc::SIGKILL, all: true }).unwrap();
    assert_eq!(pod.wait("a").code, 137);
    wait_until(|| fs::remove_dir(&dir).is_ok());
}

#[test]
fn users_are_mapped_as_root() {
    let maps = vec![IdMap { container: 0, host: 200_000, length: 65536 }];
    let mut pod = Pod::new("users", |spec| {
        let path = format!("/run/tiphys-test-users-{}/ns-user", std::process::id());
        spec.user = Some(UserNamespace { path, uids: maps.clone(), gids: maps.clone() });
        spec.pid = PidMode::Pod;
    });
    let volume = pod.dir.join("volume");
    fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(1000), Some(1000)).unwrap();
    let mut spec = pod.spec(
        "a",
        "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /bin/busybox /dev/null /dev/shm /volume; \
         touch /new /volume/new && stat -c %u /new; chown 5:6 /new; hostname changed && hostname; \
         echo hello > /dev/stdout; sleep 1000",
    );
    let kind = MountKind::Bind { source: volume.to_string_lossy().into() };
    spec.mounts.push(Mount { destination: "/volume".into(), kind, idmap: true, ..Mount::default() });
    spec.process.capabilities = Capabilities { bounding: !0, effective: !0, permitted: !0, ambient: 0 };
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    wait_until(|| pod.log("a").lines().count() >= 9);
    let expected = "0\n 0 200000 65536\n0:0\n0:0\n0:0\n1000:1000\n0\nchanged\nhello\n";
    assert_eq!(pod.log("a").replace("stdout F ", ""), expected);
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&pod.dir.join("a/layer/upper/new")), 200_005);
    assert_eq!(owner(&volume.join("new")), 0);
    let (exit, text) =
        pod.exec("a", &["sh", "-c", "id -u; cat /proc/1/comm; echo fine > /dev/stdout"]).unwrap();
    assert_eq!((exit.code, text.as_str()), (0, "0\npause\nfine\n"));
}

#[test]
fn sysctls_hostname_and_targets_as_root() {
    let mut pod = Pod::new("sysctls", |spec| {
        spec.sysctls =
            vec![("net.core.somaxconn".into(), "77".into()), ("kernel.shm_rmid_forced".into(), "1".into())];
    });
    let spec = pod.spec("a", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced; sleep 1000");
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    wait_until(|| pod.log("a") == "stdout F 77\nstdout F 1\n");
    // A debug container in its target's PID namespace.
    let mut spec = pod.spec("debug", "cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-10");
    spec.pid_from = Some("a".into());
    assert_eq!(pod.run(spec), (0, "stdout F sleep 1000\n".into()));
    assert_eq!(pod.state().containers.len(), 1);
}

#[test]
fn a_shim_is_small_and_sleeps_as_root() {
    let mut pod = Pod::new("small", |_| {});
    let spec = pod.spec("a", "sleep 1000");
    let start = std::time::Instant::now();
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    let took = start.elapsed();
    let read = |file: &str| {
        let mut text = String::new();
        fs::File::open(format!("/proc/{}/{file}", pod.pid)).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let pss = number(&read("smaps_rollup"), "Pss:");
    println!("create and start {took:?}, shim PSS {pss} kB");
    // Anonymous memory alone: the program's text lies in a memfd, whose pages are always dirty, and are
    // private to this process or not as other tests' shims happen to run beside it.
    let own = number(&read("smaps_rollup"), "Anonymous:");
    assert!(own < 256, "{own} kB of its own");
    assert_eq!(number(&read("status"), "Threads:"), 1);
}
