//! The built-in pod network between namespaces of its own: real packets, real restarts. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::{Config, PodIps, PodNetwork, PortMapping, Protocol, Sandbox};
use linux::netlink::route::{Address, Route, Routing, Scope, VethEnd};
use linux::netns::Netns;

/// A node with an uplink to a machine outside the cluster.
struct World {
    dir: tempfile::TempDir,
    outside: Netns,
    node: PathBuf,
}

const NODE: &str = "192.168.77.1";
const OUTSIDE: &str = "192.168.77.2";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        let netns = Netns::create_at(&node).unwrap();
        let outside = Netns::create().unwrap();
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ends = (VethEnd { name: "uplink", mac: a }, VethEnd { name: "eth0", mac: b });
        let mut routing = Routing::open_in(&netns).unwrap();
        routing.add_veth(&ends.0, &ends.1, std::os::fd::AsFd::as_fd(&outside), 1450).unwrap();
        for (netns, name, ip) in [(&netns, "uplink", NODE), (&outside, "eth0", OUTSIDE)] {
            let mut routing = Routing::open_in(netns).unwrap();
            let link = routing.link(name).unwrap().unwrap().index;
            routing.set_up(link).unwrap();
            let address = Address { link, ip: ip.parse().unwrap(), prefix: 24, scope: Scope::Global };
            routing.add_address(&address).unwrap();
        }
        let link = routing.link("uplink").unwrap().unwrap().index;
        routing.set_route(&Route::default_via(OUTSIDE.parse().unwrap(), link)).unwrap();
        Self { dir, outside, node }
    }

    fn node(&self) -> Netns {
        Netns::open(&self.node).unwrap()
    }

    async fn network(&self) -> PodNetwork {
        let config = Config {
            conf_dir: self.dir.path().join("conf"),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10::/64".parse().unwrap()],
            host_netns: Some(self.node.clone()),
            ..Config::new(self.dir.path().join("state"))
        };
        PodNetwork::open(config).await.unwrap()
    }

    fn sandbox(&self, id: &str, port_mappings: Vec<PortMapping>) -> Sandbox {
        let netns = self.dir.path().join(id);
        Netns::create_at(&netns).unwrap();
        let text = |s: &str| s.to_owned();
        Sandbox {
            id: text(id),
            namespace: text("default"),
            name: text(id),
            uid: text("u"),
            netns,
            port_mappings,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if linux::netns::is_pinned(&path) {
                linux::netns::remove(path).unwrap();
            }
        }
    }
}

/// A server inside a namespace that tells each client the address it came from.
fn echo_source(netns: &Netns, address: SocketAddr) {
    let listener = netns.run(|| TcpListener::bind(address).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

fn echo_udp(netns: &Netns, address: SocketAddr) {
    let socket = netns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(peer.ip().to_string().as_bytes(), peer).unwrap();
        }
    });
}

fn ask(netns: &Netns, to: &str) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    netns
        .run(|| {
            let mut stream =
                TcpStream::connect_timeout(&to, Duration::from_millis(800)).map_err(|e| e.kind())?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|e| e.kind())?;
            Ok(text)
        })
        .unwrap()
}

fn ask_udp(netns: &Netns, to: &str) -> String {
    netns
        .run(|| {
            let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.send_to(b"?", to).unwrap();
            let mut buffer = [0; 64];
            let (n, _) = socket.recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        })
        .unwrap()
}

fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, host_port, container_port, host_ip: host_ip.map(|ip| ip.parse().unwrap()) }
}

fn ip(ips: &PodIps) -> IpAddr {
    ips.primary().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_pods_the_node_and_the_world_reach_each_other() {
    let world = World::new();
    let network = world.network().await;
    assert!(network.status().await.unwrap_err().to_string().starts_with("cni plugin not initialized"));
    network
        .set_pod_cidrs(&["10.244.3.0/24".parse().unwrap(), "fd00:10::300/120".parse().unwrap()])
        .await
        .unwrap();
    network.status().await.unwrap();
    let ports = vec![
        port(Protocol::Tcp, 8080, 80, None),
        port(Protocol::Udp, 5353, 53, None),
        port(Protocol::Tcp, 8081, 80, Some("127.0.0.1")),
    ];
    let a = world.sandbox("aaaa", ports);
    let b = world.sandbox("bbbb", vec![]);
    let (ips_a, ips_b) = (network.setup(a.clone()).await.unwrap(), network.setup(b.clone()).await.unwrap());
    assert_eq!(network.setup(a.clone()).await.unwrap(), ips_a);
    assert_eq!(ips_a.0.len(), 2);
    let (pod_a, pod_b, node) = (Netns::open(&a.netns).unwrap(), Netns::open(&b.netns).unwrap(), world.node());
    echo_source(&pod_a, "[::]:80".parse().unwrap());
    echo_udp(&pod_a, "0.0.0.0:53".parse().unwrap());
    echo_source(&node, "0.0.0.0:10250".parse().unwrap());
    echo_source(&node, "127.0.0.1:9999".parse().unwrap());
    echo_source(&world.outside, "0.0.0.0:80".parse().unwrap());
    let text = |ip: IpAddr| Ok(ip.to_string());
    let mapped = |ip: &str| Ok(format!("::ffff:{ip}"));

    // Pod to pod, both families; node to pod; pod to node: nobody is translated.
    assert_eq!(ask(&pod_b, &format!("{}:80", ip(&ips_a))), mapped(&ip(&ips_b).to_string()));
    assert_eq!(ask(&pod_b, &format!("[{}]:80", ips_a.0[1])), text(ips_b.0[1]));
    assert_eq!(ask(&node, &format!("{}:80", ip(&ips_a))), mapped(NODE));
    assert_eq!(ask(&pod_a, &format!("{NODE}:10250")), text(ip(&ips_a)));
    // Out of the cluster: as the node.
    assert_eq!(ask(&pod_a, &format!("{OUTSIDE}:80")), Ok(NODE.into()));
    // Host ports from outside, from the node, through loopback, from another pod and from the pod itself.
    assert_eq!(ask(&world.outside, &format!("{NODE}:8080")), mapped(OUTSIDE));
    assert_eq!(ask_udp(&world.outside, &format!("{NODE}:5353")), OUTSIDE);
    assert_eq!(ask(&node, &format!("{NODE}:8080")), mapped(NODE));
    assert_eq!(ask(&node, "127.0.0.1:8080"), mapped(NODE));
    assert_eq!(ask(&pod_b, &format!("{NODE}:8080")), mapped(&ip(&ips_b).to_string()));
    assert_eq!(ask(&pod_a, &format!("{NODE}:8080")), mapped(NODE));
    assert_eq!(ask(&node, "127.0.0.1:8081"), mapped(NODE));
    assert!(ask(&world.outside, &format!("{NODE}:8081")).is_err());
    // Neither a pod nor a neighbour reaches the node's loopback (CVE-2020-8558).
    for (from, link, gateway) in [(&pod_b, "eth0", "169.254.1.1"), (&world.outside, "eth0", NODE)] {
        let mut routing = Routing::open_in(from).unwrap();
        let link = routing.link(link).unwrap().unwrap().index;
        let route = Route::via("127.0.0.0".parse().unwrap(), 8, gateway.parse().unwrap(), link);
        from.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap()).unwrap();
        routing.set_route(&route).unwrap();
        let lo = Address { link: 1, ip: "127.0.0.1".parse().unwrap(), prefix: 8, scope: Scope::Host };
        routing.delete_address(&lo).unwrap();
        assert!(ask(from, "127.0.0.1:9999").is_err());
    }

    // A restart finds everything; a teardown takes everything away, twice without complaint.
    drop(network);
    let network = world.network().await;
    network.status().await.unwrap();
    assert_eq!(network.ips("aaaa"), Some(ips_a.clone()));
    assert_eq!(ask(&world.outside, &format!("{NODE}:8080")), mapped(OUTSIDE));
    let c = world.sandbox("cccc", vec![]);
    let ips_c = network.setup(c).await.unwrap();
    assert!(ips_c != ips_a && ips_c != ips_b);
    network.teardown("aaaa").await.unwrap();
    network.teardown("aaaa").await.unwrap();
    assert!(ask(&world.outside, &format!("{NODE}:8080")).is_err());
    network.collect_garbage(&["cccc".into()]).await.unwrap();
    assert_eq!(network.ips("bbbb"), None);
    network.remove().await.unwrap();
    let links = Routing::open_in(&node).unwrap().links().unwrap();
    assert!(links.iter().all(|l| !l.name.starts_with("tph")), "{links:?}");
    let left: Vec<_> =
        std::fs::read_dir(world.dir.path().join("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["pod-cidrs"]);
}

#[tokio::test]
async fn root_a_sandbox_without_a_namespace_leaves_nothing() {
    let world = World::new();
    let network = world.network().await;
    network.set_pod_cidrs(&["10.244.3.0/30".parse().unwrap()]).await.unwrap();
    for _ in 0..5 {
        let mut sandbox = world.sandbox("gone", vec![]);
        sandbox.netns = Path::new("/nonexistent").into();
        let error = network.setup(sandbox).await.unwrap_err();
        assert_eq!(error.to_string(), "built-in pod network, sandbox \"gone\"");
    }
    let fine = network.setup(world.sandbox("fine", vec![])).await.unwrap();
    assert_eq!(fine.0, ["10.244.3.2".parse::<IpAddr>().unwrap()]);
    assert!(network.setup(world.sandbox("full", vec![])).await.is_err());
}
