//! Connections to the members of a cluster, and which of them is asked.
//!
//! Watches have connections of their own: beside large ranges they would starve. Every request asks for a member that
//! has a leader, so that one in a minority says so at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::generated::kv_client::KvClient;
use super::generated::lease_client::LeaseClient;
use super::generated::maintenance_client::MaintenanceClient;
use super::generated::watch_client::WatchClient;

/// How long one member is given for an answer before the next is asked.
const ATTEMPT: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(1);
/// etcd refuses clients that ping more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// An endpoint that is none.
#[derive(Debug, thiserror::Error)]
#[error("the etcd endpoint {url:?} is not of the form http[s]://host:port: {detail}")]
pub struct BadEndpoint {
    url: String,
    detail: String,
}

/// One member.
pub(super) struct Member {
    pub(super) url: String,
    requests: Channel,
    watches: Channel,
}

/// All members that were named.
pub(super) struct Cluster {
    members: Vec<Member>,
    /// The member that is asked.
    current: AtomicUsize,
}

impl Cluster {
    /// Connects lazily; `tls` is used for https endpoints.
    pub(super) fn new(
        urls: &[String],
        tls: Option<Arc<rustls::ClientConfig>>,
        dial: Option<Dial>,
    ) -> Result<Self, BadEndpoint> {
        let member = |url: &String| Member::new(url, tls.clone(), dial.clone());
        let members = urls.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(BadEndpoint { url: String::new(), detail: "there is none".into() });
        }
        Ok(Self { members, current: AtomicUsize::new(0) })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member that is asked at present.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    pub(super) fn member(&self, index: usize) -> &Member {
        &self.members[index % self.members.len()]
    }

    /// One attempt at the current member; when it fails as a member fails, the next one is current.
    pub(super) async fn attempt<T, F>(&self, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let index = self.current.load(Ordering::Relaxed);
        let answer = tokio::time::timeout(ATTEMPT, call(self.member(index).requests.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the member did not answer")));
        if let Err(status) = &answer
            && super::error::is_members(status)
        {
            // Of many that fail at once, one moves on.
            let _ = self.current.compare_exchange(index, index + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }
}

impl Member {
    fn new(
        url: &str,
        tls: Option<Arc<rustls::ClientConfig>>,
        dial: Option<Dial>,
    ) -> Result<Self, BadEndpoint> {
        let bad = |detail: String| BadEndpoint { url: url.to_owned(), detail };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
        let host = uri.host().ok_or_else(|| bad("it names no host".into()))?.trim_matches(['[', ']']);
        let address = (host.to_owned(), uri.port_u16().unwrap_or(2379));
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let config = tls.ok_or_else(|| bad("https without a certificate authority".into()))?;
                let name = ServerName::try_from(host.to_owned()).map_err(|error| bad(error.to_string()))?;
                Some((TlsConnector::from(config), name))
            }
            _ => return Err(bad("its scheme is neither http nor https".into())),
        };
        // The connector makes the TLS itself: tonic is told of a plain connection.
        let plain = format!("http://{}", uri.authority().map_or(host, |authority| authority.as_str()));
        let channel = || -> Result<Channel, BadEndpoint> {
            let endpoint = Endpoint::from_shared(plain.clone())
                .map_err(|error| bad(error.to_string()))?
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_TIMEOUT)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let (address, tls, dial) = (address.clone(), tls.clone(), dial.clone());
            let connector =
                tower::service_fn(move |_: Uri| connect(address.clone(), tls.clone(), dial.clone()));
            Ok(endpoint.connect_with_connector_lazy(connector))
        };
        Ok(Self { url: url.to_owned(), requests: channel()?, watches: channel()? })
    }

    pub(super) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.watches.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(super) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.requests.clone())
    }
}

type Tls = Option<(TlsConnector, ServerName<'static>)>;

/// A connection, encrypted or not.
pub trait Wire: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to a host and port.
pub type Dial = Arc<dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Box<dyn Wire>>> + Send + Sync>;

async fn connect(
    (host, port): (String, u16),
    tls: Tls,
    dial: Option<Dial>,
) -> std::io::Result<TokioIo<Box<dyn Wire>>> {
    let stream: Box<dyn Wire> = match dial {
        Some(dial) => dial(host, port).await?,
        None => {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    Ok(TokioIo::new(match tls {
        Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
        None => stream,
    }))
}

pub(super) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

pub(super) fn lease(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel)
}

/// A request that only a member with a leader answers.
pub(super) fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}
