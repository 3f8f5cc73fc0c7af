//! `--egress-selector-config-file`: how connections are made to nodes, pods and services (`cluster`), to webhooks and other
//! API servers (`controlplane`), and to etcd: directly, or through a proxy that is asked to CONNECT, or is konnectivity's.

mod config;
mod konnectivity;

pub use config::Configuration;

use component::dial::join_host_port;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability};
use config::{Connection as Selected, Tcp, Transport as Wanted};
use pki::tls::{Slot, Trust};
use rustls_pki_types::ServerName;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// What a proxy may say before it is asked no more (Go's default for headers).
const LONGEST: usize = 1 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    ControlPlane,
    Etcd,
    Cluster,
}

/// A stream of any kind.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A connection, made whichever way.
pub type Connection = Box<dyn Wire>;

/// The ways that are not direct.
#[derive(Default)]
pub struct Egress {
    proxies: BTreeMap<Purpose, Proxy>,
    /// Those that the file names, the direct ones too.
    named: BTreeSet<Purpose>,
    measures: Option<Measures>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.proxies.keys()).finish()
    }
}

enum Proxy {
    Connect(Place),
    Konnectivity(PathBuf),
}

/// Where a proxy is that is asked to CONNECT.
enum Place {
    Tcp { host: String, port: u16, tls: Option<(TlsConnector, ServerName<'static>)> },
    Uds(PathBuf),
}

/// The way of those who connect for one purpose only; by default the direct one.
#[derive(Debug, Clone, Default)]
pub struct Way(Option<(Arc<Egress>, Purpose)>);

impl Way {
    /// Connects to a host.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Connection> {
        match &self.0 {
            Some((egress, purpose)) => egress.dial(*purpose, host, port).await,
            None => direct(host, port).await,
        }
    }
}

async fn direct(host: &str, port: u16) -> io::Result<Connection> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// `apiserver_egress_dialer_*`.
struct Measures {
    starts: CounterVec,
    durations: HistogramVec,
    failures: CounterVec,
    tunnels: konnectivity::Measures,
}

impl Measures {
    fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            starts: registry.counter_vec(
                alpha(
                    "apiserver_egress_dialer_dial_start_total",
                    "Dial starts, labeled by the protocol (http-connect or grpc) and transport (tcp or uds).",
                ),
                &["protocol", "transport"],
            ),
            durations: registry.histogram_vec(
                alpha(
                    "apiserver_egress_dialer_dial_duration_seconds",
                    "Dial latency histogram in seconds, labeled by the protocol (http-connect or grpc), transport (tcp or uds)",
                ),
                &["protocol", "transport"],
                &[0.005, 0.025, 0.1, 0.5, 2.5, 12.5],
            ),
            failures: registry.counter_vec(
                alpha(
                    "apiserver_egress_dialer_dial_failure_count",
                    "Dial failure count, labeled by the protocol (http-connect or grpc), transport (tcp or uds), and stage (connect or proxy). The stage indicates at which stage the dial failed",
                ),
                &["protocol", "transport", "stage"],
            ),
            tunnels: konnectivity::Measures::new(registry),
        }
    }
}

impl Egress {
    /// The ways of a file; keys and authorities that it names are read.
    pub fn new(configuration: &Configuration, registry: &Registry) -> Result<Self, String> {
        let (mut proxies, mut named) = (BTreeMap::new(), BTreeSet::new());
        for selection in &configuration.egress_selections {
            let purpose = match selection.name.to_lowercase().as_str() {
                "controlplane" => Purpose::ControlPlane,
                "etcd" => Purpose::Etcd,
                _ => Purpose::Cluster,
            };
            named.insert(purpose);
            if let Some(proxy) = Proxy::of(&selection.connection)? {
                proxies.insert(purpose, proxy);
            }
        }
        Ok(Egress { proxies, named, measures: Some(Measures::new(registry)) })
    }

    /// Whether connections for a purpose go through a proxy.
    pub fn has_proxy(&self, purpose: Purpose) -> bool {
        self.proxies.contains_key(&purpose)
    }

    /// The way of connections for a purpose.
    pub fn way(self: &Arc<Self>, purpose: Purpose) -> Way {
        Way(Some((self.clone(), purpose)))
    }

    /// Whether a file says which way connections go.
    pub fn is_configured(&self) -> bool {
        self.measures.is_some()
    }

    /// Whether that file says so for a purpose.
    pub fn names(&self, purpose: Purpose) -> bool {
        self.named.contains(&purpose)
    }

    /// Connects to a host for a purpose.
    pub async fn dial(&self, purpose: Purpose, host: &str, port: u16) -> io::Result<Connection> {
        let (Some(proxy), Some(measures)) = (self.proxies.get(&purpose), &self.measures) else {
            return direct(host, port).await;
        };
        let [protocol, transport] = proxy.labels();
        let start = Instant::now();
        let failed = |stage: &str| measures.failures.with(&[protocol, transport, stage]).inc();
        measures.starts.with(&[protocol, transport]).inc();
        let connection = match proxy {
            Proxy::Konnectivity(path) => {
                let tunnel = konnectivity::Tunnel::open(path, &measures.tunnels).await;
                let dialled = tunnel.inspect_err(|_| failed("connect"))?.dial(join_host_port(host, port));
                dialled.await.inspect_err(|_| failed("proxy"))?
            }
            Proxy::Connect(place) => {
                let mut connection = place.connect().await.inspect_err(|_| failed("connect"))?;
                let asked = connect_through(&mut connection, &place.address(), host, port).await;
                asked.inspect_err(|_| failed("proxy"))?;
                connection
            }
        };
        measures.durations.with(&[protocol, transport]).observe_since(start);
        Ok(connection)
    }
}

impl Proxy {
    fn of(selected: &Selected) -> Result<Option<Self>, String> {
        let is_konnectivity = selected.proxy_protocol == "GRPC";
        Ok(match &selected.transport {
            Some(Wanted { uds: Some(uds), .. }) if is_konnectivity => {
                Some(Proxy::Konnectivity(uds.uds_name.clone()))
            }
            Some(Wanted { uds: Some(uds), .. }) => Some(Proxy::Connect(Place::Uds(uds.uds_name.clone()))),
            Some(Wanted { tcp: Some(tcp), .. }) => Some(Proxy::Connect(Place::over_tcp(tcp)?)),
            _ => None,
        })
    }

    /// The protocol and the transport, as metrics call them.
    fn labels(&self) -> [&'static str; 2] {
        match self {
            Proxy::Connect(Place::Tcp { .. }) => ["http_connect", "tcp"],
            Proxy::Connect(Place::Uds(_)) => ["http_connect", "uds"],
            Proxy::Konnectivity(_) => ["grpc", "uds"],
        }
    }
}

impl Place {
    fn over_tcp(tcp: &Tcp) -> Result<Self, String> {
        let uri: http::Uri = tcp.url.parse().map_err(|error| format!("{}: {error}", tcp.url))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let default = if tcp.tls_config.is_some() { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let Some(files) = &tcp.tls_config else { return Ok(Place::Tcp { host, port, tls: None }) };
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let trust = match files.ca_bundle.as_os_str().is_empty() {
            true => Trust::system(),
            false => Trust::pem(&read(&files.ca_bundle)?),
        };
        let slot = Slot::of_pem(&read(&files.client_cert)?, &read(&files.client_key)?);
        let (trust, slot) = (trust.map_err(|e| e.to_string())?, slot.map_err(|e| e.to_string())?);
        let config = pki::tls::client_config(&trust, Some(slot), &[]).map_err(|e| e.to_string())?;
        let name = if files.server_name.is_empty() { &host } else { &files.server_name };
        let name = ServerName::try_from(name.clone()).map_err(|error| format!("{name}: {error}"))?;
        Ok(Place::Tcp { host, port, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }

    fn address(&self) -> String {
        match self {
            Place::Tcp { host, port, .. } => join_host_port(host, *port),
            Place::Uds(path) => path.display().to_string(),
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Place::Uds(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Place::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(match tls {
                    Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
                    None => Box::new(stream),
                })
            }
        }
    }
}

/// Asks a proxy for a connection to a host. What comes after its answer is the host's.
async fn connect_through(proxy: &mut Connection, address: &str, host: &str, port: u16) -> io::Result<()> {
    let to = join_host_port(host, port);
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    proxy.write_all(request.as_bytes()).await?;
    proxy.flush().await?;
    let unreadable = |why: &str| {
        io::Error::other(format!(
            "reading HTTP response from CONNECT to {to} via proxy {address} failed: {why}"
        ))
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST {
            return Err(unreadable("its header is too long"));
        }
        match proxy.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(unreadable("unexpected EOF"));
            }
            Err(error) => return Err(unreadable(&error.to_string())),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map_or("", |(_, status)| status);
    match status.split(' ').next().and_then(|code| code.parse::<u16>().ok()) {
        Some(200) => Ok(()),
        Some(code) => Err(io::Error::other(format!(
            "proxy error from {address} while dialing {to}, code {code}: {status}"
        ))),
        None => Err(unreadable("malformed HTTP response")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use tokio::net::{TcpListener, UnixListener};

    /// Answers whoever connects with a word.
    async fn host(word: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(word.as_bytes()).await.unwrap();
            }
        });
        port
    }

    /// A proxy's part of one connection: it leads to what it is asked for, unless that is port 1.
    async fn proxy(mut stream: impl Wire) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let to = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
        if to.ends_with(":1") {
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap();
            return;
        }
        let mut upstream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nVia: a test\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
    }

    #[tokio::test]
    async fn connections_go_the_way_of_their_purpose() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("proxy");
        let over_unix = UnixListener::bind(&socket).unwrap();
        let over_tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", over_tcp.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok((stream, _)) = over_unix.accept() => drop(tokio::spawn(proxy(stream))),
                    Ok((stream, _)) = over_tcp.accept() => drop(tokio::spawn(proxy(stream))),
                }
            }
        });
        let text = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
             - {{name: cluster, connection: {{proxyProtocol: HTTPConnect, transport: {{uds: {{udsName: {}}}}}}}}}\n\
             - {{name: controlplane, connection: {{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: '{url}'}}}}}}}}\n\
             - {{name: etcd, connection: {{proxyProtocol: Direct}}}}\n",
            socket.display()
        );
        let registry = Registry::new();
        let egress = Egress::new(&Configuration::parse(&text).unwrap(), &registry).unwrap();
        let port = host("hello").await;
        let mut said = Vec::new();
        for purpose in [Purpose::Cluster, Purpose::ControlPlane, Purpose::Etcd] {
            let mut connection = egress.dial(purpose, "127.0.0.1", port).await.unwrap();
            let mut word = [0; 5];
            connection.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"hello");
            let refused = egress.dial(purpose, "127.0.0.1", 1).await.err().unwrap().to_string();
            said.push(refused.replace(&*socket.to_string_lossy(), "SOCKET").replace(&url[7..], "PROXY"));
        }
        expect![[r#"
            proxy error from SOCKET while dialing 127.0.0.1:1, code 503: 503 Service Unavailable
            proxy error from PROXY while dialing 127.0.0.1:1, code 503: 503 Service Unavailable
            Connection refused (os error 111)"#]]
        .assert_eq(&said.join("\n"));
        let text = registry.render();
        let counted = |line: &&str| line.starts_with("apiserver_egress") && !line.contains("duration");
        expect![[r#"
            apiserver_egress_dialer_dial_failure_count{protocol="http_connect",stage="proxy",transport="tcp"} 1
            apiserver_egress_dialer_dial_failure_count{protocol="http_connect",stage="proxy",transport="uds"} 1
            apiserver_egress_dialer_dial_start_total{protocol="http_connect",transport="tcp"} 2
            apiserver_egress_dialer_dial_start_total{protocol="http_connect",transport="uds"} 2"#]]
        .assert_eq(&text.lines().filter(counted).collect::<Vec<_>>().join("\n"));
    }
}
