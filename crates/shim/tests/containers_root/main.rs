//! Real containers through the real shim. Needs root, busybox-static, and a kernel with namespaces and overlayfs.

#![allow(clippy::unwrap_used)]

mod pod;

use pod::Pod;
use shim::protocol::*;

#[test]
fn a_container_as_root() {
    let mut pod = Pod::new("plain", |_| {});
    let mut spec = pod.spec("a", "echo out; echo err >&2; printf partial; exit 7");
    spec.process.umask = Some(0o027);
    let (code, log) = pod.run(spec);
    assert_eq!(code, 7, "{log}");
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P partial"]);

    let script = "hostname; pwd; id -u; ls /proc/self/fd; readlink /proc/1/exe; cat /proc/self/cgroup | wc -l; \
                  wc -c < /proc/kcore; echo x > /proc/sys/kernel/hostname || echo ro; \
                  mount | grep -c /run/tiphys-test; grep Cap /proc/self/status; echo $HOME";
    let mut spec = pod.spec("b", script);
    spec.process.cwd = "/made/here".into();
    spec.process.user = User { uid: 1000, gid: 1000, groups: vec![5] };
    let (code, log) = pod.run(spec);
    assert_eq!(code, 0);
    println!("{log}");
}
