//! Several nodes: they join with a token, one on the same link as the server and one behind a router; pods reach each other
//! wherever they are, and what breaks between the nodes mends.
#![allow(clippy::unwrap_used)]

use cluster_tests::agent::Agent;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::{service, shell};
use cluster_tests::net::{NODE_IP, Switch};
use cluster_tests::{Room, Scenario, Suite, scenarios, until};
use std::process::ExitCode;

fn main() -> ExitCode {
    const ALONE: &[Scenario] = scenarios![nodes_join_and_work_together];
    Suite { alone: ALONE, ..Suite::new("nodes", &[]) }.run()
}

/// On the server's link.
const NEAR: &str = "192.0.2.11";
/// Behind the router.
const FAR: &str = "198.51.100.10";

struct Nodes {
    near: Agent,
    far: Agent,
}

fn nodes_join_and_work_together(room: &Room) {
    let switch = Switch::make(&format!("tiphys-switch-{}", std::process::id()));
    switch.plug(&room.cluster.net, "server");
    let nodes =
        Nodes { near: Agent::make(&room.cluster, "near", NEAR), far: Agent::make(&room.cluster, "far", FAR) };
    switch.plug(&nodes.near.net, "near");
    switch.plug_apart(&nodes.far.net, "far", "198.51.100.1");
    join(room, &nodes);
    pods_reach_each_other(room);
    an_agent_comes_back(room, &nodes);
    a_link_comes_back(room, &nodes);
    a_node_that_goes_is_forgotten(room, &nodes);
    let left = [nodes.near.end(), nodes.far.end()].concat();
    drop(nodes);
    switch.unplug(&room.cluster.net, "server");
    switch.remove();
    assert_eq!(left, Vec::<String>::new());
}

fn join(room: &Room, nodes: &Nodes) {
    let create =
        room.cluster.tiphys(&["token", "create", "--ttl", "1h", "--print-join-command"]).output().unwrap();
    assert!(create.status.success(), "{}", String::from_utf8_lossy(&create.stderr));
    let command = String::from_utf8(create.stdout).unwrap();
    let flags: Vec<&str> = command.split_whitespace().skip_while(|word| *word != "--server").collect();
    assert_eq!(flags[..3], ["--server", &format!("https://{NODE_IP}:6443"), "--token"]);
    // Who does not know the secret, or finds another authority than was told, does not join.
    let (id, secret) = flags[3].split_once('.').unwrap();
    let guess = format!("{id}.{}", secret.chars().rev().collect::<String>());
    let wrong = nodes.near.refused(NEAR, &["--server", flags[1], "--token", &guess]);
    assert!(wrong.contains("signed with another secret than the token's"), "{wrong}");
    let hash = format!("sha256:{}", "0".repeat(64));
    let told = [&flags[..4], &["--discovery-token-ca-cert-hash", &hash]].concat();
    let wrong = nodes.near.refused(NEAR, &told);
    assert!(wrong.contains("none of --discovery-token-ca-cert-hash"), "{wrong}");
    let none = nodes.near.refused(NEAR, &["--server", flags[1]]);
    assert!(none.contains("--token is needed"), "{none}");

    nodes.near.start(NEAR, &flags);
    nodes.far.start(FAR, &flags);
    for agent in [&nodes.near, &nodes.far] {
        room.kubectl.wait("create", &format!("node/{}", agent.name));
        room.kubectl.wait("condition=Ready", &format!("node/{}", agent.name));
        agent.import_images();
    }
    // Each has a certificate to call with and one to serve with, which nobody had to approve.
    until("served", || {
        let requests = room.kubectl.run("get csr --no-headers");
        requests.lines().count() == 4 && requests.lines().all(|line| line.ends_with(" Approved,Issued"))
    });
    let list = String::from_utf8(room.cluster.tiphys(&["token", "list"]).output().unwrap().stdout).unwrap();
    assert!(list.contains(id) && !list.contains(secret), "{list}");
    // Who has joined needs no token any more.
    let delete = room.cluster.tiphys(&["token", "delete", id]).output().unwrap();
    assert!(delete.status.success(), "{}", String::from_utf8_lossy(&delete.stderr));
}

/// Pods of one name on every node, with a file that is larger than any packet.
fn pods_reach_each_other(room: &Room) {
    let k = &room.kubectl;
    for node in [NODE, "near", "far"] {
        let serves = "[sh, -c, 'mkdir /www; hostname >/www/index.html; dd if=/dev/zero of=/www/large bs=1k count=2000 2>/dev/null; exec httpd -f -p 80 -h /www']";
        let pod = shell(node, &format!("nodeName: {node}")).replace("[sleep, infinity]", serves);
        k.apply(&pod.replace(&format!("app: {node}"), "app: web"));
    }
    k.apply(&service("web", "type: NodePort").replace("targetPort: http", "targetPort: 80"));
    k.run("wait --for=condition=Ready pods --all --timeout=60s");
    let pods = [NODE, "near", "far"].map(|name| (name, k.field(&format!("pod/{name}"), ".status.podIP")));
    for (from, _) in &pods {
        for (to, ip) in &pods {
            assert_eq!(k.run(&format!("exec {from} -- timeout 10 wget -qO- http://{ip}/")), *to, "{from}");
            let size =
                k.run(&format!("exec {from} -- sh -c 'timeout 30 wget -qO- http://{ip}/large | wc -c'"));
            assert_eq!(size, "2048000", "{from} to {to}");
        }
        // By name, by the node's own DNS server, until everybody has answered.
        let mut missing = vec![NODE, "near", "far"];
        until("answered by all", || {
            let name = k.run(&format!("exec {from} -- timeout 10 wget -qO- http://web:8080/"));
            missing.retain(|node| *node != name);
            missing.is_empty()
        });
        assert_eq!(k.run(&format!("logs {from}")), "");
    }
    // Nodes reach pods, and node ports of other nodes.
    let port = k.field("service/web", ".spec.ports[0].nodePort");
    let net = &room.cluster.net;
    for (to, ip) in &pods {
        assert_eq!(net.run(&format!("timeout 10 busybox wget -qO- http://{ip}/")).trim(), *to);
    }
    for address in [NODE_IP, NEAR, FAR] {
        let name = net.run(&format!("timeout 10 busybox wget -qO- http://{address}:{port}/"));
        assert!([NODE, "near", "far"].contains(&name.trim()), "{name}");
    }
}

/// Killed and started again without a token: its pods went on.
fn an_agent_comes_back(room: &Room, nodes: &Nodes) {
    let k = &room.kubectl;
    let id = || k.field("pod/far", ".status.containerStatuses[0].containerID");
    let before = id();
    nodes.far.kill();
    assert!(!k.run("exec near -- timeout 10 wget -qO- http://web:8080/").is_empty());
    nodes.far.start(FAR, &["--server", &format!("https://{NODE_IP}:6443")]);
    until("answered", || k.output("exec far -- true").status.success());
    assert_eq!(id(), before);
    assert_eq!(k.field("pod/far", ".status.containerStatuses[0].restartCount"), "0");
    nodes.near.stop();
    nodes.near.start(NEAR, &["--server", &format!("https://{NODE_IP}:6443")]);
    until("answered", || k.output("exec near -- true").status.success());
}

/// With a link that goes down the kernel drops its routes.
fn a_link_comes_back(room: &Room, nodes: &Nodes) {
    let k = &room.kubectl;
    let near = k.field("pod/near", ".status.podIP");
    let net = &nodes.far.net;
    net.run("ip link set uplink down; ip link set uplink up; ip route add default dev uplink");
    until("there again", || net.run("ip route").contains(" dev tiphys-vxlan"));
    until("answered", || {
        k.output(&format!("exec far -- timeout 10 wget -qO- http://{near}/")).status.success()
    });
}

fn a_node_that_goes_is_forgotten(room: &Room, nodes: &Nodes) {
    let k = &room.kubectl;
    let range = k.field("node/near", ".spec.podCIDR");
    let routes = || room.cluster.net.run("ip route");
    assert!(routes().contains(&format!("{range} via {NEAR} dev uplink")), "{}", routes());
    k.run("delete pod near --now");
    nodes.near.kill();
    k.run("delete node near");
    until("forgotten", || !routes().contains(&range));
    // It comes back as what it was.
    nodes.near.start(NEAR, &["--server", &format!("https://{NODE_IP}:6443")]);
    k.wait("create", "node/near");
    k.wait("condition=Ready", "node/near");
}
