//! The machine shuts down: logind waits until the pods have ended, the least important first. The real bus, and somebody
//! on it who speaks as logind and systemd do.

use crate::{Node, container};
use apimachinery::json;
use kubelet::config::ShutdownPeriod;
use kubelet::dbus::Connection;
use kubelet::dbus::wire::{Field, METHOD_CALL, METHOD_RETURN, Message, SIGNAL, Value};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tokio::sync::mpsc;

/// A bus of its own, which ends with the test.
struct Bus {
    dir: tempfile::TempDir,
    daemon: Child,
    address: String,
}

impl Bus {
    fn start() -> Bus {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}/bus", dir.path().display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1", "--address", &address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's package dbus-daemon");
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Bus { dir, daemon, address: line.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What logind is told to do, and what it tells of.
enum Said {
    Called(String),
    /// The other end of a lock.
    Locked(UnixStream),
}

async fn answer(connection: &mut Connection, to: &Message, body: Vec<Value>, descriptor: Option<OwnedFd>) {
    let mut fields = HashMap::from([
        (Field::ReplySerial, Value::U32(to.serial)),
        (Field::Destination, to.text(Field::Sender).into()),
    ]);
    let Some(descriptor) = descriptor else {
        connection.send(Message { kind: METHOD_RETURN, serial: 0, fields, body }).await.unwrap();
        return;
    };
    fields.insert(Field::UnixFds, Value::U32(1));
    let bytes = Message { kind: METHOD_RETURN, serial: 1 << 20, fields, body }.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let stream = connection.stream();
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Logind and systemd: answers calls, and says what it is told to say.
async fn logind(
    mut bus: Connection,
    said: mpsc::UnboundedSender<Said>,
    mut say: mpsc::UnboundedReceiver<bool>,
) {
    // Less than is wanted, until it was told to read its files again.
    let mut delay = 1_000_000;
    loop {
        let message = tokio::select! {
            received = bus.receive() => match received {
                Ok((message, _)) => message,
                Err(_) => return,
            },
            going = say.recv() => {
                let Some(going) = going else { return };
                let fields = HashMap::from([
                    (Field::Path, Value::ObjectPath("/org/freedesktop/login1".into())),
                    (Field::Interface, "org.freedesktop.login1.Manager".into()),
                    (Field::Member, "PrepareForShutdown".into()),
                ]);
                let body = vec![Value::Bool(going)];
                bus.send(Message { kind: SIGNAL, serial: 0, fields, body }).await.unwrap();
                continue;
            }
        };
        if message.kind != METHOD_CALL {
            continue;
        }
        let words = message.body.iter().map(|value| match value {
            Value::I32(number) => number.to_string(),
            other => other.text().to_owned(),
        });
        let words: Vec<String> = words.collect();
        let _ = said.send(Said::Called(format!("{}({})", message.text(Field::Member), words.join(", "))));
        match message.text(Field::Member) {
            "Get" => {
                let told = Value::Variant(Box::new(Value::U64(delay)));
                answer(&mut bus, &message, vec![told], None).await;
            }
            "KillUnit" => {
                delay = 30_000_000;
                answer(&mut bus, &message, vec![], None).await;
            }
            _ => {
                let (theirs, ours) = UnixStream::pair().unwrap();
                answer(&mut bus, &message, vec![Value::Descriptor(0)], Some(ours.into())).await;
                let _ = said.send(Said::Locked(theirs));
            }
        }
    }
}

/// Address and directory, as the node is configured by a function without a memory.
static PLACE: OnceLock<(String, std::path::PathBuf)> = OnceLock::new();

async fn locked(heard: &mut mpsc::UnboundedReceiver<Said>, calls: &mut Vec<String>) -> UnixStream {
    loop {
        match heard.recv().await.unwrap() {
            Said::Called(call) => calls.push(call),
            Said::Locked(lock) => return lock,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_ends_pods_before_the_machine_goes() {
    let bus = Bus::start();
    PLACE.set((bus.address.clone(), bus.dir.path().join("logind.conf.d"))).unwrap();
    let mut service = Connection::open(&bus.address).await.unwrap();
    let named = "org.freedesktop.DBus";
    for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
        let asked = vec![name.into(), Value::U32(0)];
        service.call(named, "/org/freedesktop/DBus", named, "RequestName", asked).await.unwrap();
    }
    let ((said, mut heard), (say, told)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let serving = tokio::spawn(logind(service, said, told));

    let mut node = Node::with(|config| {
        let (address, dir) = PLACE.get().unwrap().clone();
        (config.system_bus, config.logind_config_dir) = (Some(address), dir);
        config.shutdown_periods = [(2_000_000_000, 5), (0, 5)]
            .map(|(priority, seconds)| ShutdownPeriod { priority, seconds })
            .into();
    });
    let mut calls = Vec::new();
    let mut lock = locked(&mut heard, &mut calls).await;
    expect_test::expect![[r#"
        Get(org.freedesktop.login1.Manager, InhibitDelayMaxUSec)
        KillUnit(systemd-logind.service, all, 1)
        Get(org.freedesktop.login1.Manager, InhibitDelayMaxUSec)
        Inhibit(shutdown, kubelet, Kubelet needs time to handle node shutdown, delay)"#]]
    .assert_eq(&calls.join("\n"));
    let written = std::fs::read_to_string(bus.dir.path().join("logind.conf.d/99-kubelet.conf")).unwrap();
    assert_eq!(written, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=10\n");

    node.create("web", json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 3, "containers": [container("a")] }));
    node.create(
        "dns",
        json!({ "restartPolicy": "Always", "priority": 2_000_000_000, "containers": [container("b")] }),
    );
    node.until("ready", |n| n.ready("web") && n.ready("dns")).await;
    let ready = |n: &Node| {
        let node = n.api.get("/api/v1/nodes/n1").unwrap_or_default();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        (ready["status"] == "True", ready["message"].as_str().unwrap_or_default().to_owned())
    };
    node.until("the node is ready", |n| ready(n).0).await;
    node.runtime.take_calls();
    say.send(true).unwrap();
    node.until("both have ended", |n| {
        let ended = |name: &str| ["Failed", "Succeeded"].contains(&n.phase(name).as_str());
        ended("web") && ended("dns")
    })
    .await;
    for name in ["web", "dns"] {
        let status = node.api.pod(name).unwrap().status;
        assert_eq!(
            (status.reason.as_str(), status.message.as_str()),
            ("Terminated", "Pod was terminated in response to imminent node shutdown.")
        );
        let disrupted = status.conditions.iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
        assert_eq!((disrupted.status.as_str(), disrupted.reason.as_str()), ("True", "TerminationByKubelet"));
    }
    let stops: Vec<String> =
        node.runtime.take_calls().into_iter().filter(|call| call.starts_with("stop_container")).collect();
    assert_eq!(stops.len(), 2, "{stops:?}");
    // The lock is let go of: the machine may go.
    let released = tokio::task::spawn_blocking(move || lock.read(&mut [0]).unwrap()).await.unwrap();
    assert_eq!(released, 0);
    node.until("the node says so", |n| ready(n) == (false, "node is shutting down".into())).await;
    node.create("late", json!({ "restartPolicy": "Always", "containers": [container("c")] }));
    node.until("nobody comes in", |n| n.phase("late") == "Failed").await;
    let status = node.api.pod("late").unwrap().status;
    assert_eq!(
        (status.reason.as_str(), status.message.as_str()),
        ("NodeShutdown", "Pod was rejected: Pod was rejected as the node is shutting down.")
    );
    let (_, metrics) = node.get(Some("admin"), "/metrics").await;
    for name in ["start", "end"] {
        let name = format!("kubelet_graceful_shutdown_{name}_time_seconds ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        assert!(line.parse::<f64>().unwrap() > 1e9, "{name}{line}");
    }

    // After all it does not go.
    say.send(false).unwrap();
    let _lock = locked(&mut heard, &mut calls).await;
    node.until("ready again", |n| ready(n).0).await;
    node.create("next", json!({ "restartPolicy": "Always", "containers": [container("d")] }));
    node.until("pods come in", |n| n.ready("next")).await;
    node.until("it was told", |n| {
        let events = n.api.events();
        ["event", "cancellation"].iter().all(|what| {
            let told = format!("NodeShutdown: Shutdown manager detected shutdown {what}");
            events.contains(&told)
        })
    })
    .await;
    node.stop().await;
    serving.abort();
}
