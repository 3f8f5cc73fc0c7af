//! A signer of service-account tokens on a socket, whose keys a test changes; it can go away and come back.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part")]

use super::generated::external_jwt_signer_server::{ExternalJwtSigner, ExternalJwtSignerServer};
use super::generated::{
    FetchKeysRequest, FetchKeysResponse, Key, MetadataRequest, MetadataResponse, SignJwtRequest,
    SignJwtResponse, Timestamp,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::PrivateKey;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// What the signer signs with and says of itself.
pub struct State {
    pub key: PrivateKey,
    /// The header of a token, if not that of the key under its name `signing`.
    pub header: Option<String>,
    /// Names, keys, and whether they are withheld from others.
    pub keys: Vec<(String, Vec<u8>, bool)>,
    pub refresh_hint: i64,
    pub longest: i64,
    /// What is signed is thrown away.
    pub mute: bool,
    pub refusal: Option<Status>,
    /// The claims that were signed last.
    pub claims: String,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    fetched: Arc<watch::Sender<u32>>,
}

pub struct Signer {
    service: Service,
    running: Option<Runtime>,
}

impl Signer {
    /// One with a key called `a`, not there yet.
    pub fn new() -> Self {
        let key = PrivateKey::generate().unwrap();
        let keys = vec![("a".to_owned(), key.public().spki().to_vec(), false)];
        let state = State {
            key,
            header: None,
            keys,
            refresh_hint: 3600,
            longest: 86_400,
            mute: false,
            refusal: None,
            claims: String::new(),
        };
        let service = Service { state: Arc::new(Mutex::new(state)), fetched: Arc::default() };
        Signer { service, running: None }
    }

    /// Begins to listen at a path, or an abstract name.
    pub fn listen(&mut self, socket: &Path) {
        let text = socket.to_str().unwrap();
        let address = match text.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
            None => {
                let _ = std::fs::remove_file(socket);
                SocketAddr::from_pathname(socket).unwrap()
            }
        };
        let listener = UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        // A runtime of its own, with which all that is open ends.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = ExternalJwtSignerServer::new(self.service.clone());
        runtime.spawn(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let incoming = futures::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                Some((accepted, listener))
            });
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        self.running = Some(runtime);
    }

    /// Goes away, with all its connections.
    pub async fn leave(&mut self) {
        let runtime = self.running.take().unwrap();
        let end = move || runtime.shutdown_timeout(std::time::Duration::from_secs(10));
        tokio::task::spawn_blocking(end).await.unwrap();
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.service.state.lock().unwrap());
    }

    pub fn claims(&self) -> String {
        self.service.state.lock().unwrap().claims.clone()
    }

    /// Signs with a new key called `name` from now on, beside which the others stay.
    pub fn rotate(&self, name: &str) {
        self.set(|state| {
            state.key = PrivateKey::generate().unwrap();
            state.keys.push((name.to_owned(), state.key.public().spki().to_vec(), false));
        });
    }

    /// How often its keys were fetched.
    pub fn fetched(&self) -> watch::Receiver<u32> {
        self.service.fetched.subscribe()
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        if let Some(runtime) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service {
    fn state(&self) -> Result<std::sync::MutexGuard<'_, State>, Status> {
        let state = self.state.lock().unwrap();
        match &state.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(state),
        }
    }
}

#[tonic::async_trait]
impl ExternalJwtSigner for Service {
    async fn sign(&self, request: Request<SignJwtRequest>) -> Result<Response<SignJwtResponse>, Status> {
        let mut state = self.state()?;
        let claims = request.into_inner().claims;
        let header = state.header.clone().unwrap_or_else(|| {
            let (name, _, _) = state.keys.last().unwrap();
            format!(r#"{{"alg":"{}","kid":"{name}","typ":"JWT"}}"#, state.key.jws_algorithm())
        });
        let header = URL_SAFE_NO_PAD.encode(header);
        let signature = state.key.sign_jws(format!("{header}.{claims}").as_bytes()).unwrap();
        let signature = if state.mute { String::new() } else { URL_SAFE_NO_PAD.encode(signature) };
        state.claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        Ok(Response::new(SignJwtResponse { header, signature }))
    }

    async fn fetch_keys(&self, _: Request<FetchKeysRequest>) -> Result<Response<FetchKeysResponse>, Status> {
        let keys = self.state()?.keys.clone();
        let keys = keys.into_iter().map(|(key_id, key, exclude_from_oidc_discovery)| Key {
            key_id,
            key,
            exclude_from_oidc_discovery,
        });
        let answer = FetchKeysResponse {
            keys: keys.collect(),
            data_timestamp: Some(Timestamp { seconds: 1_000_000_000, nanos: 500_000_000 }),
            refresh_hint_seconds: self.state()?.refresh_hint,
        };
        self.fetched.send_modify(|fetched| *fetched += 1);
        Ok(Response::new(answer))
    }

    async fn metadata(&self, _: Request<MetadataRequest>) -> Result<Response<MetadataResponse>, Status> {
        Ok(Response::new(MetadataResponse { max_token_expiration_seconds: self.state()?.longest }))
    }
}
