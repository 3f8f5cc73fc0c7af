//! Which addresses `pods/proxy`, `services/proxy` and `nodes/proxy` lead to. The way there is a proxy that stands for every host
//! and notes who was asked for.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::egress::{Configuration, Egress};
use apiserver::rooms::{KubeletTls, Rooms};
use component::metrics::Registry;
use expect_test::expect;
use http::Method;
use parking_lot::Mutex;
use pki::tls::{ALPN_HTTP1, Trust};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The first line of a request; none of TLS.
async fn head(stream: &mut TcpStream) -> Option<String> {
    const HANDSHAKE: u8 = 0x16;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok().filter(|byte| *byte != HANDSHAKE)?);
    }
    Some(String::from_utf8_lossy(&head).lines().next()?.to_owned())
}

/// The proxy's address, and the hosts that were asked for.
async fn way() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let connect = head(&mut stream).await.unwrap();
            seen.lock().push(connect.split(' ').nth(1).unwrap().to_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move {
                if head(&mut stream).await.is_some_and(|line| line.starts_with("GET ")) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nreached";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (url, asked)
}

async fn made(house: &house::House, path: &str, object: Value) {
    let (code, answer) = house.json(Method::POST, path, object).await;
    assert_eq!(code, 201, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_those_of_pods_and_nodes() {
    pki::tls::install_provider();
    let (url, asked) = way().await;
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
         - {{name: cluster, connection: {{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: '{url}'}}}}}}}}\n"
    );
    let egress = Egress::new(&Configuration::parse(&text).unwrap(), &Registry::new()).unwrap();
    let anyone = Arc::new(pki::tls::client_config(&Trust::Anyone, None, ALPN_HTTP1).unwrap());
    let kubelet_tls = Some(KubeletTls { checked: anyone.clone(), unchecked: anyone });
    let house =
        house::house_with_rooms(Rooms { kubelet_tls, egress: Arc::new(egress), ..Rooms::default() }).await;

    made(&house, &format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    for (name, ip) in [("web", "10.1.2.3"), ("local", "127.0.0.1"), ("link", "169.254.169.254"), ("new", "")]
    {
        let spec = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 9}]}]});
        made(&house, &format!("{NAMESPACE}/pods"), json!({"metadata": {"name": name}, "spec": spec})).await;
        if !ip.is_empty() {
            let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
            let path = format!("{NAMESPACE}/pods/{name}/status");
            let patched = house.call(Method::PATCH, &path, "application/merge-patch+json", status).await;
            assert_eq!(patched.0, 200, "{}", patched.1);
        }
    }
    let web = json!({"kind": "Pod", "namespace": "default", "name": "web"});
    for (name, port, address, target) in [
        ("plain", Value::Null, "10.1.2.3", web.clone()),
        ("named", json!("x"), "10.1.2.3", web.clone()),
        // Nobody's, another pod's, and a pod's of another namespace.
        ("bare", Value::Null, "10.1.2.3", Value::Null),
        ("other", Value::Null, "10.1.2.4", web),
        ("far", Value::Null, "10.1.2.3", json!({"kind": "Pod", "namespace": "kube-system", "name": "web"})),
    ] {
        let ports = json!([{"name": port, "port": 80}]);
        made(
            &house,
            &format!("{NAMESPACE}/services"),
            json!({"metadata": {"name": name}, "spec": {"ports": ports, "clusterIP": "None"}}),
        )
        .await;
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": port.as_str().unwrap_or_default(), "port": 7, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "targetRef": target}],
        });
        made(&house, SLICES, slice).await;
    }
    for (name, ty, address) in [
        ("good", "InternalIP", "10.1.2.9"),
        ("here", "InternalIP", "127.0.0.1"),
        ("named", "Hostname", "localhost"),
    ] {
        let status = json!({"addresses": [{"type": ty, "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}});
        made(&house, "/api/v1/nodes", json!({"metadata": {"name": name}, "status": status})).await;
    }

    let mut told = String::new();
    for path in [
        "pods/web",
        "pods/web:8",
        "pods/local",
        "pods/link:80",
        "pods/new",
        "pods/none",
        "pods/ftp:web:9",
        "services/plain",
        "services/plain:80",
        "services/plain:81",
        "services/named",
        "services/named:x",
        "services/named:80",
        "services/named:y",
        "services/bare:80",
        "services/other",
        "services/far",
        "services/a:b:c:d",
        "nodes/good",
        "nodes/good:10250",
        "nodes/good:9100",
        "nodes/here",
        "nodes/here:9100",
        "nodes/named",
        "nodes/none",
        "nodes/ftp:good:1",
    ] {
        let within = if path.starts_with("nodes") { "/api/v1" } else { NAMESPACE };
        let answer = house.send(Method::GET, &format!("{within}/{path}/proxy/x"), &[], Value::Null).await;
        let hosts = std::mem::take(&mut *asked.lock()).join(", ");
        let status: Option<Value> = serde_json::from_slice(answer.body()).ok();
        let why = match status {
            _ if !hosts.is_empty() => format!("to {hosts}"),
            Some(status) => status["message"].as_str().unwrap_or_default().to_owned(),
            None => String::from_utf8_lossy(answer.body()).into_owned(),
        };
        told += &format!("{path}: {} {why}\n", answer.status().as_u16());
    }
    expect![[r#"
        pods/web: 200 to 10.1.2.3:9
        pods/web:8: 200 to 10.1.2.3:8
        pods/local: 400 address not allowed
        pods/link:80: 400 address not allowed
        pods/new: 400 address not allowed
        pods/none: 404 pods "none" not found
        pods/ftp:web:9: 400 invalid pod request "ftp:web:9"
        services/plain: 200 to 10.1.2.3:7
        services/plain:80: 200 to 10.1.2.3:7
        services/plain:81: 503 no service port 81 found for service "plain"
        services/named: 503 no endpoints available for service "named"
        services/named:x: 200 to 10.1.2.3:7
        services/named:80: 200 to 10.1.2.3:7
        services/named:y: 503 no endpoints available for service "named:y"
        services/bare:80: 503 no endpoints available for service "bare:80"
        services/other: 503 no endpoints available for service "other"
        services/far: 503 no endpoints available for service "far"
        services/a:b:c:d: 400 invalid service request "a:b:c:d"
        nodes/good: 503 to 10.1.2.9:10250
        nodes/good:10250: 503 to 10.1.2.9:10250
        nodes/good:9100: 200 to 10.1.2.9:9100
        nodes/here: 400 address not allowed
        nodes/here:9100: 400 address not allowed
        nodes/named: 400 address not allowed
        nodes/none: 404 nodes "none" not found
        nodes/ftp:good:1: 400 invalid node request "ftp:good:1"
    "#]]
    .assert_eq(&told);
}
