//! The flags of connections: how clients are listened to, what is agreed to with them, and what browsers are told.

use anyhow::{Result, bail};
use apiserver::browsers::Browsers;
use apiserver::serve::Protocol;
use pki::handshake::Handshake;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};

/// As many as clients take for granted (golang/net, b225e7ca).
const STREAMS: u32 = 100;
/// How many connections wait to be accepted, as far as the kernel lets them.
const BACKLOG: u32 = 1024;

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConnectionFlags {
    /// Comma-separated list of cipher suites for the server, by Go's names; those of TLS 1.3 are always agreed to.
    #[arg(long, value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// Minimum TLS version supported: VersionTLS12, VersionTLS13.
    #[arg(long, default_value = "")]
    tls_min_version: String,
    /// Comma-separated list of numeric CurveID values, as the allowed key exchange mechanisms for the server; their order is
    /// ignored: 23 (P-256), 24 (P-384), 29 (X25519), 4587 (SecP256r1MLKEM768), 4588 (X25519MLKEM768).
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    tls_curve_preferences: Vec<i32>,
    /// If true, HTTP2 serving will be disabled.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    disable_http2_serving: bool,
    /// The limit that the server gives to clients for the maximum number of streams in an HTTP/2 connection. Zero means 100.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    http2_max_streams_per_connection: i64,
    /// If true, SO_REUSEADDR will be used when binding the port; it is used always, as by every program of Go's.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    permit_address_sharing: bool,
    /// If true, SO_REUSEPORT will be used when binding the port, which allows more than one instance to bind on the same
    /// address and port.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    permit_port_sharing: bool,
    /// List of allowed origins for CORS, comma separated. An allowed origin can be a regular expression, anchored to the start
    /// with '^' or '//', and to the end with '$' or ':'. If this list is empty CORS will not be enabled.
    #[arg(long, value_delimiter = ',')]
    cors_allowed_origins: Vec<String>,
    /// List of directives for HSTS, comma separated. If this list is empty, then HSTS directives will not be added. Example:
    /// 'max-age=31536000,includeSubDomains,preload'.
    #[arg(long, value_delimiter = ',')]
    strict_transport_security_directives: Vec<String>,
    /// If non-zero, throttle each user connection to this number of bytes/sec. Currently only applies to long-running
    /// requests.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    max_connection_bytes_per_sec: i64,
    /// The hostname to use when generating externalized URLs for this master (e.g. OpenID Discovery) [default: the
    /// advertised address].
    #[arg(long)]
    pub external_hostname: Option<String>,
}

/// What they come to.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub handshake: Handshake,
    pub protocol: Protocol,
    pub browsers: Browsers,
    pub external_hostname: Option<String>,
    /// Of those that are handed through; zero for as many as can be.
    pub bytes_per_second: u64,
}

impl ConnectionFlags {
    pub(crate) fn connections(&self) -> Result<Connections> {
        let http2 = !self.disable_http2_serving;
        let (suites, curves) = (&self.tls_cipher_suites, &self.tls_curve_preferences);
        let browsers = Browsers::new(&self.cors_allowed_origins, &self.strict_transport_security_directives);
        Ok(Connections {
            handshake: Handshake::parse(suites, &self.tls_min_version, curves, http2)?,
            protocol: if http2 { Protocol::Http2 { streams: self.streams()? } } else { Protocol::Http1 },
            browsers: browsers.map_err(anyhow::Error::msg)?,
            bytes_per_second: u64::try_from(self.max_connection_bytes_per_sec).unwrap_or(0),
            external_hostname: self.external_hostname.clone().filter(|name| !name.is_empty()),
        })
    }

    fn streams(&self) -> Result<u32> {
        match u32::try_from(self.http2_max_streams_per_connection.max(0)) {
            Ok(0) => Ok(STREAMS),
            Ok(streams) => Ok(streams),
            Err(_) => bail!("--http2-max-streams-per-connection is more than HTTP/2 can count"),
        }
    }

    /// Listens on an address, alone or among others.
    pub(crate) fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if self.permit_port_sharing {
            socket.set_reuseport(true)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }
}
