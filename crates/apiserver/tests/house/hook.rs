//! A webhook server over real TLS.

use apimachinery::value::Value;
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pki::{Authority, Profile, San, Subject};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A webhook server: its address, the bundle to trust, and what it was asked.
pub struct Hook {
    pub url: String,
    pub bundle: String,
    pub asked: Arc<Mutex<Vec<Value>>>,
    /// What it was shown in the `Authorization` header.
    pub authorizations: Arc<Mutex<Vec<String>>>,
}

/// How a server shows itself, and who vouches for it.
pub fn identity(sans: Vec<San>) -> (Arc<rustls::ServerConfig>, Authority) {
    pki::tls::install_provider();
    let now = jiff::Timestamp::now();
    let day = Duration::from_secs(86_400);
    let authority = Authority::create("hooks", day, now).unwrap();
    let identity = authority.issue(&Profile::server(Subject::new("hook", &[]), sans, day), now).unwrap();
    let slot = pki::tls::Slot::of(&identity).unwrap();
    (Arc::new(pki::tls::server_config(slot, &[], pki::tls::ALPN_HTTP1).unwrap()), authority)
}

/// Serves a webhook that answers reviews by `answer`; none leaves the caller waiting.
pub async fn serve(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Hook {
    let (tls, authority) = identity(vec![San::Ip([127, 0, 0, 1].into())]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/review", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let authorizations: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, answer, shown) = (asked.clone(), Arc::new(answer), authorizations.clone());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
            let (seen, answer, shown) = (seen.clone(), answer.clone(), shown.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                    let (seen, answer) = (seen.clone(), answer.clone());
                    let authorization = request.headers().get("authorization");
                    shown.lock().extend(authorization.map(|value| value.to_str().unwrap().to_owned()));
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let review: Value = serde_json::from_slice(&body).unwrap();
                        seen.lock().push(review["request"].clone());
                        let Some(body) = answer(&review) else {
                            return std::future::pending().await;
                        };
                        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(body.to_string()))))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Hook { url, bundle: base64(authority.certificate.to_pem()), asked, authorizations }
}
