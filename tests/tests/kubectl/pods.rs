//! Inside pods: logs, exec, attach, cp, port-forward, debug.

use super::{has, idle};
use cluster_tests::http;
use cluster_tests::manifests::shell;
use cluster_tests::{Engine, Room};

pub(crate) fn logs(room: &Room) {
    let k = &room.kubectl;
    // containerd reads the two streams apart, and keeps no order between what comes at the same time.
    let pause = if room.cluster.engine() == Engine::Containerd { "sleep 0.3; " } else { "" };
    let script =
        format!("for i in 1 2 3 4 5; do echo line $i; done; {pause}echo oops >&2; exec sleep infinity");
    let speaks = shell("speaks", "").replace("[sleep, infinity]", &format!("[sh, -c, '{script}']"));
    let two = shell("two", "").replace("command: [sleep, infinity]", "command: [sh, -c, 'echo from sh; exec sleep infinity']\n  - name: other\n    image: localhost/busybox:debian12\n    command: [sh, -c, 'echo from other; exec sleep infinity']");
    let script =
        "if [ -e /hold/ran ]; then echo second; exec sleep infinity; fi; touch /hold/ran; echo first; exit 1";
    let crash = shell("crash", "volumes: [{name: hold, emptyDir: {}}]").replace(
        "[sleep, infinity]",
        &format!("[sh, -c, '{script}']\n    volumeMounts: [{{name: hold, mountPath: /hold}}]"),
    );
    k.apply(&(speaks + &two + &crash));
    k.wait("condition=Ready", "pod/speaks");
    k.wait("condition=Ready", "pod/two");
    // Standard output and error both, in the order in which they came.
    let mut follow = k.start("logs -f speaks");
    follow.line("oops");
    assert_eq!(k.run("logs speaks --tail=2"), "line 5\noops");
    assert_eq!(k.run("logs speaks --limit-bytes=7"), "line 1");
    assert_eq!(k.run("logs speaks --since=1h").lines().count(), 6);
    assert_eq!(k.run("logs speaks --since-time=2999-01-01T00:00:00Z"), "");
    let stamped = k.run("logs speaks --timestamps --tail=1");
    assert!(stamped.ends_with("Z oops") && stamped.starts_with("20"), "{stamped}");
    k.run("exec speaks -- sh -c 'echo later > /proc/1/fd/1'");
    assert_eq!(follow.line("later"), "later");
    assert_eq!(k.run("logs two -c other"), "from other");
    has(&k.run("logs two"), &["Defaulted container \"sh\" out of: sh, other", "from sh"]);
    has(
        &k.run("logs two --all-containers --prefix"),
        &["[pod/two/sh] from sh", "[pod/two/other] from other"],
    );
    has(&k.run("logs -l app=speaks --tail=1"), &["later"]);
    k.until("pod/crash", "restarted", |pod| {
        (pod["status"]["containerStatuses"][0]["restartCount"] == 1
            && pod["status"]["containerStatuses"][0]["ready"] == true)
            .then_some(())
    });
    assert_eq!(k.run("logs crash --previous"), "first");
    assert_eq!(k.run("logs crash"), "second");
    has(&k.refused("logs speaks --previous"), &["Error from server (BadRequest)"]);
    has(&k.refused("logs two -c third"), &["container third is not valid for pod two"]);
    has(&k.refused("logs absent"), &["rror from server (NotFound): pods \"absent\" not found"]);
    // It ends with the container.
    let (ok, said) = {
        k.run("delete pod speaks");
        follow.finish()
    };
    assert!(ok, "{said}");
}

pub(crate) fn exec(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("lone", ""));
    k.wait("condition=Ready", "pod/lone");
    assert_eq!(k.run("exec lone -- echo ahoy"), "ahoy");
    assert_eq!(k.run("exec lone -c sh -- sh -c 'echo $0 $HOSTNAME; pwd'"), "sh lone\n/");
    let failed = k.output("exec lone -- sh -c 'echo out; echo err >&2; exit 7'");
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(String::from_utf8(failed.stdout).unwrap(), "out\n");
    assert_eq!(String::from_utf8(failed.stderr).unwrap(), "err\ncommand terminated with exit code 7\n");
    assert_eq!(k.feed("exec -i lone -- wc -c", &"x".repeat(100_000)), "100000");
    let many = k.run("exec lone -- sh -c 'dd if=/dev/zero bs=1024 count=2048 2>/dev/null | tr \"\\000\" x'");
    assert_eq!(many.len(), 2 << 20);
    has(&k.refused("exec lone -- /no/such/program"), &["no such file or directory"]);
    has(&k.refused("exec absent -- true"), &["Error from server (NotFound): pods \"absent\" not found"]);
    has(&k.refused("exec lone -c absent -- true"), &["container absent is not valid for pod lone"]);
    // A terminal: both ends of it, its size, and what is typed into it.
    let command = "exec -it lone -- sh -c \"test -t 0 && test -t 1 && echo a terminal of \\$TERM\"";
    let script = format!("script -qec 'kubectl -n {} {command}' /dev/null < /dev/null", k.namespace);
    has(&k.sh(&script), &["a terminal of xterm"]);
    // No line editor of a shell: what is typed while it takes the terminal over is lost in it, here as anywhere.
    let script = r#"trap \"echo caught; exit 3\" INT; until test \"\$(stty size)\" = \"41 123\"; do sleep 1; done; echo sized; read line; echo sum \$((line + 2)); while :; do sleep 1; done"#;
    let mut terminal = k.start_sh(&format!(
        "exec script -qec 'stty rows 41 cols 123; kubectl -n {} exec -it lone -- sh -c \"{script}\"' /dev/null",
        k.namespace
    ));
    // A foreign runtime may be told of the size only after the start.
    terminal.line("sized");
    terminal.type_in("40\n");
    terminal.line("sum 42");
    terminal.type_in("\u{3}");
    terminal.line("caught");
    let (ok, said) = terminal.finish();
    assert!(!ok && said.contains("command terminated with exit code 3"), "{said}");
    idle(room, "d");
    assert_eq!(k.run("exec deployment/d -- echo ahoy"), "ahoy");
}

pub(crate) fn attach(room: &Room) {
    let k = &room.kubectl;
    let echo = shell("echo", "").replace(
        "command: [sleep, infinity]",
        "command: [sh, -c, 'while read line; do echo heard $line; done']\n    stdin: true",
    );
    k.apply(&echo);
    k.wait("condition=Ready", "pod/echo");
    let mut attached = k.start("attach -i echo");
    attached.type_in("ahoy\n");
    attached.line("heard ahoy");
    drop(attached);
    // The container has not noticed.
    let mut again = k.start("attach -i echo");
    again.type_in("again\n");
    again.line("heard again");
    assert_eq!(k.run("logs echo"), "heard ahoy\nheard again");
    assert_eq!(k.field("pod/echo", ".status.containerStatuses[0].restartCount"), "0");
}

pub(crate) fn copy(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("lone", ""));
    k.wait("condition=Ready", "pod/lone");
    let here = k.home().join(format!("{}-cp", k.namespace));
    std::fs::create_dir_all(here.join("tree/deep")).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).flat_map(|i| i.to_le_bytes()).collect();
    std::fs::write(here.join("tree/deep/bytes"), &bytes).unwrap();
    std::fs::write(here.join("tree/note"), "land").unwrap();
    let here = here.display();
    k.run(&format!("cp {here}/tree lone:/tmp/tree"));
    assert_eq!(k.run("exec lone -- cat /tmp/tree/note"), "land");
    k.run(&format!("cp lone:/tmp/tree/deep/bytes {here}/back"));
    assert!(std::fs::read(format!("{here}/back")).unwrap() == bytes);
    k.run(&format!("cp {}/lone:/tmp/tree {here}/all", k.namespace));
    assert!(std::fs::read(format!("{here}/all/deep/bytes")).unwrap() == bytes);
}

pub(crate) fn port_forward(room: &Room) {
    let k = &room.kubectl;
    let pod = shell("web", "").replace("[sleep, infinity]", "[sh, -c, 'mkdir /www; echo land > /www/index.html; exec httpd -f -p 80 -h /www']\n    ports: [{name: http, containerPort: 80}]");
    k.apply(&pod);
    k.wait("condition=Ready", "pod/web");
    k.run("expose pod web --port=8080 --target-port=http");
    for (what, port) in [("pod/web", "80"), ("service/web", "8080")] {
        let mut forward = k.start(&format!("port-forward {what} :{port}"));
        let line = forward.line("Forwarding from 127.0.0.1:");
        let local: u16 = line.split(':').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], local));
        for _ in 0..3 {
            assert_eq!(room.cluster.net.inside(|| http::get(address)).unwrap(), "land\n");
        }
    }
    // Nobody listens there: that connection fails, and the forwarder says why.
    let mut forward = k.start("port-forward pod/web :81");
    let line = forward.line("Forwarding from 127.0.0.1:");
    let local: u16 = line.split(':').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(room.cluster.net.inside(|| http::get(([127, 0, 0, 1], local).into())).is_err());
    forward.line("failed to connect to localhost:81 inside namespace");
}

pub(crate) fn debug(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("lone", ""));
    k.wait("condition=Ready", "pod/lone");
    k.run("debug lone --image=localhost/busybox:debian12 --target=sh --container=look --quiet -- sh -c 'ps; echo seen'");
    k.until("pod/lone", "the debugger has ended", |pod| {
        let status = &pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"];
        (status["exitCode"] == 0).then_some(())
    });
    // It shares the processes of its target.
    has(&k.run("logs lone -c look"), &["sleep infinity", "seen"]);
    has(&k.run("describe pod lone"), &["Ephemeral Containers:\n  look:"]);
    assert_eq!(k.field("pod/lone", ".status.containerStatuses[0].restartCount"), "0");
}
