//! The rule set against real packets, in network namespaces. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use linux::netns::Netns;
use serde_json::json;
use world::*;

/// Which pods answer several connections.
fn who(from: &Netns, to: IpAddr, port: u16) -> BTreeSet<u8> {
    (0..24).map(|_| tcp(from, to, port).unwrap().0).collect()
}

const NOBODY: Answer = Err(ErrorKind::ConnectionRefused);

/// What a client sees whose packets are dropped.
fn is_silence(answer: Answer) -> bool {
    matches!(answer, Err(ErrorKind::TimedOut | ErrorKind::WouldBlock))
}

#[test]
fn root_a_cluster_ip_balances_and_lets_go() {
    let world = World::new(3);
    let mut proxy = world.proxy();
    let web = service("web", json!({}));
    proxy.set(&web, &ready(&[1, 2, 3]));
    for v4 in FAMILIES {
        let (at, pod, other) = (cluster_ip(v4), world.pod(1), world.pod(2));
        assert_eq!(who(pod, at, 80), BTreeSet::from([1, 2, 3]));
        assert_eq!(who(&world.node, at, 80), BTreeSet::from([1, 2, 3]));
        // Clients in the cluster keep their address, others do not.
        let (answered, client) = (0..).map(|_| tcp(pod, at, 80).unwrap()).find(|(n, _)| *n == 2).unwrap();
        assert_eq!((answered, client), (2, pod_ip(v4, 1)));
        assert_eq!(tcp(&world.outside, at, 80).unwrap().1, node_ip(v4));
        assert_eq!(ask(&udp_socket(pod, at, 80)).unwrap().1.is_ipv4(), v4);
        // A port the Service does not have. Asked from a pod that has not reached itself: for IPv6, the
        // redirects that this brings use up a pod's share of ICMP (`icmp/ratelimit`), and none turns them off.
        assert_eq!(tcp(other, at, 81), NOBODY);
        assert_eq!(tcp(&world.node, at, 81), NOBODY);
    }
    // An endpoint that leaves keeps what it has and gets nothing new.
    let mut open: Vec<_> = FAMILIES
        .iter()
        .flat_map(|v4| (0..12).map(|_| connect(world.pod(1), cluster_ip(*v4), 80).unwrap()))
        .collect();
    assert!(open.iter().any(|((n, _), _)| *n == 2));
    proxy.set(&web, &ready(&[1, 3]));
    for v4 in FAMILIES {
        assert_eq!(who(world.pod(1), cluster_ip(v4), 80), BTreeSet::from([1, 3]));
    }
    assert!(open.iter_mut().all(|(_, stream)| lives(stream)));
    // The last endpoint, reached from itself.
    proxy.set(&web, &ready(&[1]));
    for v4 in FAMILIES {
        let (answered, client) = tcp(world.pod(1), cluster_ip(v4), 80).unwrap();
        assert_eq!((answered, client), (1, node_ip(v4)));
    }
    // Nobody: refused at once, for TCP and UDP, from a pod and from the node.
    proxy.set(&web, &[]);
    for v4 in FAMILIES {
        for (place, from) in [("pod", world.pod(2)), ("node", &world.node)] {
            assert_eq!(tcp(from, cluster_ip(v4), 80), NOBODY, "{place} {v4}");
            // The node's own packet does not even leave the socket.
            let refused =
                if place == "node" { ErrorKind::PermissionDenied } else { ErrorKind::ConnectionRefused };
            assert_eq!(ask(&udp_socket(from, cluster_ip(v4), 80)), Err(refused), "{place} {v4}");
        }
    }
    assert!(open.iter_mut().all(|(_, stream)| lives(stream)));
    // Ends, but still serves: better than nobody.
    let ending = json!({"pod": 3, "nodeName": "node",
        "conditions": {"ready": false, "serving": true, "terminating": true}});
    proxy.set(&web, &[ending]);
    assert_eq!(who(world.pod(1), cluster_ip(true), 80), BTreeSet::from([3]));
    proxy.remove("web");
    assert!(is_silence(tcp(world.pod(1), cluster_ip(true), 80)));
}

#[test]
fn root_node_ports_and_traffic_policies() {
    let world = World::new(2);
    let mut proxy = world.proxy();
    let ports = json!([{"name": "t", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    let cluster = service("web", json!({"type": "NodePort", "ports": ports}));
    proxy.set(&cluster, &elsewhere(&[1, 2]));
    for v4 in FAMILIES {
        let at = node_ip(v4);
        assert_eq!(who(&world.outside, at, 30080), BTreeSet::from([1, 2]));
        assert_eq!(tcp(&world.outside, at, 30080).unwrap().1, at);
        assert_eq!(who(&world.node, at, 30080), BTreeSet::from([1, 2]));
        assert_eq!(who(world.pod(1), at, 30080), BTreeSet::from([1, 2]));
        assert_eq!(tcp(&world.outside, at, 30081), NOBODY);
    }
    assert_eq!(who(&world.node, "127.0.0.1".parse().unwrap(), 30080), BTreeSet::from([1, 2]));
    // Local: clients keep their address and see this node's endpoints only; pods and the node see all.
    let local = service("web", json!({"type": "NodePort", "ports": ports, "externalTrafficPolicy": "Local"}));
    let mixed = [ready(&[1]), elsewhere(&[2])].concat();
    proxy.set(&local, &mixed);
    for v4 in FAMILIES {
        let at = node_ip(v4);
        assert_eq!(who(&world.outside, at, 30080), BTreeSet::from([1]));
        assert_eq!(tcp(&world.outside, at, 30080).unwrap().1, outside_ip(v4));
        assert_eq!(who(&world.node, at, 30080), BTreeSet::from([1, 2]));
        assert_eq!(who(world.pod(1), at, 30080), BTreeSet::from([1, 2]));
    }
    // Nobody here: silence outside, so that a load balancer looks elsewhere; still reachable from within.
    proxy.set(&local, &elsewhere(&[2]));
    for v4 in FAMILIES {
        assert!(is_silence(tcp(&world.outside, node_ip(v4), 30080)));
        assert_eq!(who(world.pod(1), node_ip(v4), 30080), BTreeSet::from([2]));
    }
    proxy.set(&local, &[]);
    for v4 in FAMILIES {
        assert_eq!(tcp(&world.outside, node_ip(v4), 30080), NOBODY);
        assert_eq!(tcp(&world.node, node_ip(v4), 30080), NOBODY);
    }
    // Inside, too, a policy may keep traffic on the node.
    let inside = service("web", json!({"internalTrafficPolicy": "Local", "ports": ports}));
    proxy.set(&inside, &mixed);
    assert_eq!(who(world.pod(2), cluster_ip(true), 80), BTreeSet::from([1]));
    proxy.set(&inside, &elsewhere(&[2]));
    assert!(is_silence(tcp(world.pod(1), cluster_ip(true), 80)));
}

#[test]
fn root_node_ports_on_some_addresses_only() {
    let world = World::new(1);
    let cidr = |text| apimachinery::validation::parse_cidr_sloppy(text).unwrap();
    let mut proxy = world.proxy_with(|options| {
        options.node_port_addresses = vec![cidr("192.168.77.0/24")];
        options.localhost_node_ports = false;
    });
    let ports = json!([{"name": "t", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    proxy.set(&service("web", json!({"type": "NodePort", "ports": ports})), &ready(&[1]));
    assert_eq!(tcp(&world.outside, node_ip(true), 30080).unwrap().0, 1);
    assert_eq!(tcp(&world.outside, node_ip(false), 30080), NOBODY);
    assert_eq!(tcp(&world.node, "127.0.0.1".parse().unwrap(), 30080), NOBODY);
}

#[test]
fn root_external_addresses_and_their_sources() {
    let world = World::new(1);
    let mut proxy = world.proxy();
    let status = json!({"loadBalancer": {"ingress":
        FAMILIES.map(|v4| json!({"ip": vip(v4), "ipMode": "VIP"}))}});
    let mut check = |ranges: &[&str], proxied: bool, allowed: bool| {
        let status = if proxied {
            json!({"loadBalancer": {"ingress": FAMILIES.map(|v4| json!({"ip": vip(v4), "ipMode": "Proxy"}))}})
        } else {
            status.clone()
        };
        let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges, "status": status});
        proxy.set(&service("web", spec), &ready(&[1]));
        for v4 in FAMILIES {
            let answer = tcp(&world.outside, vip(v4), 80);
            assert_eq!(answer.is_ok(), allowed, "{ranges:?} {v4} {answer:?}");
        }
    };
    check(&[], false, true);
    check(&["192.168.77.0/24", "192.168.77.0/30", "fd00:77::/64"], false, true);
    check(&["192.168.78.0/24", "fd00:78::/64"], false, false);
    check(&["192.168.78.0/24", "0.0.0.0/0", "::/0"], false, true);
    // The load balancer translates by itself: the address is not ours.
    check(&[], true, false);
    let external = service("web", json!({"externalIPs": FAMILIES.map(vip)}));
    proxy.set(&external, &ready(&[1]));
    for v4 in FAMILIES {
        assert_eq!(tcp(&world.outside, vip(v4), 80), Ok((1, node_ip(v4))));
    }
}

#[test]
fn root_affinity_holds_until_its_endpoint_goes() {
    let world = World::new(4);
    let mut proxy = world.proxy();
    let sticky = service(
        "web",
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
    );
    let mut left = BTreeSet::from([1, 2, 3, 4]);
    while !left.is_empty() {
        proxy.set(&sticky, &ready(&left.iter().copied().collect::<Vec<_>>()));
        let mut gone = BTreeSet::new();
        for v4 in FAMILIES {
            for client in [world.pod(1), &world.outside, &world.node] {
                let kept = who(client, cluster_ip(v4), 80);
                assert_eq!(kept.len(), 1, "{left:?} {v4}");
                assert!(kept.is_subset(&left));
                gone.extend(kept);
            }
        }
        // Some endpoint that clients hold on to goes.
        left.remove(gone.first().unwrap());
    }
    // Nobody is remembered who was forgotten.
    proxy.set(&sticky, &[]);
    assert_eq!(tcp(world.pod(1), cluster_ip(true), 80), NOBODY);
    nft_list(&world.node);
}

#[test]
fn root_udp_flows_leave_endpoints_that_go() {
    let world = World::new(3);
    let mut proxy = world.proxy();
    let ports = json!([{"name": "u", "port": 80, "protocol": "UDP", "nodePort": 30080}]);
    let dns = service("dns", json!({"type": "NodePort", "ports": ports}));
    for v4 in FAMILIES {
        proxy.set(&dns, &[]);
        // A client that asks before there is anybody, and keeps its port.
        let early = udp_socket(world.pod(1), cluster_ip(v4), 80);
        assert_eq!(ask(&early), NOBODY);
        let outside = udp_socket(&world.outside, node_ip(v4), 30080);
        assert_eq!(ask(&outside), NOBODY);
        proxy.set(&dns, &ready(&[2]));
        assert_eq!(ask(&early).unwrap().0, 2);
        assert_eq!(ask(&outside).unwrap().0, 2);
        proxy.set(&dns, &ready(&[3]));
        assert_eq!(ask(&early).unwrap().0, 3);
        assert_eq!(ask(&outside).unwrap().0, 3);
    }
}

/// The lines of a listing that are not chains, in an order of their own: sets are unordered.
fn elements(netns: &Netns) -> BTreeSet<String> {
    let listed = nft_list(netns);
    let lines = listed.lines().filter(|l| l.contains(" : ") && !l.contains("meta") && !l.contains("type"));
    lines
        .map(|l| l.replace("elements = {", "").replace('}', "").trim_matches([' ', '\t', ',']).to_owned())
        .collect()
}

#[test]
fn root_a_restart_changes_nothing_that_is_right() {
    let world = World::new(3);
    let ports = json!([{"name": "t", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    let web = service("web", json!({"type": "NodePort", "ports": ports}));
    let spec = json!({"sessionAffinity": "ClientIP", "externalIPs": FAMILIES.map(vip),
        "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]});
    let sticky = service("sticky", spec);
    let mut first = world.proxy();
    for pods in [vec![1, 2, 3], vec![2, 3], vec![1, 2, 3]] {
        first.set(&web, &ready(&pods));
        first.set(&sticky, &ready(&pods));
    }
    let before = elements(&world.node);
    drop(first);
    // The next process sets the same before it looks at what is there.
    let mut next = world.proxy_set_first(&[(&web, ready(&[1, 2, 3])), (&sticky, ready(&[1, 2, 3]))]);
    assert_eq!(before, elements(&world.node));
    let listed = nft_list(&world.node);
    assert!(listed.contains("chain pick-3") && !listed.contains("chain pick-2"), "{listed}");
    // Somebody else's flush is repaired by a reconciliation.
    let flush = || std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap();
    assert!(world.node.run(flush).unwrap().success());
    assert!(is_silence(tcp(world.pod(1), cluster_ip(true), 80)));
    next.ruleset().reconcile().unwrap();
    assert!(tcp(world.pod(1), cluster_ip(true), 80).is_ok());
    let mut nft = linux::nft::Nft::open_in(&world.node).unwrap();
    proxy::nft::remove(&mut nft).unwrap();
    proxy::nft::remove(&mut nft).unwrap();
    assert_eq!(nft.tables().unwrap(), []);
}

/// Thousands of Services cost once, when they are first written; a change among them costs what it changes.
#[test]
fn root_a_change_among_thousands_of_services_is_small() {
    const SERVICES: usize = 5000;
    let world = World::new(1);
    let many = |i: usize| {
        let ip = format!("10.97.{}.{}", i / 250, i % 250);
        service(&format!("s{i}"), json!({"clusterIP": ip, "clusterIPs": [ip]}))
    };
    let all: Vec<_> = (0..SERVICES).map(many).collect();
    let endpoints: Vec<_> = all.iter().map(|s| (s, elsewhere(&[1, 2, 3]))).collect();
    let start = std::time::Instant::now();
    let mut proxy = world.proxy_set_first(&endpoints);
    let whole = start.elapsed();
    let mut slowest = std::time::Duration::ZERO;
    for pods in [&[1, 2][..], &[1], &[1, 2, 3], &[]] {
        let start = std::time::Instant::now();
        proxy.set(&all[77], &elsewhere(pods));
        slowest = slowest.max(start.elapsed());
    }
    println!("{SERVICES} services in {whole:?}, a change in at most {slowest:?}");
    assert!(slowest.as_millis() < 500, "{slowest:?}");
    let start = std::time::Instant::now();
    proxy.ruleset().reconcile().unwrap();
    println!("compared with the kernel in {:?}", start.elapsed());
    assert_eq!(tcp(world.pod(1), "10.97.0.77".parse().unwrap(), 80), NOBODY);
    proxy.set(&all[77], &ready(&[1]));
    assert_eq!(tcp(world.pod(1), "10.97.0.77".parse().unwrap(), 80).unwrap().0, 1);
}
