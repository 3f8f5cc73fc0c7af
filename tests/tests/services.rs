//! Services as their clients see them: virtual addresses, node ports, names, from the node, from pods, and from the very
//! pod that serves.
#![allow(clippy::unwrap_used)]

use cluster_tests::manifests::{service, shell, web};
use cluster_tests::net::NODE_IP;
use cluster_tests::{Room, Suite, http, scenarios};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[cluster_tests::Scenario] = scenarios![
        balances_over_its_pods,
        names,
        headless,
        node_port,
        hairpin,
        session_affinity,
        without_endpoints,
        external_name,
        host_port,
        named_ports_differ_by_pod,
        udp_to_endpoints_of_others,
        own_network_of_the_node,
        through_the_api_server,
    ];
    Suite::new("services", TOGETHER).run()
}

fn address(room: &Room, service: &str) -> SocketAddr {
    format!("{}:8080", room.kubectl.field(&format!("service/{service}"), ".spec.clusterIP")).parse().unwrap()
}

/// Every pod's name that answers there, once as many did as there should be.
fn answering(room: &Room, address: SocketAddr, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    http::until(&room.cluster.net, address, |answer| {
        seen.extend(answer.as_ref().ok().map(|body| body.trim().to_owned()));
        seen.len() == count
    });
    seen
}

fn pods(room: &Room, selector: &str) -> BTreeSet<String> {
    let names = room.kubectl.run(&format!("get pods -l {selector} -o name"));
    names.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
}

fn balances_over_its_pods(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 3) + &service("web", "") + &shell("client", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    assert_eq!(answering(room, address(room, "web"), 3), pods(room, "app=web"));
    k.wait("condition=Ready", "pod/client");
    let mut seen = BTreeSet::new();
    let fetch = format!(
        "exec client -- sh -c 'for i in $(seq 60); do wget -q -O - http://{}/; done'",
        address(room, "web")
    );
    seen.extend(k.run(&fetch).lines().map(str::to_owned));
    assert_eq!(seen, pods(room, "app=web"));
    // One that is gone gets nothing more, from the moment its deletion is seen.
    k.run("scale deployment/web --replicas=1");
    k.until("deployment/web", "one replica", |d| (d["status"]["replicas"] == 1).then_some(()));
    let left = pods(room, "app=web,!gone");
    let only = left.iter().next().unwrap().clone();
    k.until("endpointslices -l kubernetes.io/service-name=web", "one endpoint", |slice| {
        (slice["endpoints"].as_array()?.len() == 1).then_some(())
    });
    let mut in_a_row = 0;
    http::until(&room.cluster.net, address(room, "web"), |answer| {
        in_a_row = if answer.as_ref().is_ok_and(|body| body.trim() == only) { in_a_row + 1 } else { 0 };
        in_a_row == 50
    });
}

fn names(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    k.apply(&(web("web", 1) + &service("web", "") + &shell("client", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/client");
    let ip = address(room, "web").ip().to_string();
    answering(room, address(room, "web"), 1);
    for name in
        ["web", &format!("web.{ns}"), &format!("web.{ns}.svc"), &format!("web.{ns}.svc.cluster.local")]
    {
        let page = k.run(&format!("exec client -- wget -q -O - http://{name}:8080/"));
        assert!(page.starts_with("web-"), "{name}: {page}");
    }
    let look = |arguments: &str| {
        let output = k.output(&format!("exec client -- nslookup {arguments}"));
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let found = look(&format!("web.{ns}.svc.cluster.local."));
    assert!(found.contains("Server:\t\t10.96.0.10") && found.contains(&format!("Address: {ip}")), "{found}");
    let found = look(&format!("-type=srv _http._tcp.web.{ns}.svc.cluster.local."));
    assert!(found.contains(&format!("0 100 8080 web.{ns}.svc.cluster.local")), "{found}");
    let found = look(&ip);
    assert!(found.contains(&format!("name = web.{ns}.svc.cluster.local")), "{found}");
    assert!(look("kubernetes.default.svc.cluster.local.").contains("Address: 10.96.0.1"));
    let found = look(&format!("absent.{ns}.svc.cluster.local."));
    assert!(found.contains("NXDOMAIN"), "{found}");
    let resolv = k.run("exec client -- cat /etc/resolv.conf");
    assert!(
        resolv.contains(&format!("search {ns}.svc.cluster.local svc.cluster.local cluster.local")),
        "{resolv}"
    );
    assert!(resolv.contains("nameserver 10.96.0.10") && resolv.contains("options ndots:5"), "{resolv}");
    // A Service's variables are given to containers that start later than it.
    k.run("run late --image=localhost/busybox:debian12 --restart=Never -- env");
    k.wait("jsonpath={.status.phase}=Succeeded", "pod/late");
    let env = k.run("logs late");
    for line in [
        format!("WEB_SERVICE_HOST={ip}"),
        "WEB_PORT_8080_TCP_PORT=8080".into(),
        "KUBERNETES_SERVICE_PORT=443".into(),
    ] {
        assert!(env.contains(&line), "{line} is missing in {env}");
    }
}

fn headless(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    let named = shell("first", "hostname: first\n  subdomain: crew")
        .replace("{app: first}", "{app: crew}")
        .replace("[sleep, infinity]", "[sleep, infinity]\n    ports: [{name: http, containerPort: 80}]");
    k.apply(&(web("crew", 2) + &service("crew", "clusterIP: None") + &named));
    k.run("rollout status deployment/crew --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/first");
    let addresses: BTreeSet<String> = k
        .run("get pods -o 'jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}'")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(addresses.len(), 3);
    k.until("endpointslices -l kubernetes.io/service-name=crew", "three endpoints", |slice| {
        (slice["endpoints"].as_array()?.len() == 3).then_some(())
    });
    let found = k.run(&format!("exec first -- nslookup crew.{ns}.svc.cluster.local."));
    for address in &addresses {
        assert!(
            found.contains(&format!("Address: {address}\n"))
                || found.ends_with(&format!("Address: {address}")),
            "{address} is missing in {found}"
        );
    }
    let first = k.pod_ip("first");
    let found = k.run(&format!("exec first -- nslookup first.crew.{ns}.svc.cluster.local."));
    assert!(found.contains(&format!("Address: {first}")), "{found}");
    assert_eq!(k.run("exec first -- hostname -f"), format!("first.crew.{ns}.svc.cluster.local"));
}

fn node_port(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 2) + &service("web", "type: NodePort") + &shell("client", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let port: u16 = k.field("service/web", ".spec.ports[0].nodePort").parse().unwrap();
    assert!((30000..32768).contains(&port), "{port}");
    let there: SocketAddr = format!("{NODE_IP}:{port}").parse().unwrap();
    assert_eq!(answering(room, there, 2), pods(room, "app=web"));
    k.wait("condition=Ready", "pod/client");
    assert!(k.run(&format!("exec client -- wget -q -O - http://{there}/")).starts_with("web-"));
    let table = k.run("get service web");
    assert!(table.contains("NodePort") && table.contains(&format!("8080:{port}/TCP")), "{table}");
    // A deleted Service answers no more.
    k.run("delete service web");
    http::until(&room.cluster.net, there, |answer| answer.is_err());
}

fn hairpin(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 1) + &service("web", "type: NodePort")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    answering(room, address(room, "web"), 1);
    let itself = k.run("exec deployment/web -- wget -q -O - http://web:8080/");
    assert_eq!(BTreeSet::from([itself]), pods(room, "app=web"));
    let port = k.field("service/web", ".spec.ports[0].nodePort");
    k.run(&format!("exec deployment/web -- wget -q -O - http://{NODE_IP}:{port}/"));
}

fn session_affinity(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        &(web("web", 3) + &service("web", "sessionAffinity: ClientIP") + &shell("a", "") + &shell("b", "")),
    );
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.until("endpointslices -l kubernetes.io/service-name=web", "three ready endpoints", |slice| {
        let ready =
            slice["endpoints"].as_array()?.iter().filter(|e| e["conditions"]["ready"] == true).count();
        (ready == 3).then_some(())
    });
    for client in ["a", "b"] {
        k.wait("condition=Ready", &format!("pod/{client}"));
        let fetch = format!(
            "exec {client} -- sh -c 'for i in $(seq 30); do wget -q -O - http://{}/; done'",
            address(room, "web")
        );
        let seen: BTreeSet<String> = k.run(&fetch).lines().map(str::to_owned).collect();
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

fn without_endpoints(room: &Room) {
    let k = &room.kubectl;
    k.apply(&service("nobody", ""));
    // Refused at once, not after a time-out.
    http::until(&room.cluster.net, address(room, "nobody"), |answer| {
        answer.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
}

fn external_name(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    k.apply(&shell("client", ""));
    k.run("create service externalname elsewhere --external-name=ships.example.org");
    k.wait("condition=Ready", "pod/client");
    let output = k.output(&format!("exec client -- nslookup -type=cname elsewhere.{ns}.svc.cluster.local."));
    let found = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(found.contains("canonical name = ships.example.org"), "{found}");
}

fn host_port(room: &Room) {
    let k = &room.kubectl;
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: harbour}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: localhost/busybox:debian12
    command: [sh, -c, 'mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www']
    ports: [{containerPort: 80, hostPort: 8088}]
";
    k.apply(pod);
    k.wait("condition=Ready", "pod/harbour");
    let there: SocketAddr = format!("{NODE_IP}:8088").parse().unwrap();
    assert_eq!(answering(room, there, 1), BTreeSet::from(["harbour".to_owned()]));
    // The node has the port once.
    k.apply(&pod.replace("harbour", "second"));
    let why = k.event("second", "FailedScheduling");
    assert!(
        why.starts_with(
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        ),
        "{why}"
    );
    k.run("delete pod harbour second");
    http::until(&room.cluster.net, there, |answer| answer.is_err());
}

fn named_ports_differ_by_pod(room: &Room) {
    let k = &room.kubectl;
    let other = web("second", 1)
        .replace("app: second", "app: web, is: second")
        .replace("containerPort: 80", "containerPort: 81")
        .replace("-p 80", "-p 81");
    let first = web("first", 1).replace("app: first", "app: web, is: first");
    k.apply(&(first + "---" + &other + &service("web", "")));
    k.run("rollout status deployment/first --timeout=$PATIENCE");
    k.run("rollout status deployment/second --timeout=$PATIENCE");
    assert_eq!(answering(room, address(room, "web"), 2), pods(room, "app=web"));
}

/// A Service without a selector, whose endpoint somebody else wrote: the cluster's own DNS server.
fn udp_to_endpoints_of_others(room: &Room) {
    let k = &room.kubectl;
    let service = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: lookout}}
spec:
  ports: [{{name: dns, port: 53, protocol: UDP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: by-hand, labels: {{kubernetes.io/service-name: lookout}}}}
addressType: IPv4
ports: [{{name: dns, port: 10053, protocol: UDP}}]
endpoints: [{{addresses: [{NODE_IP}]}}]
"
    );
    k.apply(&(service + &shell("client", "")));
    k.wait("condition=Ready", "pod/client");
    let ip = k.field("service/lookout", ".spec.clusterIP");
    let found = k.run(&format!("exec client -- nslookup kubernetes.default.svc.cluster.local. {ip}"));
    assert!(found.contains(&format!("Server:\t\t{ip}")) && found.contains("Address: 10.96.0.1"), "{found}");
}

fn own_network_of_the_node(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        &(web("web", 1)
            + &service("web", "")
            + &shell("native", "hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet")),
    );
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/native");
    assert_eq!(k.pod_ip("native"), NODE_IP);
    answering(room, address(room, "web"), 1);
    assert!(k.run("exec native -- wget -q -O - http://web:8080/").starts_with("web-"));
}

/// The API server hands requests on, whatever their method; only what may be a page of links is sent to the path with a
/// slash first.
fn through_the_api_server(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 1) + &service("web", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    answering(room, address(room, "web"), 1);
    let pod = pods(room, "app=web").into_iter().next().unwrap();
    let base = format!("/api/v1/namespaces/{}", k.namespace);
    for path in ["services/web:8080/proxy/", "services/web:8080/proxy", &format!("pods/{pod}:80/proxy/")] {
        assert_eq!(k.run(&format!("get --raw {base}/{path}")).trim(), pod, "{path}");
    }
    // The server behind it knows no such method, and says so itself.
    let refused = k.refused(&format!("delete --raw {base}/services/web:8080/proxy"));
    assert!(refused.contains("501") || refused.contains("Not Implemented"), "{refused}");
}
