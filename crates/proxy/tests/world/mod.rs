//! A node with pods and a machine outside the cluster, each a network namespace; nothing of it outlives the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use client::{ObjectKey, Projection};
use linux::conntrack::Conntrack;
use linux::netlink::route::{Address, Neighbour, NeighbourTable, Route, Routing, Scope, VethEnd};
use linux::netns::Netns;
use linux::nft::Nft;
use proxy::conntrack::{Truth, clean};
use proxy::facts::{ServiceFacts, SliceFacts};
use proxy::nft::{Options, Ruleset};
use proxy::plan::{NodeView, Plan, plan};
use serde_json::{Value, json};

pub const FAMILIES: [bool; 2] = [true, false];

/// An address of each family: a pod by number, the node, the machine outside, virtual ones.
pub fn pod_ip(v4: bool, n: u8) -> IpAddr {
    if v4 { format!("10.244.0.{n}") } else { format!("fd00:10::{n}") }.parse().unwrap()
}

pub fn node_ip(v4: bool) -> IpAddr {
    if v4 { "192.168.77.1" } else { "fd00:77::1" }.parse().unwrap()
}

pub fn outside_ip(v4: bool) -> IpAddr {
    if v4 { "192.168.77.2" } else { "fd00:77::2" }.parse().unwrap()
}

pub fn cluster_ip(v4: bool) -> IpAddr {
    if v4 { "10.96.0.10" } else { "fd00:96::10" }.parse().unwrap()
}

pub fn vip(v4: bool) -> IpAddr {
    if v4 { "203.0.113.5" } else { "fd00:113::5" }.parse().unwrap()
}

fn gateway(v4: bool) -> IpAddr {
    if v4 { "169.254.1.1" } else { "fd00:169::1" }.parse().unwrap()
}

fn host_bits(v4: bool) -> u8 {
    if v4 { 32 } else { 128 }
}

pub struct World {
    pub node: Netns,
    pub outside: Netns,
    pub pods: BTreeMap<u8, Netns>,
}

impl World {
    /// Pods are numbered from one; each serves TCP and UDP on port 8080 and says its number.
    pub fn new(pods: u8) -> Self {
        let (node, outside) = (Netns::create().unwrap(), Netns::create().unwrap());
        let all: &[(&[&str], &str)] = &[
            (&["net", "ipv4", "ip_forward"], "1"),
            (&["net", "ipv6", "conf", "all", "forwarding"], "1"),
            (&["net", "ipv4", "conf", "all", "route_localnet"], "1"),
            // A redirect to a pod that reaches itself would use up its share of ICMP for a second.
            (&["net", "ipv4", "conf", "all", "send_redirects"], "0"),
            (&["net", "ipv4", "conf", "default", "send_redirects"], "0"),
        ];
        linux::sysctl::write_in(&node, all).unwrap();
        // A namespace begins as the machine's first one is now: where that forwards, so would this, back and forth.
        let still: &[(&[&str], &str)] =
            &[(&["net", "ipv4", "ip_forward"], "0"), (&["net", "ipv6", "conf", "all", "forwarding"], "0")];
        linux::sysctl::write_in(&outside, still).unwrap();
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ends = (VethEnd { name: "uplink", mac: a }, VethEnd { name: "eth0", mac: b });
        let mut routing = Routing::open_in(&node).unwrap();
        routing.add_veth(&ends.0, &ends.1, outside.as_fd(), 1450).unwrap();
        let mut far = Routing::open_in(&outside).unwrap();
        let link = far.link("eth0").unwrap().unwrap().index;
        far.set_up(link).unwrap();
        for v4 in FAMILIES {
            let uplink = routing.link("uplink").unwrap().unwrap().index;
            for (routing, link, ip) in [(&mut routing, uplink, node_ip(v4)), (&mut far, link, outside_ip(v4))]
            {
                let prefix = if v4 { 24 } else { 64 };
                routing.add_address(&Address { link, ip, prefix, scope: Scope::Global }).unwrap();
            }
            let permanent = |link, ip, mac| Neighbour { link, ip, mac, table: NeighbourTable::Resolution };
            routing.set_neighbour(&permanent(uplink, outside_ip(v4), b)).unwrap();
            far.set_neighbour(&permanent(link, node_ip(v4), a)).unwrap();
            far.set_route(&Route::default_via(node_ip(v4), link)).unwrap();
            routing.set_route(&Route::default_via(outside_ip(v4), uplink)).unwrap();
        }
        let mut world = World { node, outside, pods: BTreeMap::new() };
        for n in 1..=pods {
            world.add_pod(&mut routing, n);
        }
        world
    }

    fn add_pod(&mut self, routing: &mut Routing, n: u8) {
        let pod = Netns::create().unwrap();
        let (host, inside) = ([2, 0, 0, 0, 1, n], [2, 0, 0, 0, 2, n]);
        let name = format!("tph{n}");
        let ends = (VethEnd { name: &name, mac: host }, VethEnd { name: "eth0", mac: inside });
        routing.add_veth(&ends.0, &ends.1, pod.as_fd(), 1450).unwrap();
        let veth = routing.link(&name).unwrap().unwrap().index;
        let mut far = Routing::open_in(&pod).unwrap();
        let eth0 = far.link("eth0").unwrap().unwrap().index;
        far.set_up(eth0).unwrap();
        for v4 in FAMILIES {
            let ip = pod_ip(v4, n);
            let permanent = |link, ip, mac| Neighbour { link, ip, mac, table: NeighbourTable::Resolution };
            let address = Address { link: eth0, ip, prefix: host_bits(v4), scope: Scope::Global };
            far.add_address(&address).unwrap();
            far.set_neighbour(&permanent(eth0, gateway(v4), host)).unwrap();
            far.set_route(&Route::direct(gateway(v4), host_bits(v4), eth0)).unwrap();
            far.set_route(&Route::default_via(gateway(v4), eth0)).unwrap();
            routing.set_neighbour(&permanent(veth, ip, inside)).unwrap();
            routing.set_route(&Route::direct(ip, host_bits(v4), veth)).unwrap();
            serve(&pod, n, SocketAddr::new(ip, 8080));
        }
        self.pods.insert(n, pod);
    }

    pub fn pod(&self, n: u8) -> &Netns {
        &self.pods[&n]
    }

    pub fn proxy(&self) -> Proxy<'_> {
        self.proxy_with(|_| {})
    }

    pub fn proxy_with(&self, change: impl FnOnce(&mut Options)) -> Proxy<'_> {
        self.start(change, &[])
    }

    /// A proxy that finds these Services before it first looks at the kernel's table.
    pub fn proxy_set_first(&self, services: &[(&Value, Vec<Value>)]) -> Proxy<'_> {
        self.start(|_| {}, services)
    }

    fn start(&self, change: impl FnOnce(&mut Options), services: &[(&Value, Vec<Value>)]) -> Proxy<'_> {
        let cidr = |text| apimachinery::validation::parse_cidr_sloppy(text).unwrap();
        let mut options = Options {
            cluster_cidrs: vec![cidr("10.244.0.0/16"), cidr("fd00:10::/64")],
            node_port_addresses: Vec::new(),
            localhost_node_ports: true,
            ipv6: true,
        };
        change(&mut options);
        let ruleset = Ruleset::open(Nft::open_in(&self.node).unwrap(), &options).unwrap();
        let mut proxy = Proxy { world: self, ruleset, plans: HashMap::new() };
        for (service, endpoints) in services {
            proxy.plan(service, endpoints);
        }
        proxy.ruleset.reconcile().unwrap();
        proxy
    }
}

fn serve(pod: &Netns, n: u8, address: SocketAddr) {
    let (listener, socket) =
        pod.run(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            std::thread::spawn(move || {
                writeln!(stream, "{n} {peer}").unwrap();
                let mut buffer = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..len]).unwrap();
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{n} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// Who answered, and which client it saw.
pub type Answer = Result<(u8, IpAddr), ErrorKind>;

fn parse(text: &str) -> (u8, IpAddr) {
    let (pod, client) = text.trim().split_once(' ').unwrap();
    (pod.parse().unwrap(), client.parse().unwrap())
}

/// How long a packet that was dropped is waited for.
const PATIENCE: Duration = Duration::from_millis(400);

pub fn tcp(from: &Netns, to: IpAddr, port: u16) -> Answer {
    connect(from, to, port).map(|(answer, _)| answer)
}

/// A connection that stays open.
pub fn connect(from: &Netns, to: IpAddr, port: u16) -> Result<((u8, IpAddr), TcpStream), ErrorKind> {
    let work = || {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE).map_err(|e| e.kind())?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).map_err(|e| e.kind())?;
        Ok((parse(&line), stream))
    };
    from.run(work).unwrap()
}

/// Whether an open connection still carries bytes both ways.
pub fn lives(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
}

pub fn udp_socket(from: &Netns, to: IpAddr, port: u16) -> UdpSocket {
    from.run(|| {
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect((to, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
    .unwrap()
}

pub fn ask(socket: &UdpSocket) -> Answer {
    let mut buffer = [0; 64];
    socket.send(b"?").map_err(|e| e.kind())?;
    let len = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(parse(std::str::from_utf8(&buffer[..len]).unwrap()))
}

/// A proxy without its loop: plans are written when they are given.
pub struct Proxy<'a> {
    world: &'a World,
    ruleset: Ruleset,
    plans: HashMap<ObjectKey, Plan>,
}

impl Proxy<'_> {
    pub fn node_view() -> NodeView {
        let ips = FAMILIES.map(node_ip).to_vec();
        NodeView { name: "node".into(), zone: "here".into(), ips }
    }

    /// Sets a Service and its endpoints.
    pub fn set(&mut self, service: &Value, endpoints: &[Value]) {
        let key = self.plan(service, endpoints);
        self.ruleset.commit().unwrap();
        let node = Self::node_view();
        let truth = Truth::new(&self.plans[&key].udp, &node.ips);
        clean(&mut Conntrack::open_in(&self.world.node).unwrap(), &truth).unwrap();
    }

    fn plan(&mut self, service: &Value, endpoints: &[Value]) -> ObjectKey {
        let key = ObjectKey::new("default", service["metadata"]["name"].as_str().unwrap());
        let service = ServiceFacts::project(&serde_json::from_value(service.clone()).unwrap());
        let slices: Vec<SliceFacts> = FAMILIES.iter().map(|v4| slice(*v4, endpoints)).collect();
        let slices: Vec<&SliceFacts> = slices.iter().collect();
        let new = plan(&key, &service.0.unwrap(), &slices, &Self::node_view());
        self.ruleset.set(&key, self.plans.get(&key).unwrap_or(&Plan::default()), &new);
        self.plans.insert(key.clone(), new);
        key
    }

    pub fn remove(&mut self, name: &str) {
        let key = ObjectKey::new("default", name);
        let old = self.plans.remove(&key).unwrap();
        self.ruleset.set(&key, &old, &Plan::default());
        self.ruleset.commit().unwrap();
    }

    pub fn ruleset(&mut self) -> &mut Ruleset {
        &mut self.ruleset
    }
}

/// What `nft list ruleset` says in a namespace.
pub fn nft_list(netns: &Netns) -> String {
    let list = || std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    let out = netns.run(list).unwrap();
    assert!(out.status.success(), "{:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A Service on port 80, TCP and UDP, merged with more of its spec.
pub fn service(name: &str, spec: Value) -> Value {
    let ips = FAMILIES.map(|v4| cluster_ip(v4).to_string());
    let mut out = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ports": [
            {"name": "t", "port": 80, "protocol": "TCP", "targetPort": 8080},
            {"name": "u", "port": 80, "protocol": "UDP", "targetPort": 8080},
        ]},
    });
    let Value::Object(spec) = spec else { panic!("a spec is an object") };
    for (field, value) in spec {
        let at = if field == "status" { &mut out } else { &mut out["spec"] };
        at[field.as_str()] = value;
    }
    out
}

/// An endpoint for each pod on this node; merged into the slices of both families.
pub fn ready(pods: &[u8]) -> Vec<Value> {
    pods.iter().map(|n| json!({"pod": n, "nodeName": "node", "conditions": {"ready": true}})).collect()
}

pub fn elsewhere(pods: &[u8]) -> Vec<Value> {
    pods.iter().map(|n| json!({"pod": n, "nodeName": "other", "conditions": {"ready": true}})).collect()
}

fn slice(v4: bool, endpoints: &[Value]) -> SliceFacts {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|e| {
            let mut e = e.clone();
            e["addresses"] = json!([pod_ip(v4, e["pod"].as_u64().unwrap() as u8)]);
            e
        })
        .collect();
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "any"}},
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [
            {"name": "t", "port": 8080, "protocol": "TCP"},
            {"name": "u", "port": 8080, "protocol": "UDP"},
        ],
    });
    SliceFacts::project(&serde_json::from_value(slice).unwrap())
}
