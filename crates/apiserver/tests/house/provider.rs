//! Programs that a server asks, over real TLS: an OpenID provider with a key set and signed tokens, and webhooks.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part")]

use apimachinery::json;
use apimachinery::value::Value;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use pki::{Authority, PrivateKey, Profile, San, Subject};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a program listens, and whom to trust for it.
#[derive(Clone)]
pub struct Program {
    pub url: String,
    pub ca: String,
}

/// Serves requests over TLS until the test ends.
pub async fn serve(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Program {
    pki::tls::install_provider();
    let now = apimachinery::time::Timestamp::now();
    let day = Duration::from_secs(86_400);
    let authority = Authority::create("programs", day, now).unwrap();
    let sans = vec![San::Ip([127, 0, 0, 1].into())];
    let identity = authority.issue(&Profile::server(Subject::new("program", &[]), sans, day), now).unwrap();
    let slot = pki::tls::Slot::of(&identity).unwrap();
    let tls = Arc::new(pki::tls::server_config(slot, &[], pki::tls::ALPN_HTTP1).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
            let answer = answer.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let response = answer(Request::from_parts(parts, body));
                        Ok::<_, Infallible>(response.map(Full::new))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Program { url, ca: authority.certificate.to_pem() }
}

impl Program {
    /// A kubeconfig for a path of the program.
    pub fn kubeconfig(&self, file: &Path, path: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("{}{path}", self.url),
                "certificate-authority-data": STANDARD.encode(&self.ca),
            }}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(file, config.to_string()).unwrap();
    }
}

/// A key that signs tokens under one algorithm.
pub enum Key {
    Rsa(KeyPair, &'static str),
    Ec(EcdsaKeyPair, &'static str),
}

impl Key {
    pub fn new(algorithm: &'static str) -> Self {
        let curve = match algorithm {
            "ES256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            "ES512" => &ECDSA_P521_SHA512_FIXED_SIGNING,
            _ => return Key::Rsa(KeyPair::generate(KeySize::Rsa2048).unwrap(), algorithm),
        };
        Key::Ec(EcdsaKeyPair::generate(curve).unwrap(), algorithm)
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Key::Rsa(_, algorithm) | Key::Ec(_, algorithm) => algorithm,
        }
    }

    /// As a member of a key set.
    pub fn jwk(&self, id: &str) -> Value {
        let pkcs8 = match self {
            Key::Rsa(pair, _) => {
                aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(pair)
                    .unwrap()
                    .as_ref()
                    .to_vec()
            }
            Key::Ec(pair, _) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        };
        let pem = pki::pem::encode("PRIVATE KEY", &pkcs8);
        let mut jwk = PrivateKey::from_pem(pem.as_bytes()).unwrap().public().to_jwk().unwrap();
        jwk.kid = id.into();
        jwk.alg = self.algorithm().into();
        json!(jwk)
    }

    fn signature(&self, data: &[u8]) -> Vec<u8> {
        match self {
            Key::Ec(pair, _) => pair.sign(&SystemRandom::new(), data).unwrap().as_ref().to_vec(),
            Key::Rsa(pair, algorithm) => {
                let padding: &'static dyn RsaEncoding = match *algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), data, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A signed token.
    pub fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.signature(signed.as_bytes())))
    }
}

/// What a provider publishes, by path, and how often each was fetched.
#[derive(Default)]
pub struct Published {
    pub pages: HashMap<String, (u16, String)>,
    pub fetched: HashMap<String, usize>,
    /// Of all answers.
    pub cache_control: String,
}

/// An OpenID provider.
#[derive(Clone)]
pub struct Provider {
    pub program: Program,
    pub published: Arc<Mutex<Published>>,
}

impl Provider {
    /// One with a discovery document at the usual place, and these keys by their ids.
    pub async fn start(keys: &[(&str, &Key)]) -> Self {
        let published: Arc<Mutex<Published>> = Arc::default();
        let pages = published.clone();
        let program = serve(move |request| {
            let mut published = pages.lock().unwrap();
            let path = request.uri().path().to_owned();
            *published.fetched.entry(path.clone()).or_default() += 1;
            let (status, body) = published.pages.get(&path).cloned().unwrap_or((404, "not here".into()));
            Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .header("cache-control", &published.cache_control)
                .body(body.into())
                .unwrap()
        })
        .await;
        let provider = Provider { program, published };
        provider.discovery("/.well-known/openid-configuration", &provider.program.url);
        provider.publish(keys);
        provider
    }

    pub fn url(&self) -> &str {
        &self.program.url
    }

    /// Puts a discovery document somewhere.
    pub fn discovery(&self, path: &str, issuer: &str) {
        let jwks = format!("{}/keys", self.program.url);
        self.page(path, json!({"issuer": issuer, "jwks_uri": jwks}).to_string());
    }

    pub fn page(&self, path: &str, body: String) {
        self.published.lock().unwrap().pages.insert(path.into(), (200, body));
    }

    /// Replaces the key set.
    pub fn publish(&self, keys: &[(&str, &Key)]) {
        let keys: Vec<Value> = keys.iter().map(|(id, key)| key.jwk(id)).collect();
        self.page("/keys", json!({"keys": keys}).to_string());
    }

    /// How often a page was fetched.
    pub fn fetched(&self, path: &str) -> usize {
        self.published.lock().unwrap().fetched.get(path).copied().unwrap_or(0)
    }
}
