//! How fast a connection goes that is handed through: the real binary, before a pod that sends what it can.
#![allow(clippy::unwrap_used)]

use apimachinery::json;
use apimachinery::value::Value;
use bytes::Bytes;
use http::{HeaderMap, Method};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};

const RATE: u64 = 20_000;
const SENT: usize = 30_000;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A head of HTTP/1.1, up to its empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_keep_the_pace_of_the_flag() {
    pki::tls::install_provider();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // A way to pods, at whose end one stands at once.
    let way = UnixListener::bind(at("way")).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = way.accept().await.unwrap();
        assert!(head(&mut stream).await.starts_with("CONNECT 10.1.2.3:80 "));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(head(&mut stream).await.starts_with("GET /stream "));
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        stream.write_all(&[7; SENT]).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let egress = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": {
            "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": at("way")}},
        }}],
    });
    std::fs::write(at("egress"), egress.to_string()).unwrap();
    std::fs::write(at("tokens"), "admin,admin,1,system:masters\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flag = |name: &str, file: &str| format!("--{name}={}", at(file).display());
    let mut server = Command::new(env!("CARGO_BIN_EXE_tiphys"))
        .args(["server", "--no-node", "--node-ip=127.0.0.1", "--node-name=test", "--bind-address=127.0.0.1"])
        .args([format!("--secure-port={port}"), format!("--max-connection-bytes-per-sec={RATE}")])
        .args([flag("data-dir", "data"), flag("token-auth-file", "tokens")])
        .arg(flag("egress-selector-config-file", "egress"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let _server = Running(server);
    let ready = tokio::task::spawn_blocking(move || {
        let ready = lines.any(|line| line.contains("the API server is ready"));
        std::thread::spawn(move || lines.for_each(drop));
        ready
    });
    assert!(ready.await.unwrap());

    let remote = apiserver::remote::Remote::new(&pki::tls::Trust::Anyone).unwrap();
    let ask = async |method: Method, path: &str, media: &str, body: Value| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", media.parse().unwrap());
        headers.insert("authorization", "Bearer admin".parse().unwrap());
        let url = format!("https://127.0.0.1:{port}/api/v1/namespaces/default/{path}");
        let body = Bytes::from(body.to_string());
        let answer = remote.call(method, &url, headers, body, Duration::from_secs(30)).await.unwrap();
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tester"}});
    ask(Method::POST, "serviceaccounts", "application/json", account).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"serviceAccountName": "tester", "containers": [{"name": "a", "image": "a"}]},
    });
    ask(Method::POST, "pods", "application/json", pod).await;
    let status = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}});
    ask(Method::PATCH, "pods/web/status", "application/merge-patch+json", status).await;

    let tls = pki::tls::client_config(&pki::tls::Trust::Anyone, None, &[b"http/1.1"]).unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let request = "GET /api/v1/namespaces/default/pods/web:80/proxy/stream HTTP/1.1\r\nHost: a\r\n\
        Authorization: Bearer admin\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n";
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut came = vec![0; SENT];
    stream.read_exact(&mut came).await.unwrap();
    assert_eq!(came, [7; SENT]);
    // The last part is on its way as soon as those before it have had their time.
    let least =
        Duration::from_secs_f64((SENT as u64 - RATE / 10) as f64 / RATE as f64) - Duration::from_millis(100);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}
