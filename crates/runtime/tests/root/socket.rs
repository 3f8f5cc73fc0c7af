//! The runtime on a socket, as crictl and other kubelets see it: calls over gRPC, streams by URL.

use crate::node::Node;
use cri::v1::*;
use cri::{GrpcClient, RuntimeService};
use http::Request;
use std::sync::Arc;
use streaming::client::{self, Via};
use streaming::negotiate::Agreed;
use streaming::{Error, Outcome, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

type Dialled = (hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>, Agreed);

async fn dial(url: &str) -> Result<Dialled, Error> {
    let uri: http::Uri = url.parse().unwrap();
    let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let request = Request::builder().uri(uri.path()).header("host", "localhost").body(()).unwrap();
    client::connect(stream, request, Via::Spdy, &["v4.channel.k8s.io"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn root_over_a_socket() {
    let node = Node::new().await;
    let path = node.dir.path().join("cri.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runtime = Arc::new(node.runtime.clone());
    let serving = tokio::spawn(cri::serve(listener, runtime.clone(), runtime, async {
        let _ = stopped.await;
    }));
    let remote = GrpcClient::new(&format!("unix://{}", path.display())).unwrap();

    let request = RunPodSandboxRequest { config: Some(node.pod("remote")), ..Default::default() };
    let pod = remote.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    let id = node.start(&pod, node.container("main", "sleep 1000")).await;
    let exec = ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), "cat; exit 3".into()],
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    // Nobody listens for streams until somebody says so.
    assert_eq!(remote.exec(exec.clone()).await.unwrap_err().code, cri::Code::Unimplemented);
    node.runtime.serve_streams().await.unwrap();
    let url = remote.exec(exec.clone()).await.unwrap().url;
    let (io, agreed) = dial(&url).await.unwrap();
    let streams = Streams { stdin: true, stdout: true, ..Default::default() };
    let mut command = client::RemoteCommand::open(io, agreed, streams).await.unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut said = String::new();
    command.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
    assert_eq!(command.status.wait().await.unwrap(), Outcome::ExitCode(3));
    // A URL is good once, and nobody guesses one.
    assert!(dial(&url).await.is_err());
    assert!(dial(&format!("{}/exec/nope", &url[..url.find("/exec").unwrap()])).await.is_err());
    let nothing = ExecRequest { stdin: false, stdout: false, ..exec };
    assert_eq!(remote.exec(nothing).await.unwrap_err().code, cri::Code::InvalidArgument);

    drop(remote);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    node.finish().await;
}
