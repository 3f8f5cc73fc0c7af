//! The real bus, and somebody on it who speaks as logind and systemd do.

use super::dbus::Connection;
use super::dbus::wire::{Field, METHOD_CALL, METHOD_RETURN, Message, SIGNAL, Value};
use super::logind::Logind;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A bus of its own, which ends with the test.
struct Bus {
    _dir: tempfile::TempDir,
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
        Bus { _dir: dir, daemon, address: line.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Answers a call; a descriptor goes with it.
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
    let bytes = Message { kind: METHOD_RETURN, serial: 9999, fields, body }.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let stream = connection.stream();
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

async fn say(connection: &mut Connection, going: bool) {
    let fields = HashMap::from([
        (Field::Path, Value::ObjectPath("/org/freedesktop/login1".into())),
        (Field::Interface, "org.freedesktop.login1.Manager".into()),
        (Field::Member, "PrepareForShutdown".into()),
    ]);
    let body = vec![Value::Bool(going)];
    connection.send(Message { kind: SIGNAL, serial: 0, fields, body }).await.unwrap();
}

#[tokio::test]
async fn logind_waits_and_says_what_comes() {
    let bus = Bus::start();
    let mut service = Connection::open(&bus.address).await.unwrap();
    let named = "org.freedesktop.DBus";
    for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
        let asked = vec![name.into(), Value::U32(0)];
        service.call(named, "/org/freedesktop/DBus", named, "RequestName", asked).await.unwrap();
    }
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let serving = async {
        let mut heard = Vec::new();
        let mut ours = Some(OwnedFd::from(ours));
        let mut delay = 5_000_000;
        while heard.len() < 4 {
            let (message, _) = service.receive().await.unwrap();
            if message.kind != METHOD_CALL {
                continue;
            }
            let words: Vec<String> = message
                .body
                .iter()
                .map(|value| match value {
                    Value::I32(number) => number.to_string(),
                    other => other.text().to_owned(),
                })
                .collect();
            heard.push(format!("{}({})", message.text(Field::Member), words.join(", ")));
            match message.text(Field::Member) {
                "Get" => {
                    let told = Value::Variant(Box::new(Value::U64(delay)));
                    answer(&mut service, &message, vec![told], None).await;
                }
                "KillUnit" => {
                    delay = 30_000_000;
                    answer(&mut service, &message, vec![], None).await;
                }
                _ => answer(&mut service, &message, vec![Value::Descriptor(0)], ours.take()).await,
            }
        }
        (heard, service)
    };
    let config = tempfile::tempdir().unwrap();
    let asking = async {
        let mut logind = Logind::connect_to(&bus.address).await.unwrap();
        assert_eq!(logind.inhibit_delay().await.unwrap(), Duration::from_secs(5));
        logind.override_inhibit_delay(&config.path().join("d"), Duration::from_secs(30)).await.unwrap();
        assert_eq!(logind.inhibit_delay().await.unwrap(), Duration::from_secs(30));
        let lock = logind.inhibit().await.unwrap();
        (logind, lock)
    };
    let ((heard, mut service), (mut logind, lock)) = tokio::join!(serving, asking);
    expect_test::expect![[r#"
        Get(org.freedesktop.login1.Manager, InhibitDelayMaxUSec)
        KillUnit(systemd-logind.service, all, 1)
        Get(org.freedesktop.login1.Manager, InhibitDelayMaxUSec)
        Inhibit(shutdown, kubelet, Kubelet needs time to handle node shutdown, delay)"#]]
    .assert_eq(&heard.join("\n"));
    let told = std::fs::read_to_string(config.path().join("d/99-kubelet.conf")).unwrap();
    assert_eq!(told, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n");
    logind.watch().await.unwrap();
    say(&mut service, true).await;
    say(&mut service, false).await;
    assert!(logind.next().await.unwrap());
    assert!(!logind.next().await.unwrap());
    // Letting go of the lock is closing it.
    theirs.set_nonblocking(true).unwrap();
    let read = std::io::Read::read(&mut theirs, &mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(lock);
    theirs.set_nonblocking(false).unwrap();
    assert_eq!(std::io::Read::read(&mut theirs, &mut [0]).unwrap(), 0);
    // What nobody answers is told as the bus tells it.
    let error = logind.call_nobody().await;
    assert!(error.contains("org.example.Nobody"), "{error}");
    drop(bus);
    assert!(logind.next().await.is_err());
}

#[tokio::test]
async fn where_the_bus_is() {
    let none = Connection::open("tcp:host=x").await.unwrap_err().to_string();
    assert!(none.contains("no address"), "{none}");
    let dir = tempfile::tempdir().unwrap();
    let absent = format!("unix:path={}/a%62c,guid=1", dir.path().display());
    assert_eq!(Connection::open(&absent).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
