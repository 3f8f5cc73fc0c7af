//! The whole runtime through its CRI, in process: real shims, namespaces, cgroups, overlays. Needs root and
//! busybox-static. Every test ends with a look for what was left behind.

// Helpers of tests are not in test functions, where clippy allows it.
#![allow(clippy::unwrap_used)]

mod held;
mod node;
mod socket;
mod volumes;

use cri::v1::*;
use cri::{Code, RuntimeService, Streams};
use futures::StreamExt;
use node::{Node, eventually};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn log_lines(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // `<time> stdout F <line>`
    text.lines().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_from_birth_to_removal() {
    let node = Node::new().await;
    let mut events = node.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
    let pod = node.run_pod(node.pod("web")).await;
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let status = node.runtime.pod_sandbox_status(request).await.unwrap().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    let network = status.network.unwrap();
    assert_eq!((network.ip.as_str(), network.additional_ips[0].ip.as_str()), ("10.9.8.7", "fd00::7"));

    let mut config = node.container(
        "main",
        "trap 'echo bye; exit 7' TERM; echo hello; echo oops >&2; hostname; touch /x; while :; do sleep 0.1; done",
    );
    let resources =
        LinuxContainerResources { memory_limit_in_bytes: 64 << 20, cpu_shares: 512, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = node.create(&pod, config).await.unwrap();
    assert_eq!(node.status(&id).await.state(), ContainerState::ContainerCreated);
    node.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    let status = node.status(&id).await;
    assert_eq!(
        (status.state(), status.started_at > status.created_at),
        (ContainerState::ContainerRunning, true)
    );
    let log = node.logs().join("main.log");
    eventually("three lines in the log", || log_lines(&log).len() == 3).await;
    let mut lines = log_lines(&log);
    lines.sort();
    assert_eq!(lines, ["stderr F oops", "stdout F hello", "stdout F web"]);

    // What it uses, by name.
    let described = node.runtime.list_metric_descriptors(Default::default()).await.unwrap().descriptors;
    let used = node.runtime.list_pod_sandbox_metrics(Default::default()).await.unwrap().pod_metrics;
    let of_container = &used[0].container_metrics[0];
    assert_eq!((&used[0].pod_sandbox_id, &of_container.container_id), (&pod, &id));
    let memory = of_container.metrics.iter().find(|m| m.name == "container_memory_usage_bytes").unwrap();
    assert!(memory.value.unwrap().value > 0 && memory.metric_type() == MetricType::Gauge);
    let descriptor = described.iter().find(|d| d.name == memory.name).unwrap();
    let label = |key: &str| {
        let place = descriptor.label_keys.iter().position(|known| known == key).unwrap();
        memory.label_values[place].as_str()
    };
    assert_eq!((label("container"), label("id"), label("pod")), ("main", id.as_str(), "web"));
    for metric in used[0].metrics.iter().chain(&of_container.metrics) {
        let descriptor = described.iter().find(|d| d.name == metric.name).unwrap();
        assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{metric:?}");
    }
    let of = |name: &str| {
        let mut all = used[0].metrics.iter().chain(&of_container.metrics).filter(|m| m.name == name);
        all.next().unwrap_or_else(|| panic!("no {name}")).value.unwrap().value
    };
    assert!(of("container_processes") >= 1 && of("container_file_descriptors") >= 1);
    assert!(of("container_fs_limit_bytes") > of("container_fs_usage_bytes"));
    assert!(of("container_last_seen") >= of("container_start_time_seconds"));
    assert!(of("container_start_time_seconds") > 1_700_000_000);

    // What it sees.
    let (code, seen) = node
        .exec(&id, "id -u; cat /etc/resolv.conf; cat /proc/1/cmdline | head -c 7; ls /sys/class/net; grep Seccomp: /proc/self/status")
        .await;
    assert_eq!((code, seen.as_str()), (0, "0\nnameserver 10.96.0.10\n/bin/shlo\nSeccomp:\t0\n"));
    assert_eq!(node.exec(&id, "echo out; echo err >&2; exit 3").await, (3, "out\nerr\n".into()));
    let begun = Instant::now();
    let slow =
        ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".into(), "77".into()], timeout: 1 };
    assert_eq!(node.runtime.exec_sync(slow).await.unwrap_err().code, Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut killed = false;
    for _ in 0..100 {
        killed = node.exec(&id, "ps | grep 'sleep [7]7'").await.0 == 1;
        if killed {
            break;
        }
    }
    assert!(killed, "a command that timed out goes on");
    let missing = ExecSyncRequest { container_id: id.clone(), cmd: vec!["/nope".into()], timeout: 0 };
    assert!(node.runtime.exec_sync(missing).await.is_err());

    // Usage and limits.
    let stats =
        node.runtime.container_stats(ContainerStatsRequest { container_id: id.clone() }).await.unwrap();
    let stats = stats.stats.unwrap();
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    assert!(stats.writable_layer.unwrap().inodes_used.unwrap().value >= 1);
    let linux = LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    let update = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    node.runtime.update_container_resources(update).await.unwrap();
    let linux = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((linux.memory_limit_in_bytes, linux.cpu_shares), (32 << 20, 512));
    let pod_stats = PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let pod_stats = node.runtime.pod_sandbox_stats(pod_stats).await.unwrap().stats.unwrap().linux.unwrap();
    assert!(pod_stats.containers.len() == 1 && pod_stats.memory.unwrap().usage_bytes.unwrap().value > 0);

    // Its log moves away and is opened again.
    std::fs::rename(&log, node.logs().join("old.log")).unwrap();
    let reopen = ReopenContainerLogRequest { container_id: id.clone() };
    node.runtime.reopen_container_log(reopen).await.unwrap();
    assert!(log.exists());

    node.stop(&id, 10).await;
    let status = node.status(&id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (ContainerState::ContainerExited, 7, "Error")
    );
    assert!(status.finished_at > status.started_at);
    assert_eq!(log_lines(&log), ["stdout F bye"]);
    node.stop(&id, 0).await;
    let again = node.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await;
    assert!(again.is_err());

    let remove = RemoveContainerRequest { container_id: id.clone() };
    node.runtime.remove_container(remove.clone()).await.unwrap();
    node.runtime.remove_container(remove).await.unwrap();
    let stop = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    node.runtime.stop_pod_sandbox(stop.clone()).await.unwrap();
    node.runtime.stop_pod_sandbox(stop).await.unwrap();
    let list = node.runtime.list_pod_sandbox(Default::default()).await.unwrap().items;
    assert_eq!(list[0].state(), PodSandboxState::SandboxNotready);

    use ContainerEventType::*;
    let expected = [
        (&pod, ContainerStartedEvent),
        (&id, ContainerCreatedEvent),
        (&id, ContainerStartedEvent),
        (&id, ContainerStoppedEvent),
        (&id, ContainerDeletedEvent),
        (&pod, ContainerStoppedEvent),
    ];
    for (of, kind) in expected {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((&event.container_id, event.container_event_type()), (of, kind));
        assert_eq!(event.pod_sandbox_status.unwrap().id, pod);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_streams() {
    let node = Node::new().await;
    let pod = node.run_pod(node.pod("streams")).await;
    let mut config = node.container("cat", "while read line; do echo got $line; done; sleep 1000");
    config.stdin = true;
    let id = node.start(&pod, config).await;

    let command = |script: &str, tty| ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), script.into()],
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let mut session = node.runtime.exec_stream(command("cat; echo done >&2; exit 4", false)).await.unwrap();
    let data = vec![b'x'; 300_000];
    let mut stdin = session.stdin.take().unwrap();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
    let (a, b) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
    a.unwrap();
    b.unwrap();
    writer.await.unwrap();
    assert!(out == data && err == b"done\n");
    assert_eq!(session.exit.await.unwrap(), 4);

    // The size is set by a task, whose turn may come after the line is read: the command waits for it.
    let script = "read x; until stty size | grep -q '43 132'; do :; done; stty size; echo $TERM; exit 5";
    let mut terminal = node.runtime.exec_stream(command(script, true)).await.unwrap();
    let size = cri::streams::TerminalSize { width: 132, height: 43 };
    terminal.resize.as_ref().unwrap().send(size).await.unwrap();
    terminal.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut out = String::new();
    terminal.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    assert!(out.contains("43 132") && out.contains("xterm"), "{out:?}");
    assert_eq!(terminal.exit.await.unwrap(), 5);

    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, ..Default::default() };
    let mut attached = node.runtime.attach_stream(attach).await.unwrap();
    attached.stdin.as_mut().unwrap().write_all(b"you\n").await.unwrap();
    let mut out = [0; 8];
    attached.stdout.as_mut().unwrap().read_exact(&mut out).await.unwrap();
    assert_eq!(&out, b"got you\n");
    drop(attached);

    // A port of the pod, which nobody outside can reach.
    let listen =
        node.exec(&id, "echo -n pong > /tmp/pong; (nc -l -p 8080 < /tmp/pong &) >/dev/null 2>&1; sleep 0.2");
    assert_eq!(listen.await.0, 0);
    let mut port = node.runtime.port_forward_stream(&pod, 8080).await.unwrap();
    port.shutdown().await.unwrap();
    let mut out = String::new();
    port.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "pong");
    assert!(node.runtime.port_forward_stream(&pod, 8081).await.is_err());

    // Whoever hangs up ends what was run.
    drop(node.runtime.exec_stream(command("sleep 4242", false)).await.unwrap());
    let mut gone = false;
    for _ in 0..100 {
        gone = node.exec(&id, "ps | grep 'sleep [4]242'").await.0 == 1;
        if gone {
            break;
        }
    }
    assert!(gone);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_restart_changes_nothing() {
    let mut node = Node::new().await;
    let pod = node.run_pod(node.pod("steady")).await;
    let id = node.start(&pod, node.container("main", "echo one; sleep 1000")).await;
    let ends = node
        .start(&pod, node.container("ends", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 9"))
        .await;
    let created = node.create(&pod, node.container("waits", "sleep 1000")).await.unwrap();
    let before = node.status(&id).await;
    // The end comes while nobody looks: asked for by a command whose answer nobody waits for.
    assert_eq!(node.exec(&ends, "(sleep 0.5; touch /tmp/end) >/dev/null 2>&1 &").await.0, 0);
    let exit_file = node.dir.path().join("data/containers").join(&ends).join("exit.json");
    node.runtime = {
        let config = node.config.clone();
        let old = std::mem::replace(&mut node.runtime, Runtime::open_nothing(&config).await);
        drop(old);
        eventually("an exit while the daemon is away", || exit_file.exists()).await;
        Runtime::open(config).await.unwrap()
    };
    assert_eq!(node.status(&id).await, before);
    let ended = node.status(&ends).await;
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::ContainerExited, 9));
    assert!(ended.started_at > 0 && ended.finished_at > ended.started_at);
    assert_eq!(node.status(&created).await.state(), ContainerState::ContainerCreated);
    node.runtime.start_container(StartContainerRequest { container_id: created.clone() }).await.unwrap();
    assert_eq!(node.exec(&id, "cat /proc/1/cmdline | tr '\\0' ' '").await.1, "sleep 1000 ");
    // A name that is taken stays taken.
    let again = RunPodSandboxRequest { config: Some(node.pod("steady")), ..Default::default() };
    assert!(node.runtime.run_pod_sandbox(again).await.is_err());

    // The shim dies: nothing of the pod goes on, and it is told.
    let mut events = node.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
    let shim = node.dir.path().join("run/pods").join(&pod[..20]).join("shim.json");
    let shim: serde_json::Value = serde_json::from_slice(&std::fs::read(shim).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(shim["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    loop {
        let event = events.next().await.unwrap().unwrap();
        // Whoever hears of a container's end knows that there is no going on in this sandbox.
        let sandbox = event.pod_sandbox_status.as_ref().unwrap();
        assert_eq!(sandbox.state(), cri::v1::PodSandboxState::SandboxNotready);
        if event.container_id == pod {
            assert_eq!(event.container_event_type(), ContainerEventType::ContainerStoppedEvent);
            break;
        }
    }
    let status = node.status(&id).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
    node.finish().await;
}

use runtime::Runtime;

/// A runtime to hold the place of one that is dropped.
trait Nothing {
    async fn open_nothing(config: &runtime::Config) -> Runtime;
}

impl Nothing for Runtime {
    async fn open_nothing(config: &runtime::Config) -> Runtime {
        let mut other = config.clone();
        other.data_dir = config.data_dir.with_file_name("other-data");
        other.run_dir = config.run_dir.with_file_name("other");
        Runtime::open(other).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_failures_leave_nothing() {
    let mut node = Node::new().await;
    let missing = |error: cri::Error| assert_eq!(error.code, Code::NotFound, "{error}");
    let status = ContainerStatusRequest { container_id: "nope".into(), verbose: false };
    missing(node.runtime.container_status(status).await.unwrap_err());
    missing(node.create("nope", node.container("x", "true")).await.unwrap_err());
    node.stop("nope", 1).await;
    let unlucky = RunPodSandboxRequest { config: Some(node.pod("unlucky")), ..Default::default() };
    let error = node.runtime.run_pod_sandbox(unlucky).await.unwrap_err();
    assert!(error.message.contains("no address is free"), "{error}");
    assert!(node.runtime.list_pod_sandbox(Default::default()).await.unwrap().items.is_empty());

    let pod = node.run_pod(node.pod("pod")).await;
    let mut no_image = node.container("no-image", "true");
    no_image.image = Some(ImageSpec { image: "absent:1".into(), ..Default::default() });
    missing(node.create(&pod, no_image).await.unwrap_err());
    let mut no_user = node.container("no-user", "true");
    no_user.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_username = "nobody".into();
    assert_eq!(node.create(&pod, no_user).await.unwrap_err().code, Code::InvalidArgument);
    let mut no_program = node.container("no-program", "");
    no_program.command = vec!["/no/such/program".into()];
    let id = node.create(&pod, no_program).await.unwrap();
    let error =
        node.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap_err();
    assert!(error.message.contains("/no/such/program"), "{error}");
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    let mut greedy = node.container("greedy", "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo $x");
    let memory = LinuxContainerResources { memory_limit_in_bytes: 8 << 20, ..Default::default() };
    greedy.linux.as_mut().unwrap().resources = Some(memory);
    let greedy = node.start(&pod, greedy).await;
    let mut state = node.status(&greedy).await;
    while state.state() != ContainerState::ContainerExited {
        tokio::time::sleep(Duration::from_millis(20)).await;
        state = node.status(&greedy).await;
    }
    assert_eq!((state.reason.as_str(), state.exit_code), ("OOMKilled", 137));

    // Two daemons on one directory would fight; what a crash left half made is undone.
    let record = node.dir.path().join("data/sandboxes").join(&pod).join("sandbox.json");
    let mut half: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    half["phase"] = "Creating".into();
    let placeholder = Runtime::open_nothing(&node.config).await;
    drop(std::mem::replace(&mut node.runtime, placeholder));
    std::fs::write(&record, half.to_string()).unwrap();
    std::fs::create_dir(node.dir.path().join("data/containers/empty")).unwrap();
    node.restart().await;
    assert!(node.runtime.list_pod_sandbox(Default::default()).await.unwrap().items.is_empty());
    assert!(node.runtime.list_containers(Default::default()).await.unwrap().containers.is_empty());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_namespaces_and_rights() {
    let node = Node::new().await;
    let mut shared = node.pod("shared");
    let security = shared.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(NamespaceOption {
        pid: NamespaceMode::Pod.into(),
        network: NamespaceMode::Node.into(),
        ..Default::default()
    });
    let options = security.namespace_options.clone();
    shared.hostname = String::new();
    let pod = node.run_pod(shared).await;
    assert!(node.network.0.lock().unwrap().is_empty());
    let container = |name: &str, edit: &dyn Fn(&mut LinuxContainerSecurityContext)| {
        let mut config = node.container(name, "sleep 1000");
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = options.clone();
        edit(security);
        config
    };
    let plain = node.start(&pod, container("plain", &|_| {})).await;
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(node.exec(&plain, "readlink /proc/self/ns/net").await.1.trim(), host.to_string_lossy());
    let limited = container("limited", &|security| {
        security.run_as_username = "web".into();
        security.readonly_rootfs = true;
        security.no_new_privs = true;
        security.seccomp = Some(SecurityProfile::default());
        security.capabilities =
            Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    });
    let limited = node.start(&pod, limited).await;
    let script = "id -u; touch /tmp/x || echo read-only; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
                  ps | grep -c 'sleep 100[0]'; cat /proc/kcore | wc -c";
    let (_, seen) = node.exec(&limited, script).await;
    for part in
        ["33\n", "read-only", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "\n2\n0\n"]
    {
        assert!(seen.contains(part), "{part:?} is not in {seen}");
    }
    let privileged = container("privileged", &|security| security.privileged = true);
    let privileged = node.start(&pod, privileged).await;
    let (code, seen) =
        node.exec(&privileged, "mount -t tmpfs none /tmp && test -e /dev/kmsg && echo yes").await;
    assert_eq!((code, seen.as_str()), (0, "yes\n"));
    node.finish().await;
}
