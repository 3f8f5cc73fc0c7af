//! Whether the kubelet lives: for anybody on the machine on a port of its own, with more to see for those who may.

use crate::{Node, container};
use apimachinery::json;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok(format!("{} {body}", head.split(' ').nth(1).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_says_that_it_lives() {
    static ADDRESS: std::sync::OnceLock<SocketAddr> = std::sync::OnceLock::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    ADDRESS.set(address).unwrap();
    // Somebody has the port: the kubelet goes on without, and takes it when it is free.
    let mut node = Node::with(|config| config.healthz = *ADDRESS.get().unwrap());
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    drop(taken);
    let waiting = async {
        loop {
            match get(address, "/healthz") {
                Ok(answer) => return answer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let first = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    assert_eq!(first.expect("the port is taken when it is free"), "200 ok");
    let ping = "200 [+]ping ok\nhealthz check passed\n";
    assert_eq!(get(address, "/healthz?verbose").unwrap(), ping);
    assert_eq!(get(address, "/healthz/ping").unwrap(), "200 ok");
    assert_eq!(get(address, "/metrics").unwrap(), "404 404 page not found\n");

    // The kubelet's own server looks closer, and tells only those who may know.
    assert_eq!(node.get(None, "/healthz").await.0, 401);
    let all = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n";
    assert_eq!(node.get(Some("admin"), "/healthz?verbose").await, (200, all.into()));
    assert_eq!(node.get(Some("admin"), "/healthz/syncloop").await, (200, "ok".into()));
    assert_eq!(node.get(Some("admin"), "/healthz/nothing").await.0, 404);
    let (_, slis) = node.get(Some("admin"), "/metrics/slis").await;
    let counted = "kubernetes_healthchecks_total{name=\"syncloop\",status=\"success\",type=\"healthz\"} 1";
    assert!(slis.lines().any(|line| line == counted), "{slis}");
    node.stop().await;
    assert!(get(address, "/healthz").is_err());
}
