//! A proxy of konnectivity's kind on a socket: it dials what it is asked for and copies, and notes what it is told.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "of tests")]

use super::generated::packet::Payload;
use super::generated::proxy_service_server::{ProxyService, ProxyServiceServer};
use super::generated::{CloseDial, CloseResponse, Data, DialResponse, Packet, PacketType};
use futures::stream::BoxStream;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

/// Ports that are not dialled: the proxy gives up, or does not answer.
pub const GIVES_UP: u16 = 2;
pub const SAYS_NOTHING: u16 = 3;

/// What the proxy was told, packet by packet, but for data.
#[derive(Clone, Default)]
pub struct Proxy(Arc<watch::Sender<Vec<String>>>);

type Packets = mpsc::Sender<Result<Packet, Status>>;

impl Proxy {
    /// Begins to listen at a path.
    pub fn listen(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let service = ProxyServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    fn note(&self, what: String) {
        self.0.send_modify(|told| told.push(what));
    }

    /// Waits until it was told this.
    pub async fn told(&self, what: &str) {
        let told = |told: &Vec<String>| told.iter().any(|line| line == what);
        self.0.subscribe().wait_for(told).await.unwrap();
    }

    async fn serve(self, mut packets: Streaming<Packet>, answers: Packets) {
        let mut connections: HashMap<i64, OwnedWriteHalf> = HashMap::new();
        while let Ok(Some(packet)) = packets.message().await {
            match packet.payload.unwrap() {
                Payload::DialRequest(request) => {
                    self.note(format!("DIAL_REQ {} {}", request.protocol, request.address));
                    let port: u16 = request.address.rsplit_once(':').unwrap().1.parse().unwrap();
                    let random = request.random;
                    let answer = match port {
                        SAYS_NOTHING => continue,
                        GIVES_UP => Payload::CloseDial(CloseDial { random }),
                        _ => match TcpStream::connect(&request.address).await {
                            Ok(stream) => {
                                let connect_id = i64::from(port);
                                let (read, write) = stream.into_split();
                                connections.insert(connect_id, write);
                                let payload = DialResponse { error: String::new(), connect_id, random };
                                say(&answers, Payload::DialResponse(payload)).await;
                                tokio::spawn(copy(read, connect_id, answers.clone()));
                                continue;
                            }
                            Err(error) => {
                                let error = component::dial::failed("tcp", &request.address, &error);
                                Payload::DialResponse(DialResponse { error, connect_id: 0, random })
                            }
                        },
                    };
                    say(&answers, answer).await;
                }
                Payload::Data(Data { connect_id, data, .. }) => {
                    // A host that has gone says so in the other direction.
                    let _ = connections.get_mut(&connect_id).unwrap().write_all(&data).await;
                }
                Payload::CloseRequest(request) => {
                    self.note("CLOSE_REQ".into());
                    drop(connections.remove(&request.connect_id));
                }
                Payload::CloseDial(_) => self.note("DIAL_CLS".into()),
                other => panic!("{other:?} is nothing that a proxy is told"),
            }
        }
        self.note("END".into());
    }
}

/// Hands on what a host says. The word `die` makes the proxy lose the tunnel.
async fn copy(mut read: tokio::net::tcp::OwnedReadHalf, connect_id: i64, answers: Packets) {
    let mut buffer = vec![0; 50_000];
    loop {
        let count = read.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            let closed = CloseResponse { error: String::new(), connect_id };
            return say(&answers, Payload::CloseResponse(closed)).await;
        }
        if buffer.starts_with(b"die") {
            let _ = answers.send(Err(Status::unavailable("the proxy dies"))).await;
            return;
        }
        let data = Data { connect_id, error: String::new(), data: buffer[..count].to_vec() };
        say(&answers, Payload::Data(data)).await;
    }
}

async fn say(answers: &Packets, payload: Payload) {
    let kind = match payload {
        Payload::DialResponse(_) => PacketType::DialRsp,
        Payload::CloseResponse(_) => PacketType::CloseRsp,
        Payload::CloseDial(_) => PacketType::DialCls,
        _ => PacketType::Data,
    };
    let _ = answers.send(Ok(Packet { r#type: kind.into(), payload: Some(payload) })).await;
}

#[tonic::async_trait]
impl ProxyService for Proxy {
    type ProxyStream = BoxStream<'static, Result<Packet, Status>>;

    async fn proxy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::ProxyStream>, Status> {
        let (answers, mut queue) = mpsc::channel(1);
        tokio::spawn(self.clone().serve(request.into_inner(), answers));
        Ok(Response::new(Box::pin(futures::stream::poll_fn(move |cx| queue.poll_recv(cx)))))
    }
}
