//! The whole proxy, from a feed of objects to packets: how soon a change is in the kernel, what health checks say,
//! and that traffic goes on when the process ends. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::source::{Feed, Query, Raw, Source};
use client::transport::{ResponseBody, Transport};
use client::{Client, Informers, ObjectKey};
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use linux::netns::Netns;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use world::*;

/// A server that only sends what it is given.
#[derive(Default)]
struct Objects {
    /// What was there before anybody asked, by resource.
    first: HashMap<&'static str, Value>,
    feeds: Mutex<HashMap<String, Vec<mpsc::UnboundedSender<client::Result<Vec<Feed>>>>>>,
    revision: Mutex<u64>,
}

impl Source for Objects {
    fn open(&self, query: Query) -> BoxStream<'static, client::Result<Vec<Feed>>> {
        let (sender, receiver) = mpsc::unbounded();
        let objects = self
            .first
            .get(query.resource.resource.as_str())
            .map(|object| raw(object, 1))
            .into_iter()
            .collect();
        sender.unbounded_send(Ok(vec![Feed::Snapshot { objects, revision: 1 }])).unwrap();
        self.feeds.lock().entry(query.resource.resource).or_default().push(sender);
        receiver.boxed()
    }
}

fn raw(object: &Value, revision: u64) -> Raw {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let key = ObjectKey::new(&text("namespace"), &text("name"));
    Raw { key, revision, bytes: Bytes::from(object.to_string()) }
}

impl Objects {
    fn send(&self, resource: &str, object: &Value, feed: fn(Raw) -> Feed) {
        let mut revision = self.revision.lock();
        *revision += 1;
        let raw = raw(object, *revision + 1);
        for sender in &self.feeds.lock()[resource] {
            sender.unbounded_send(Ok(vec![feed(raw.clone())])).unwrap();
        }
    }

    fn put(&self, resource: &str, object: &Value) {
        self.send(resource, object, Feed::Put);
    }
}

/// Takes events and loses them.
struct Deaf;

impl Transport for Deaf {
    fn send(
        &self,
        _: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, client::Error>> {
        Box::pin(async { Err(client::Error::transport("sending", "nobody listens")) })
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}

fn slice_of(name: &str, pods: &[u8]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|n| json!({"addresses": [pod_ip(true, *n)], "nodeName": "node", "conditions": {"ready": true}}))
        .collect();
    // Later than the process, as clocks go here.
    let made = "2999-01-01T00:00:00.5Z";
    json!({
        "metadata": {"name": format!("{name}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": made}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "t", "port": 8080, "protocol": "TCP"}, {"name": "u", "port": 8080, "protocol": "UDP"}],
    })
}

/// Status and JSON of an HTTP answer.
fn get(port: u16, path: &str) -> std::io::Result<(u16, Value)> {
    let (status, body) = get_text(port, path)?;
    Ok((status, serde_json::from_str(&body).unwrap_or_default()))
}

fn get_text(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    Ok((status, body.to_owned()))
}

/// Tries until it is so, and says how long that took.
fn soon(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what} does not come about");
        std::thread::yield_now();
    }
    start.elapsed()
}

struct Running {
    objects: Arc<Objects>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), proxy::Error>>,
    healthz: u16,
    metrics: u16,
}

fn start(node: &Netns, first: HashMap<&'static str, Value>) -> Running {
    let objects = Arc::new(Objects { first, ..Objects::default() });
    let shutdown = CancellationToken::new();
    let (healthz, metrics) = (free_port(), free_port());
    let at = |port| Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    let config = proxy::Config {
        node_ips: FAMILIES.map(node_ip).to_vec(),
        cluster_cidrs: vec![("10.244.0.0".parse().unwrap(), 16), ("fd00:10::".parse().unwrap(), 64)],
        healthz_bind_address: at(healthz),
        metrics_bind_address: at(metrics),
        netns: Some(format!("/proc/self/fd/{}", node.as_fd().as_raw_fd()).into()),
        ..proxy::Config::new("node")
    };
    let informers = Informers::from_source(objects.clone(), shutdown.clone());
    let client = Client::new(Arc::new(Deaf), "test");
    let task = tokio::spawn(proxy::run(config, informers, client, shutdown.clone()));
    // Each informer opens its feed in a task of its own, in any order.
    let open = |resource: &&str| objects.feeds.lock().contains_key(*resource);
    soon("the first look", || ["services", "endpointslices", "nodes"].iter().all(open));
    Running { objects, shutdown, task, healthz, metrics }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn root_changes_reach_packets_at_once() {
    let world = World::new(2);
    let Running { objects, shutdown, task, healthz, metrics } = start(&world.node, HashMap::new());
    let node = |taints: Value| json!({"metadata": {"name": "node"}, "spec": {"taints": taints}});
    objects.put("nodes", &node(json!([])));
    let check = free_port();
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": check});
    let web = service("web", spec);
    objects.put("services", &web);
    objects.put("endpointslices", &slice_of("web", &[1]));
    let at = cluster_ip(true);
    let who = || tcp(world.pod(1), at, 80).map(|(n, _)| n);
    soon("the first answer", || who() == Ok(1));
    let mut worst = Duration::ZERO;
    for pod in [2, 1, 2, 1, 2, 1, 2] {
        objects.put("endpointslices", &slice_of("web", &[pod]));
        worst = worst.max(soon("the change", || who() == Ok(pod)));
    }
    // Mostly the few milliseconds in which a burst is gathered.
    assert!(worst < Duration::from_millis(500), "{worst:?}");
    println!("a change took at most {worst:?}");

    soon("health", || get(healthz, "/healthz").is_ok_and(|(status, _)| status == 200));
    let (status, body) = get(healthz, "/livez").unwrap();
    assert_eq!(
        (status, &body["healthy"], &body["status"]["IPv4"]["healthy"]),
        (200, &true.into(), &true.into())
    );
    objects.put("nodes", &node(json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}])));
    soon("ineligible", || get(healthz, "/healthz").unwrap().0 == 503);
    assert_eq!(get(healthz, "/healthz").unwrap().1["nodeEligible"], false);
    assert_eq!(get(healthz, "/livez").unwrap().0, 200);
    assert_eq!(get(healthz, "/elsewhere").unwrap().0, 404);
    assert_eq!(get_text(metrics, "/proxyMode").unwrap(), (200, "nftables".to_owned()));
    let (_, counted) = get_text(metrics, "/metrics").unwrap();
    for line in [
        "kubeproxy_sync_proxy_rules_service_changes_total 1",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 8",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 2",
    ] {
        assert!(counted.lines().any(|l| l == line), "{line}\n{counted}");
    }

    soon("the health check", || get(check, "/").is_ok_and(|(status, _)| status == 200));
    let expected = json!({"service": {"namespace": "default", "name": "web"},
        "localEndpoints": 1, "serviceProxyHealthy": true});
    assert_eq!(get(check, "/any").unwrap().1, expected);
    objects.put("endpointslices", &slice_of("web", &[]));
    soon("no endpoint", || get(check, "/").unwrap().0 == 503);
    objects.put("endpointslices", &slice_of("web", &[2]));
    soon("an endpoint", || who() == Ok(2));

    // Somebody reloads the host's firewall.
    let flush = || std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap();
    assert!(world.node.run(flush).unwrap().success());
    soon("the repair", || who() == Ok(2));

    // The process ends; what it wrote serves on, and its successor changes only what changed meanwhile.
    shutdown.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(who(), Ok(2));
    let found =
        [("nodes", node(json!([]))), ("services", web.clone()), ("endpointslices", slice_of("web", &[2]))];
    let next = start(&world.node, found.into());
    assert_eq!(who(), Ok(2));
    next.objects.put("endpointslices", &slice_of("web", &[1]));
    soon("the successor's change", || who() == Ok(1));
    next.objects.send("services", &web, Feed::Delete);
    soon("the end", || who().is_err());
    next.shutdown.cancel();
    next.task.await.unwrap().unwrap();
}
