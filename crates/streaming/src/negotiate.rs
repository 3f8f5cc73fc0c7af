//! Who speaks what. A request to upgrade names an upgrade (WebSocket or SPDY/3.1) and sub-protocols, the answer picks
//! the first that this end knows. A refusal carries upstream's status and words; making it a `Status` is the caller's.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

use crate::ws::Codec;

/// Where SPDY clients name sub-protocols.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

pub const V1: &str = "channel.k8s.io";
pub const V2: &str = "v2.channel.k8s.io";
pub const V3: &str = "v3.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";
pub const V5: &str = "v5.channel.k8s.io";
pub const V1_BASE64: &str = "base64.channel.k8s.io";
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
pub const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY inside WebSocket messages.
pub const TUNNELED_PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";

/// What exec and attach speak over WebSocket; the empty one is "none named".
pub(crate) const EXEC_WEBSOCKET: &[&str] = &["", V1, V1_BASE64, V4, V4_BASE64, V5];
/// What exec and attach speak over SPDY.
pub(crate) const EXEC_SPDY: &[&str] = &[V4, V3, V2, V1];
/// What port-forward speaks over WebSocket.
pub(crate) const FORWARD_WEBSOCKET: &[&str] = &["", TUNNELED_PORT_FORWARD, V4, V4_BASE64];
/// What port-forward speaks over SPDY.
pub(crate) const FORWARD_SPDY: &[&str] = &[PORT_FORWARD];

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    WebSocket(&'static str),
    Spdy(&'static str),
}

impl Agreed {
    /// Whether the error channel carries a `Status` in JSON, rather than a message or nothing.
    pub(crate) fn has_status(self) -> bool {
        matches!(self, Agreed::WebSocket(V4 | V4_BASE64 | V5) | Agreed::Spdy(V4))
    }

    pub(crate) fn can_resize(self) -> bool {
        !matches!(self, Agreed::Spdy(V1 | V2))
    }

    pub(crate) fn codec(self) -> Codec {
        match self {
            Agreed::WebSocket(V5) => Codec::BinaryWithClose,
            Agreed::WebSocket(V1_BASE64 | V4_BASE64) => Codec::Base64,
            _ => Codec::Binary,
        }
    }
}

/// Why a request is not upgraded.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
    /// To be added to the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Refusal {
        Refusal { status, message, headers: Vec::new() }
    }
}

/// Whether a request asks for any upgrade.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && headers.contains_key(UPGRADE)
}

/// Whether a request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

/// Whether a WebSocket client names a sub-protocol among those that it speaks.
pub fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    is_websocket(headers) && tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|named| named == protocol)
}

/// What client and server both speak, and the 101 that says so.
pub(crate) fn answer(
    headers: &HeaderMap,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> Result<(Agreed, Response<()>), Refusal> {
    if is_websocket(headers) {
        return answer_websocket(headers, websocket);
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, SPDY) {
        let message = "unable to upgrade: missing upgrade headers in request";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message.into()));
    }
    if !headers.contains_key(PROTOCOL_VERSION) {
        let message = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers",
            headers.keys_len()
        );
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let wanted: Vec<&str> = tokens(headers, &PROTOCOL_VERSION).collect();
    let Some(chosen) = choose(&wanted, spdy) else {
        let mut refusal = Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                wanted.join(" "),
                spdy.join(" ")
            ),
        );
        for protocol in spdy {
            refusal.headers.push((ACCEPTED_VERSIONS, HeaderValue::from_static(protocol)));
        }
        return Err(refusal);
    };
    let mut response = switching(SPDY);
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(chosen));
    Ok((Agreed::Spdy(chosen), response))
}

pub(crate) fn answer_websocket(
    headers: &HeaderMap,
    known: &[&'static str],
) -> Result<(Agreed, Response<()>), Refusal> {
    let bad = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, message.into());
    if !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
        let mut refusal = bad("missing or bad WebSocket Version");
        refusal.headers.push((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        return Err(refusal);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|k| !k.is_empty());
    let key = key.ok_or_else(|| bad("mismatch challenge/response"))?;
    let wanted: Vec<&str> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let chosen = if wanted.is_empty() { choose(&[""], known) } else { choose(&wanted, known) };
    let Some(chosen) = chosen else {
        let (wanted, known) = (wanted.join(" "), known.join(" "));
        let message = format!("requested protocol(s) are not supported: [{wanted}]; supports [{known}]");
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    };
    let mut response = switching("websocket");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept(key.as_bytes()));
    if !chosen.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    Ok((Agreed::WebSocket(chosen), response))
}

/// The client's order decides.
fn choose(wanted: &[&str], known: &[&'static str]) -> Option<&'static str> {
    wanted.iter().find_map(|w| known.iter().find(|k| *k == w)).copied()
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The proof that the server read the client's key (RFC 6455 §4.2.2).
pub(crate) fn accept(key: &[u8]) -> HeaderValue {
    let salted = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &salted));
    HeaderValue::from_str(&proof).expect("base64 is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreements() {
        let check = |lines: &[(&str, &str)], want: &str| {
            let headers: HeaderMap = lines
                .iter()
                .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap()))
                .collect();
            let got = match answer(&headers, EXEC_WEBSOCKET, EXEC_SPDY) {
                Ok((agreed, _)) => format!("{agreed:?}"),
                Err(refusal) => format!("{} {}", refusal.status.as_u16(), refusal.message),
            };
            assert_eq!(got, want);
        };
        let ws = |protocols: &'static str| {
            [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-protocol", protocols),
            ]
        };
        check(&ws("v5.channel.k8s.io, v4.channel.k8s.io"), r#"WebSocket("v5.channel.k8s.io")"#);
        check(&ws("x,v4.base64.channel.k8s.io"), r#"WebSocket("v4.base64.channel.k8s.io")"#);
        check(&ws("")[..4], r#"WebSocket("")"#);
        check(
            &ws("x")[..],
            "403 requested protocol(s) are not supported: [x]; supports [ channel.k8s.io base64.channel.k8s.io v4.channel.k8s.io v4.base64.channel.k8s.io v5.channel.k8s.io]",
        );
        check(&ws("x")[..2], "400 missing or bad WebSocket Version");
        let spdy = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9, v4.channel.k8s.io"),
        ];
        check(&spdy, r#"Spdy("v4.channel.k8s.io")"#);
        check(
            &spdy[..2],
            "400 unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers",
        );
        check(&spdy[..1], "400 unable to upgrade: missing upgrade headers in request");
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
