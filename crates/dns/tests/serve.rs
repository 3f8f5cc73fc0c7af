//! Servers on real sockets of the loopback, the one asking the other.

#![allow(clippy::unwrap_used)]

use client::source::{Feed, Query as Feeds, Raw, Source};
use client::{Informers, ObjectKey};
use component::metrics::Registry;
use dns::{Config, Server};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A feed per resource that says what the test says.
#[derive(Default)]
struct Script(
    Mutex<HashMap<String, (mpsc::UnboundedSender<Vec<Feed>>, Option<mpsc::UnboundedReceiver<Vec<Feed>>>)>>,
);

impl Script {
    fn tell(&self, resource: &str, feed: Feed) {
        let mut feeds = self.0.lock().unwrap();
        let (sender, _) = feeds.entry(resource.into()).or_insert_with(channel);
        sender.send(vec![feed]).unwrap();
    }

    /// Everything that there is, by resource.
    fn snapshot(&self, objects: &[(&str, Value)]) {
        for resource in ["namespaces", "services", "endpointslices"] {
            let objects = objects.iter().filter(|(r, _)| *r == resource);
            let objects = objects.map(|(_, o)| raw(o, 1)).collect();
            self.tell(resource, Feed::Snapshot { objects, revision: 1 });
        }
    }
}

fn channel() -> (mpsc::UnboundedSender<Vec<Feed>>, Option<mpsc::UnboundedReceiver<Vec<Feed>>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Some(receiver))
}

impl Source for Script {
    fn open(&self, query: Feeds) -> BoxStream<'static, client::Result<Vec<Feed>>> {
        let mut feeds = self.0.lock().unwrap();
        let (_, receiver) = feeds.entry(query.resource.resource).or_insert_with(channel);
        let receiver = receiver.take().unwrap();
        futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|f| (Ok(f), r)) }).boxed()
    }
}

fn raw(object: &Value, revision: u64) -> Raw {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let key = ObjectKey::new(text("namespace"), text("name"));
    Raw { key, revision, bytes: serde_json::to_vec(object).unwrap().into() }
}

fn namespace(name: &str) -> (&'static str, Value) {
    ("namespaces", json!({ "metadata": { "name": name, "uid": name } }))
}

fn service(name: &str, spec: Value) -> (&'static str, Value) {
    ("services", json!({ "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": spec }))
}

fn slice(service: &str, addresses: impl Iterator<Item = String>) -> (&'static str, Value) {
    let labels = json!({ "kubernetes.io/service-name": service });
    let endpoints: Vec<Value> = addresses.map(|a| json!({ "addresses": [a] })).collect();
    let metadata = json!({ "name": service, "namespace": "default", "uid": service, "labels": labels });
    ("endpointslices", json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints }))
}

/// A server and what it hears.
struct Running {
    address: SocketAddr,
    script: Arc<Script>,
    ready: component::health::Latch,
    registry: Registry,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(zone: &str, resolv_conf: &Path) -> Running {
        let (script, shutdown, registry) =
            (Arc::<Script>::default(), CancellationToken::new(), Registry::new());
        let config = Config {
            zone: zone.into(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            resolv_conf: resolv_conf.into(),
            patience: Duration::ZERO,
            ttl: 5,
        };
        let server = Server::bind(config, &registry).await.unwrap();
        let (address, ready) = (server.addresses()[0], server.ready());
        let informers = Informers::from_source(script.clone(), shutdown.clone());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(&informers, stop).await });
        Running { address, script, ready, registry, shutdown, task }
    }

    /// Waits until what was told is answered, which the informers do in their own time.
    async fn until(&self, name: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let answer = self.udp(name, RecordType::A, None).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn synced(&self, name: &str) {
        self.until(name, |m| m.metadata.response_code != ResponseCode::ServFail).await;
    }

    async fn udp(&self, name: &str, record_type: RecordType, edns: Option<u16>) -> Message {
        let bytes = self.datagram(&request(name, record_type, edns)).await;
        Message::from_vec(&bytes).unwrap()
    }

    async fn datagram(&self, request: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(request).await.unwrap();
        let mut answer = vec![0; 65536];
        let length = socket.recv(&mut answer).await.unwrap();
        answer.truncate(length);
        assert_eq!(answer[..2], request[..2]);
        answer
    }

    async fn tcp(&self, stream: &mut TcpStream, name: &str, record_type: RecordType) -> Message {
        let request = request(name, record_type, None);
        stream.write_u16(request.len() as u16).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn request(name: &str, record_type: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_version(0);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn resolv_conf(servers: &[SocketAddr]) -> TempDir {
    let dir = TempDir::new().unwrap();
    write_resolv_conf(&dir, servers);
    dir
}

fn write_resolv_conf(dir: &TempDir, servers: &[SocketAddr]) {
    let lines: String = servers.iter().map(|s| format!("nameserver [{}]:{}\n", s.ip(), s.port())).collect();
    std::fs::write(dir.path().join("new"), lines).unwrap();
    std::fs::rename(dir.path().join("new"), dir.path().join("resolv.conf")).unwrap();
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter_map(|r| r.data.ip_addr()).map(|ip| ip.to_string()).collect()
}

fn many(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("10.244.{}.{}", n / 250, n % 250))
}

#[tokio::test]
async fn the_zone_over_both_transports() {
    let conf = resolv_conf(&[]);
    let server = Running::start("cluster.local", &conf.path().join("resolv.conf")).await;
    let (web, big) = ("Web.default.svc.cluster.local.", "big.default.svc.cluster.local.");

    // Before everything was seen, nothing is said not to exist.
    let early = server.udp(web, RecordType::A, None).await;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail);
    assert!(!server.ready.is_done());
    server.script.snapshot(&[
        namespace("default"),
        service("web", json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"] })),
        service("big", json!({ "clusterIP": "None" })),
        slice("big", many(300)),
    ]);
    server.synced(web).await;

    let answer = server.udp(web, RecordType::A, None).await;
    assert_eq!(addresses(&answer), ["10.96.0.7"]);
    assert_eq!(answer.answers[0].ttl, 5);
    assert_eq!(answer.queries[0].name.to_ascii(), web);
    assert_eq!(answer.answers[0].name.to_ascii(), web);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired && answer.edns.is_none());

    // What does not fit is cut, to the size the client speaks of, and whole over TCP.
    for (edns, fits) in [(None, 512), (Some(4096), 1232), (Some(100), 512)] {
        let bytes = server.datagram(&request(big, RecordType::A, edns)).await;
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation && bytes.len() <= fits && bytes.len() > fits - 40, "{edns:?}");
        assert_eq!(answer.edns.is_some(), edns.is_some());
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        let answer = server.tcp(&mut stream, big, RecordType::A).await;
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (300, false));
    }

    // A change is seen.
    let moved = service("web", json!({ "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"] })).1;
    server.script.tell("services", Feed::Put(raw(&moved, 2)));
    server.until(web, |m| addresses(m) == ["10.96.0.8"]).await;
    server.script.tell("services", Feed::Delete(raw(&moved, 3)));
    let gone = server.until(web, |m| m.answers.is_empty()).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(gone.authorities[0].record_type(), RecordType::SOA);

    // What is no request of ours.
    let mut other = request(web, RecordType::A, None);
    other[2] = 0x28;
    assert_eq!(server.datagram(&other).await[2..4], [0xa8, 4], "an update");
    other.truncate(14);
    other[2] = 1;
    assert_eq!(server.datagram(&other).await[3], 1, "cut off");
    let transfer = server.udp("cluster.local.", RecordType::AXFR, None).await;
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);

    // No upstream.
    let outside = server.udp("www.example.", RecordType::A, None).await;
    assert_eq!(outside.metadata.response_code, ResponseCode::ServFail);
    let metrics = server.registry.render();
    let labels = format!("server=\"dns://{}\"", server.address);
    assert!(metrics.contains("coredns_dns_requests_total{family=\"1\",proto=\"tcp\","), "{metrics}");
    assert!(metrics.contains("rcode=\"NXDOMAIN\"") && metrics.contains(&labels), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_the_clusters_is_asked_upstream() {
    let none = resolv_conf(&[]);
    let upstream = Running::start("corp.example", &none.path().join("resolv.conf")).await;
    upstream.script.snapshot(&[
        namespace("default"),
        service("db", json!({ "clusterIP": "192.0.2.5", "clusterIPs": ["192.0.2.5"] })),
        service("big", json!({ "clusterIP": "None" })),
        slice("big", many(300)),
    ]);
    let (db, gone) = ("db.default.svc.corp.example.", "gone.default.svc.corp.example.");
    upstream.synced(db).await;

    // The first server of resolv.conf is dead.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let conf = resolv_conf(&[dead, upstream.address]);
    let server = Running::start("cluster.local", &conf.path().join("resolv.conf")).await;
    let external = |name: &str| json!({ "type": "ExternalName", "externalName": name });
    server.script.snapshot(&[
        namespace("default"),
        service("db", external("db.default.svc.corp.example")),
        service("gone", external("gone.default.svc.corp.example")),
        service("lost", external("lost.example")),
    ]);
    server.synced("db.default.svc.cluster.local.").await;

    let asked = |registry: &Registry| {
        let text = registry.render();
        let lines = text.lines().filter(|l| l.starts_with("coredns_dns_requests_total"));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>()
    };
    let answer = server.udp(db, RecordType::A, Some(1232)).await;
    assert_eq!(addresses(&answer), ["192.0.2.5"]);
    assert!(answer.metadata.recursion_available && answer.edns.is_some());
    // Again, in another case and without EDNS: from the cache, in the client's spelling.
    let before = asked(&upstream.registry);
    let upper = db.to_ascii_uppercase();
    let answer = server.udp(&upper, RecordType::A, None).await;
    assert_eq!((addresses(&answer), answer.edns.is_none()), (vec!["192.0.2.5".to_owned()], true));
    assert_eq!(answer.queries[0].name.to_ascii(), upper);
    // Denials too, with their SOA.
    for _ in 0..2 {
        let answer = server.udp(gone, RecordType::A, None).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(asked(&upstream.registry), before + 1);

    // What upstream cuts comes over TCP, and is cut for our client.
    let big = "big.default.svc.corp.example.";
    let cut = server.udp(big, RecordType::A, None).await;
    assert!(cut.metadata.truncation && cut.answers.len() > 20, "{cut}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.tcp(&mut stream, big, RecordType::A).await.answers.len(), 300);

    // Aliases out of the zone are followed.
    let alias = server.udp("db.default.svc.cluster.local.", RecordType::A, None).await;
    assert_eq!(alias.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(addresses(&alias), ["192.0.2.5"]);
    let alias = server.udp("gone.default.svc.cluster.local.", RecordType::A, None).await;
    assert_eq!((alias.answers.len(), alias.metadata.response_code), (1, ResponseCode::NXDomain));
    let alias = server.udp("lost.default.svc.cluster.local.", RecordType::A, None).await;
    assert_eq!((alias.answers.len(), alias.metadata.response_code), (1, ResponseCode::ServFail));
    let metrics = server.registry.render();
    assert!(
        metrics.contains("coredns_cache_hits_total{") && metrics.contains("plugin=\"cache\""),
        "{metrics}"
    );
    server.stop().await;
    upstream.stop().await;
}

#[tokio::test]
async fn sockets_may_be_given() {
    let conf = resolv_conf(&[]);
    let config = |zone: &str| {
        let resolv_conf = conf.path().join("resolv.conf");
        Config { zone: zone.into(), listen: Vec::new(), resolv_conf, patience: Duration::ZERO, ttl: 5 }
    };
    for bad in ["", ".", "a..b"] {
        let error = Server::bind(config(bad), &Registry::new()).await.err().unwrap();
        assert!(error.to_string().starts_with("the cluster domain"), "{bad}");
    }
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    // Asked before anybody serves.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = request("dns-version.cluster.local.", RecordType::TXT, None);
    socket.send_to(&question, udp_address).await.unwrap();
    let mut stream = TcpStream::connect(tcp_address).await.unwrap();
    let server = Server::with_sockets(config("cluster.local"), vec![(udp, tcp)], &Registry::new()).unwrap();
    let (script, shutdown) = (Arc::<Script>::default(), CancellationToken::new());
    let (informers, stop) = (Informers::from_source(script, shutdown.clone()), shutdown.clone());
    let task = tokio::spawn(async move { server.run(&informers, stop).await });
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer[..length]).unwrap();
    assert_eq!(answer.answers[0].data.to_string(), "1.1.0");
    // An idle connection does not hold up the end.
    stream.write_u16(100).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_loop_is_left() {
    let (left, right) = (resolv_conf(&[]), resolv_conf(&[]));
    let a = Running::start("a.local", &left.path().join("resolv.conf")).await;
    let b = Running::start("b.local", &right.path().join("resolv.conf")).await;
    a.script.snapshot(&[namespace("default")]);
    b.script.snapshot(&[namespace("default")]);
    a.synced("default.svc.a.local.").await;
    b.synced("default.svc.b.local.").await;
    // Each asks the other; and a server that names itself is not asked at all.
    write_resolv_conf(&left, &[a.address, b.address]);
    write_resolv_conf(&right, &[a.address]);
    for n in 0..20 {
        let answer = a.udp(&format!("n{n}.example."), RecordType::A, None).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{n}");
    }
    let text = a.registry.render();
    let requests = text.lines().filter(|l| l.starts_with("coredns_dns_requests_total{"));
    let requests: u32 = requests.filter_map(|l| l.rsplit(' ').next()?.parse::<u32>().ok()).sum();
    assert!(requests < 200, "{text}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_is_asked_early_is_answered_late() {
    let conf = resolv_conf(&[]);
    let config = Config {
        zone: "cluster.local".into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        resolv_conf: conf.path().join("resolv.conf"),
        patience: Duration::from_secs(3600),
        ttl: 5,
    };
    let server = Server::bind(config, &Registry::new()).await.unwrap();
    let address = server.addresses()[0];
    let (script, shutdown) = (Arc::<Script>::default(), CancellationToken::new());
    let (informers, stop) = (Informers::from_source(script.clone(), shutdown.clone()), shutdown.clone());
    let task = tokio::spawn(async move { server.run(&informers, stop).await });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = request("web.default.svc.cluster.local.", RecordType::A, None);
    socket.send_to(&question, address).await.unwrap();
    // All that can run has run; nothing was said.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 512];
    assert!(socket.try_recv(&mut answer).is_err());
    script.snapshot(&[
        namespace("default"),
        service("web", json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"] })),
    ]);
    let length = socket.recv(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer[..length]).unwrap();
    assert_eq!(addresses(&answer), ["10.96.0.7"]);
    shutdown.cancel();
    task.await.unwrap();
}
