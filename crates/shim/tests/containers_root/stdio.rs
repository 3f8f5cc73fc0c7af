//! Terminals, stdin, attached clients, exec, and logs that rotate or fail.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use shim::protocol::*;

use crate::pod::{Pod, wait_until};

fn attach(pod: &mut Pod, id: &str) -> (File, File) {
    let ((stdin, typing), (reading, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let request = Request::Attach { container: id.into(), stdin: true, stdout: true, stderr: false };
    pod.client.call(request, &[stdin.as_fd(), stdout.as_fd()]).unwrap().0.unwrap();
    (OwnedFd::from(typing).into(), OwnedFd::from(reading).into())
}

fn rest(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn stdin_reaches_the_container_as_root() {
    let mut pod = Pod::new("stdin", |_| {});
    let mut spec = pod.spec("a", "cat; echo end");
    (spec.stdio.stdin, spec.stdio.stdin_once) = (true, true);
    pod.create(spec).unwrap();
    let (mut typing, reading) = attach(&mut pod, "a");
    pod.start("a").unwrap();
    // More than a pipe holds, in both directions at once.
    let text = "0123456789abcdef\n".repeat(20_000);
    let writer = {
        let text = text.clone();
        std::thread::spawn(move || typing.write_all(text.as_bytes()).unwrap())
    };
    let got = rest(reading);
    writer.join().unwrap();
    assert!(got == text + "end\n", "{} bytes", got.len());
    assert_eq!(pod.wait("a").code, 0);

    // Without stdin_once the first client's end is not the container's.
    let mut spec = pod.spec("b", "read x; echo got $x; read x; echo got $x; read x || echo closed");
    spec.stdio.stdin = true;
    pod.create(spec).unwrap();
    pod.start("b").unwrap();
    for word in ["one", "two"] {
        let (mut typing, _reading) = attach(&mut pod, "b");
        writeln!(typing, "{word}").unwrap();
        drop(typing);
        wait_until(|| pod.log("b").contains(word));
    }
    pod.client.ask(Request::CloseStdin { container: "b".into() }).unwrap();
    assert_eq!(pod.wait("b").code, 0);
    assert_eq!(pod.log("b"), "stdout F got one\nstdout F got two\nstdout F closed\n");
}

#[test]
fn a_terminal_as_root() {
    let mut pod = Pod::new("terminal", |_| {});
    let mut spec =
        pod.spec("a", "tty; stty size; read x; stty size; ls -l /dev/console | cut -c1; echo $x; exit 4");
    (spec.stdio.terminal, spec.stdio.stdin) = (true, true);
    pod.create(spec).unwrap();
    pod.client.ask(Request::Resize { container: "a".into(), width: 80, height: 24 }).unwrap();
    let (mut typing, reading) = attach(&mut pod, "a");
    pod.start("a").unwrap();
    wait_until(|| pod.log("a").contains("24 80"));
    pod.client.ask(Request::Resize { container: "a".into(), width: 132, height: 50 }).unwrap();
    typing.write_all(b"typed\n").unwrap();
    assert_eq!(rest(reading), "/dev/pts/0\r\n24 80\r\ntyped\r\n50 132\r\nc\r\ntyped\r\n");
    assert_eq!(pod.wait("a").code, 4);
}

#[test]
fn exec_as_root() {
    let mut pod = Pod::new("exec", |_| {});
    let mut spec = pod.spec("a", "sleep 1000");
    spec.process.cwd = "/tmp".into();
    pod.create(spec).unwrap();
    assert_eq!(pod.exec("a", &["true"]).unwrap_err().kind, FailureKind::InvalidState);
    pod.start("a").unwrap();
    let mut check = |args: &[&str], code: i32, output: &str| {
        let (exit, text) = pod.exec("a", args).unwrap();
        assert_eq!((exit.code, text.as_str()), (code, output));
    };
    check(&["sh", "-c", "pwd; echo err >&2; exit 3"], 3, "/tmp\nerr\n");
    check(&["sh", "-c", "kill -9 $$"], 137, "");
    check(&["sh", "-c", "readlink /proc/self/ns/pid | grep -cF $(readlink /proc/1/ns/pid)"], 0, "1\n");
    check(
        &["sh", "-c", "grep CapEff /proc/self/status; grep -c /a$ /proc/self/cgroup"],
        0,
        "CapEff:\t00000000a80425fb\n3\n",
    );
    let failure = pod.exec("a", &["nonesuch"]).unwrap_err();
    assert_eq!(failure.message, "exec: \"nonesuch\": executable file not found in $PATH");
    assert_eq!(pod.exec("b", &["true"]).unwrap_err().kind, FailureKind::NotFound);

    // With a terminal its master comes back with the answer.
    let process = Process {
        args: ["sh", "-c", "tty; stty size; exit 5"].map(String::from).to_vec(),
        ..pod.spec("x", "").process
    };
    let spec = ExecSpec {
        id: "t".into(),
        container: "a".into(),
        process,
        terminal: true,
        width: 100,
        height: 30,
        ..ExecSpec::default()
    };
    let (result, fds) = pod.client.call(Request::Exec(Box::new(spec)), &[]).unwrap();
    assert!(matches!(result, Ok(Reply::ExecStarted { .. })), "{result:?}");
    let mut master = File::from(fds.into_iter().next().unwrap());
    let mut text = Vec::new();
    // The end of a terminal is an error, not an end of file.
    let _ = master.read_to_end(&mut text);
    assert_eq!(String::from_utf8(text).unwrap(), "/dev/pts/0\r\n30 100\r\n");
    let Ok(Reply::Exited(exit)) = pod.client.ask(Request::ExecWait { exec: "t".into() }) else { panic!() };
    assert_eq!(exit.code, 5);

    // A signal reaches the whole group.
    let (reading, stdout) = std::io::pipe().unwrap();
    let process = Process {
        args: ["sh", "-c", "sleep 1000; true"].map(String::from).to_vec(),
        ..pod.spec("x", "").process
    };
    let spec =
        ExecSpec { id: "s".into(), container: "a".into(), process, stdout: true, ..ExecSpec::default() };
    pod.client.call(Request::Exec(Box::new(spec)), &[stdout.as_fd()]).unwrap().0.unwrap();
    drop(stdout);
    pod.client.ask(Request::ExecSignal { exec: "s".into(), signal: libc::SIGKILL }).unwrap();
    assert_eq!(rest(File::from(OwnedFd::from(reading))), "");
    // A container's end takes its exec'd processes along, and their results are still told.
    pod.signal("a", libc::SIGKILL);
    let Ok(Reply::Exited(exit)) = pod.client.ask(Request::ExecWait { exec: "s".into() }) else { panic!() };
    assert_eq!(exit.code, 137);
    pod.wait("a");
}

#[test]
fn nobody_waits_for_a_slow_client_as_root() {
    let mut pod = Pod::new("slow", |_| {});
    let mut spec = pod.spec("a", "dd if=/dev/zero bs=64k count=160 | tr '\\0' '\\n'; exit 6");
    spec.stdio.stdin = true;
    spec.stdio.log = None;
    pod.create(spec).unwrap();
    let (_typing, _never_read) = attach(&mut pod, "a");
    pod.start("a").unwrap();
    assert_eq!(pod.wait("a").code, 6);
}

#[test]
fn logs_rotate_and_survive_a_full_disk_as_root() {
    let mut pod = Pod::new("rotate", |_| {});
    let mut spec = pod.spec("a", "while read x; do echo $x; done");
    spec.stdio.stdin = true;
    let logs = pod.dir.join("a/logs");
    pod.create(spec).unwrap();
    pod.start("a").unwrap();
    let (mut typing, _reading) = attach(&mut pod, "a");
    writeln!(typing, "before").unwrap();
    wait_until(|| pod.log("a") == "stdout F before\n");
    fs::rename(logs.join("0.log"), logs.join("0.log.old")).unwrap();
    pod.client.ask(Request::ReopenLog { container: "a".into() }).unwrap();
    writeln!(typing, "after").unwrap();
    wait_until(|| pod.log("a") == "stdout F after\n");
    pod.signal("a", libc::SIGKILL);
    pod.wait("a");

    // A log on a disk of 64 KiB: the container writes far more and ends all the same.
    let small = pod.dir.join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k"))
        .unwrap();
    let mut spec =
        pod.spec("b", "i=0; while [ $i -lt 5000 ]; do echo line $i of many; i=$((i+1)); done; exit 8");
    spec.stdio.log = Some((small.to_string_lossy().into(), "0.log".into()));
    let (code, _) = pod.run(spec);
    let full = fs::read_to_string(small.join("0.log")).unwrap();
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(code, 8);
    assert!(full.len() > 60_000 && full.lines().next().unwrap().ends_with("stdout F line 0 of many"));
}
