//! Sessions over loopback: our client, our server, our proxy between them, and somebody else's WebSocket.
#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use streaming::{
    Endpoint, Error, Outcome, RemoteCommand, Session, Streams, TerminalSize,
    client::{self, Via, connect},
    negotiate as n,
    proxy::{Proxied, proxy_upgrade},
    upgrade,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

type Body = BoxBody<Bytes, hyper::Error>;

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|e: Infallible| match e {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// What a command's path asks it to do.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    /// Sends stdin back, then exits with 7.
    Echo,
    /// Writes a megabyte and succeeds at once, reading nothing.
    Burst,
    /// Says the first terminal size.
    Size,
    /// Writes until it cannot.
    Endless,
}

async fn run(mut command: RemoteCommand, act: Act) -> Result<(), Error> {
    let mut stdout = command.stdout.take().unwrap();
    match act {
        Act::Echo => {
            let mut stdin = command.stdin.take().unwrap();
            if let Some(stderr) = &mut command.stderr {
                stderr.write_all(b"warning").await?;
            }
            tokio::io::copy(&mut stdin, &mut stdout).await?;
            drop(stdout);
            command.finish(Outcome::ExitCode(7)).await
        }
        Act::Burst => {
            stdout.write_all(&pattern(1 << 20)).await?;
            drop(stdout);
            command.finish(Outcome::Success).await
        }
        Act::Size => {
            let size = match &mut command.resizes {
                Some(resizes) => resizes.next().await.unwrap(),
                // The oldest protocols have no sizes.
                None => TerminalSize { width: 80, height: 24 },
            };
            stdout.write_all(format!("{}x{}", size.width, size.height).as_bytes()).await?;
            drop(stdout);
            command.finish(Outcome::Failed("tired".into())).await
        }
        Act::Endless => {
            let gone = command.gone();
            let mut written = 0u64;
            // On the paused clock this much time passes only when nobody has anything left to do.
            while let Ok(n) = timeout(Duration::from_secs(5), stdout.write(&[0; 4096])).await {
                written += n? as u64;
            }
            assert!(written > 0 && written < 2 << 20, "{written} bytes that nobody reads are kept");
            // The client leaves when it hears that we are stuck.
            STUCK.notify_one();
            gone.cancelled().await;
            Ok(())
        }
    }
}

/// The endless command is stuck.
static STUCK: Notify = Notify::const_new();

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i / 7 + i) as u8).collect()
}

/// Serves one connection; the query says which streams.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    done: tokio::sync::mpsc::UnboundedSender<Result<(), String>>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let done = done.clone();
        async move {
            let path = request.uri().path().to_owned();
            let query = request.uri().query().unwrap_or_default().to_owned();
            if let Some(port) = path.strip_prefix("/proxy/") {
                return Ok::<_, Infallible>(proxied(&mut request, port, &query).await);
            }
            if path == "/redirect" {
                return Ok(text(StatusCode::FOUND, "elsewhere"));
            }
            let has = |s: &str| query.split('&').any(|q| q == s);
            let act = match path.as_str() {
                "/echo" => Some(Act::Echo),
                "/burst" => Some(Act::Burst),
                "/size" => Some(Act::Size),
                "/endless" => Some(Act::Endless),
                _ => None,
            };
            let endpoint = match act {
                Some(_) => Endpoint::RemoteCommand(Streams {
                    stdin: has("stdin"),
                    stdout: true,
                    stderr: has("stderr"),
                    tty: has("tty"),
                }),
                None => Endpoint::PortForward { ports: streaming::ports(has("ports").then_some("80,81")) },
            };
            let (response, session) = match upgrade(&mut request, endpoint) {
                Ok(both) => both,
                Err(refusal) => return Ok(text(refusal.status, &refusal.message)),
            };
            tokio::spawn(async move {
                let result = match session.await {
                    Ok(Session::RemoteCommand(command)) => run(command, act.unwrap()).await,
                    Ok(Session::PortForward(forward)) => forward_echo(forward).await,
                    Err(e) => Err(e),
                };
                drop(done.send(result.map_err(|e| format!("{e:?}"))));
            });
            Ok(response.map(|()| text(StatusCode::OK, "").into_body()))
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(connection.with_upgrades().await);
}

/// Echoes every connection; port 81 is closed.
async fn forward_echo(mut ports: streaming::PortForward) -> Result<(), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(forward) = ports.next().await {
        tasks.spawn(async move {
            if forward.port == 81 {
                return forward.fail("error forwarding port 81 to pod a, uid : connection refused").await;
            }
            let (mut read, mut write) = tokio::io::split(forward);
            drop(tokio::io::copy(&mut read, &mut write).await);
        });
    }
    while tasks.join_next().await.is_some() {}
    drop(ports.finish().await);
    Ok(())
}

async fn proxied(request: &mut Request<Incoming>, port: &str, query: &str) -> Response<Body> {
    let (port, path) = port.split_once('/').unwrap();
    let backend = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await.unwrap();
    let head = Request::get(format!("/{path}?{query}")).header("host", "backend").body(()).unwrap();
    match proxy_upgrade(request, head, backend).await.unwrap() {
        Proxied::Switched(response, tunnel) => {
            tokio::spawn(tunnel.run());
            response.map(|()| text(StatusCode::OK, "").into_body())
        }
        Proxied::Refused(response) => response.map(|body| body.boxed()),
        Proxied::Redirected => text(StatusCode::BAD_GATEWAY, "redirect"),
    }
}

/// A server; its port, and how each session ended there.
async fn server() -> (u16, tokio::sync::mpsc::UnboundedReceiver<Result<(), String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (done, results) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, done.clone()));
        }
    });
    (port, results)
}

async fn dial(
    port: u16,
    path: &str,
    via: Via,
    protocol: &'static str,
) -> Result<(TokioIo<hyper::upgrade::Upgraded>, n::Agreed), Error> {
    let request = Request::get(path).header("host", "test").body(()).unwrap();
    connect(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), request, via, &[protocol]).await
}

const ALL: [(Via, &str); 9] = [
    (Via::WebSocket, n::V5),
    (Via::WebSocket, n::V4),
    (Via::WebSocket, n::V4_BASE64),
    (Via::WebSocket, n::V1),
    (Via::WebSocket, n::V1_BASE64),
    (Via::Spdy, n::V4),
    (Via::Spdy, n::V3),
    (Via::Spdy, n::V2),
    (Via::Spdy, n::V1),
];

async fn read(input: Option<streaming::Input>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut input) = input {
        input.read_to_end(&mut all).await.unwrap();
    }
    all
}

fn limited(f: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(20), f).await.expect("in time") });
}

#[test]
fn commands_in_every_protocol_directly_and_through_a_proxy() {
    limited(async {
        let (backend, mut results) = server().await;
        let (front, _results) = server().await;
        let data = Arc::new(pattern(300_000));
        for (via, protocol) in ALL {
            for (port, prefix) in [(backend, String::new()), (front, format!("/proxy/{backend}"))] {
                let what = format!("{via:?} {protocol:?} {prefix}");
                let open = async |path: &str, streams: Streams| {
                    let (io, agreed) =
                        dial(port, &format!("{prefix}{path}"), via, protocol).await.expect(&what);
                    client::RemoteCommand::open(io, agreed, streams).await.expect(&what)
                };
                // Everything, then the status, although the server closes at once and stdin is never read.
                let mut command =
                    open("/burst?stdin", Streams { stdin: true, stdout: true, ..Streams::default() }).await;
                let mut stdin = command.stdin.take().unwrap();
                let flood = tokio::spawn(async move { while stdin.write_all(&[0; 4096]).await.is_ok() {} });
                let out = tokio::spawn(read(command.stdout.take()));
                assert_eq!(command.status.wait().await.expect(&what), Outcome::Success, "{what}");
                assert!(out.await.unwrap() == pattern(1 << 20), "{what}");
                flood.await.unwrap();
                results.recv().await.unwrap().expect(&what);

                let command =
                    open("/size?tty", Streams { stdout: true, tty: true, ..Streams::default() }).await;
                if let Some(mut resize) = command.resize {
                    resize.set(TerminalSize { width: 80, height: 24 }).await.unwrap();
                }
                let out = tokio::spawn(read(command.stdout));
                let outcome = command.status.wait().await.expect(&what);
                assert_eq!(out.await.unwrap(), b"80x24", "{what}");
                let said = match outcome {
                    Outcome::Status { message, .. } | Outcome::Failed(message) => message,
                    other => panic!("{what}: {other:?}"),
                };
                assert_eq!(said, "Internal error occurred: tired", "{what}");
                results.recv().await.unwrap().expect(&what);

                // Only v5 and SPDY can end stdin.
                if via == Via::WebSocket && protocol != n::V5 {
                    continue;
                }
                let mut command = open(
                    "/echo?stdin&stderr",
                    Streams { stdin: true, stdout: true, stderr: true, tty: false },
                )
                .await;
                let (mut stdin, sent) = (command.stdin.take().unwrap(), data.clone());
                tokio::spawn(async move { stdin.write_all(&sent).await.unwrap() });
                let out = tokio::spawn(read(command.stdout.take()));
                let err = tokio::spawn(read(command.stderr.take()));
                let outcome = command.status.wait().await.expect(&what);
                match (via, protocol) {
                    (Via::WebSocket, _) | (_, n::V4) => assert_eq!(outcome, Outcome::ExitCode(7), "{what}"),
                    _ => assert!(matches!(outcome, Outcome::Failed(_)), "{what}: {outcome:?}"),
                }
                assert!(out.await.unwrap() == *data, "{what}");
                assert_eq!(err.await.unwrap(), b"warning", "{what}");
                results.recv().await.unwrap().expect(&what);
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_stops_the_writer_and_one_that_leaves_ends_it() {
    for (via, protocol) in [(Via::WebSocket, n::V5), (Via::Spdy, n::V4)] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(serve(far, done));
        let request = Request::get("/endless?stderr").header("host", "test").body(()).unwrap();
        let (io, agreed) = connect(near, request, via, &[protocol]).await.unwrap();
        let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
        let command = client::RemoteCommand::open(io, agreed, streams).await.unwrap();
        STUCK.notified().await;
        drop(command);
        results.recv().await.unwrap().unwrap();
    }
}

#[test]
fn forwarded_ports() {
    limited(async {
        let (backend, mut results) = server().await;
        let (front, _results) = server().await;
        let data = Arc::new(pattern(500_000));
        for (via, protocol) in [(Via::Spdy, n::PORT_FORWARD), (Via::WebSocket, n::TUNNELED_PORT_FORWARD)] {
            for (port, path) in [(backend, "/ports".to_owned()), (front, format!("/proxy/{backend}/ports"))] {
                let (io, agreed) = dial(port, &path, via, protocol).await.unwrap();
                let mut ports = client::PortForward::open(io, agreed);
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..20 {
                    let (forward, errors) = ports.forward(80).await.unwrap();
                    let data = data.clone();
                    tasks.spawn(async move {
                        let (mut read, mut write) = tokio::io::split(forward);
                        let sent = data.clone();
                        let sender = tokio::spawn(async move {
                            write.write_all(&sent).await.unwrap();
                            write.shutdown().await.unwrap();
                            write
                        });
                        let mut got = Vec::new();
                        read.read_to_end(&mut got).await.unwrap();
                        assert!(got == *data);
                        sender.await.unwrap();
                        assert_eq!(errors.wait().await.unwrap(), None);
                    });
                }
                let (mut forward, errors) = ports.forward(81).await.unwrap();
                let message = errors.wait().await.unwrap().unwrap();
                assert_eq!(message, "error forwarding port 81 to pod a, uid : connection refused");
                assert_eq!(forward.read(&mut [0]).await.unwrap(), 0);
                while let Some(result) = tasks.join_next().await {
                    result.unwrap();
                }
                drop(forward);
                ports.close().await.unwrap();
                results.recv().await.unwrap().unwrap();
            }
        }
    });
}

#[test]
fn somebody_elses_websocket() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    limited(async {
        let (port, mut results) = server().await;
        let dial = async |path: &str, protocol: &str| {
            let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio_tungstenite::client_async(request, stream).await.unwrap().0
        };
        let mut socket = dial("/echo?stdin", n::V5).await;
        let big = [&[0][..], &pattern(200_000)].concat();
        socket.send(Message::Ping(Bytes::from_static(b"hi"))).await.unwrap();
        socket.send(Message::Binary(big.clone().into())).await.unwrap();
        socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
        let (mut out, mut status, mut pong) = (Vec::new(), Vec::new(), false);
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(data) if data[0] == 1 => out.extend_from_slice(&data[1..]),
                Message::Binary(data) if data[0] == 3 => status.extend_from_slice(&data[1..]),
                Message::Pong(data) => pong = data == "hi",
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 1000);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(pong && out == big[1..]);
        assert!(String::from_utf8(status).unwrap().contains("NonZeroExitCode"));
        drop(socket);
        results.recv().await.unwrap().unwrap();

        // Ports as plain channels: each begins with its number.
        let mut socket = dial("/ports?ports", n::V4).await;
        let mut seen = std::collections::BTreeMap::<u8, Vec<u8>>::new();
        socket.send(Message::Binary(Bytes::from_static(b"\0abc"))).await.unwrap();
        while seen.get(&0).map_or(0, Vec::len) < 5 || seen.get(&3).map_or(0, Vec::len) < 10 {
            if let Message::Binary(data) = socket.next().await.unwrap().unwrap() {
                seen.entry(data[0]).or_default().extend_from_slice(&data[1..]);
            }
        }
        assert_eq!(seen[&0], b"\x50\0abc");
        assert_eq!(seen[&1], b"\x50\0");
        assert!(seen[&3].starts_with(b"\x51\0error forwarding port 81"));
        socket.close(None).await.unwrap();
    });
}

#[test]
fn refusals() {
    limited(async {
        let (backend, _results) = server().await;
        let (front, _results) = server().await;
        let check =
            async |port: u16, path: String, via: Via, protocol: &'static str, status: u16, text: &str| {
                match dial(port, &path, via, protocol).await {
                    Err(Error::NotUpgraded { status: got, body }) => {
                        assert_eq!((got.as_u16(), body.contains(text)), (status, true), "{body}");
                    }
                    other => panic!("{:?}", other.map(|_| ())),
                }
            };
        check(
            backend,
            "/echo".into(),
            Via::WebSocket,
            "v9",
            403,
            "requested protocol(s) are not supported: [v9]",
        )
        .await;
        check(backend, "/echo".into(), Via::Spdy, "v9", 403, "client supports [v9]").await;
        check(backend, "/ports".into(), Via::WebSocket, n::V4, 400, "query parameter \"port\" is required")
            .await;
        let through = |path: &str| format!("/proxy/{backend}{path}");
        check(front, through("/echo"), Via::Spdy, "v9", 403, "client supports [v9]").await;
        check(front, through("/redirect"), Via::Spdy, n::V4, 502, "redirect").await;
    });
}

#[test]
fn a_session_survives_nonsense() {
    // Bytes that are no protocol end the session, in bounded time, without a panic and without hanging the server.
    limited(async {
        let (port, mut results) = server().await;
        for (via, protocol) in [(Via::WebSocket, n::V5), (Via::Spdy, n::V4)] {
            for seed in 0..40u32 {
                let (mut io, _) = dial(port, "/echo?stdin", via, protocol).await.unwrap();
                let noise: Vec<u8> = (0..4000u32)
                    .map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> (seed % 24)) as u8)
                    .collect();
                drop(io.write_all(&noise).await);
                drop(io.shutdown().await);
                drop(io);
                // Nonsense that happened to end a stream in order may finish well.
                let _ = results.recv().await.unwrap();
            }
        }
    });
}
