//! Tokens of service accounts that a program behind a socket signs (upstream's ExternalJWTSigner, KEP-740): claims go
//! out, a header and a signature come back, and the keys that tokens are checked against are the signer's ([`keys`]).
//!
//! A signer that is not there is waited for, for as long as whoever asks has time, as gRPC's "wait for ready" does.

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
mod generated;
mod keys;
mod measures;

pub use keys::KeyCache;

use crate::grpc;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use component::metrics::Registry;
use generated::external_jwt_signer_client::ExternalJwtSignerClient;
use generated::{MetadataRequest, SignJwtRequest};
use hyper_util::rt::TokioIo;
use measures::Measures;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// How long a call may take: upstream's limit for fetching keys, and a request's for signing.
const CALL: Duration = Duration::from_secs(60);
const METADATA: Duration = Duration::from_secs(10);
/// How long pauses are between attempts to reach a socket that nobody listens at.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The shortest life that a signer must allow tokens, in seconds.
const SHORTEST_LIFE: i64 = 600;
/// How long the name of a key may be.
const LONGEST_KEY_ID: usize = 1024;
/// What the API server can verify, and therefore lets be signed with.
const ALGORITHMS: [&str; 4] = ["RS256", "ES256", "ES384", "ES512"];

/// What went wrong, in upstream's words, and with which code if a call did.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    what: String,
    code: Option<Code>,
}

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), code: None }
    }

    fn during(self, what: &str) -> Self {
        Failure { what: format!("{what}: {self}"), ..self }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = grpc::name(status.code());
        let what = format!("rpc error: code = {code} desc = {}", status.message());
        Failure { what, code: Some(status.code()) }
    }
}

/// The way to the signer, which is opened anew when it was lost.
#[derive(Clone)]
struct Line {
    client: ExternalJwtSignerClient<Channel>,
    /// Why there is no connection now.
    broken: Arc<Mutex<Option<String>>>,
    measures: Measures,
}

impl Line {
    /// To a socket's path, or its abstract name after an `@`.
    fn new(socket: &str, measures: Measures) -> Self {
        let broken: Arc<Mutex<Option<String>>> = Arc::default();
        let (told, socket) = (broken.clone(), socket.to_owned());
        let connector = tower::service_fn(move |_: Uri| connect(socket.clone(), told.clone()));
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Line { client: ExternalJwtSignerClient::new(channel), broken, measures }
    }

    /// One call. A connection that was lost before the signer can have answered is tried once more.
    async fn call<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &self,
        method: &'static str,
        limit: Duration,
        call: impl Fn(ExternalJwtSignerClient<Channel>) -> F,
    ) -> Result<T, Status> {
        let begun = self.measures.begin(method);
        let attempts = async {
            match call(self.client.clone()).await {
                // What the signer itself answers has no source.
                Err(status) if std::error::Error::source(&status).is_some() => {
                    call(self.client.clone()).await
                }
                answer => answer,
            }
        };
        let answer = match tokio::time::timeout(limit, attempts).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(match &*self.broken.lock() {
                Some(why) => format!(
                    "latest balancer error: connection error: desc = \"transport: Error while dialing: {why}\""
                ),
                None => "context deadline exceeded".to_owned(),
            })),
        };
        begun.end(answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer
    }
}

/// Tries until somebody listens.
async fn connect(socket: String, broken: Arc<Mutex<Option<String>>>) -> io::Result<TokioIo<UnixStream>> {
    // Abstract names begin with a zero byte where paths stand.
    let path = socket.strip_prefix('@').map_or_else(|| socket.clone(), |name| format!("\0{name}"));
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                *broken.lock() = None;
                return Ok(TokioIo::new(stream));
            }
            Err(error) => *broken.lock() = Some(component::dial::failed("unix", &socket, &error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The signer (upstream's Plugin).
pub struct ExternalSigner {
    line: Line,
    keys: Arc<KeyCache>,
    longest: Duration,
}

impl std::fmt::Debug for ExternalSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalSigner").finish_non_exhaustive()
    }
}

impl ExternalSigner {
    /// Waits for the signer behind a socket, and gets its keys and what it says of itself.
    pub async fn connect(socket: &str, metrics: &Registry) -> Result<Self, Failure> {
        Self::connect_within(socket, metrics, CALL).await
    }

    async fn connect_within(socket: &str, metrics: &Registry, limit: Duration) -> Result<Self, Failure> {
        let measures = Measures::new(metrics);
        let line = Line::new(socket, measures);
        let keys = Arc::new(KeyCache::new(line.clone(), limit));
        let filled = keys.sync().await;
        filled.map_err(|failure| {
            failure.during("while performing initial cache fill").during("while initially filling key cache")
        })?;
        let metadata =
            line.call(
                "Metadata",
                METADATA,
                |mut client| async move { client.metadata(MetadataRequest {}).await },
            );
        let longest = metadata.await?.max_token_expiration_seconds;
        if longest < SHORTEST_LIFE {
            return Err(Failure::new(format!(
                "max token life supported by external-jwt-signer ({longest}s) is less than acceptable (min {SHORTEST_LIFE}s)"
            )));
        }
        Ok(ExternalSigner { line, keys, longest: Duration::from_secs(longest.unsigned_abs()) })
    }

    /// The keys that its tokens are checked against.
    pub fn keys(&self) -> &Arc<KeyCache> {
        &self.keys
    }

    /// The longest life of a token that it signs.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The token of these claims.
    pub async fn sign(&self, claims: &impl Serialize) -> Result<String, Failure> {
        let signing = self.line.measures.sign();
        let token = self.assemble(claims).await;
        signing.end(token.as_ref().err());
        token
    }

    async fn assemble(&self, claims: &impl Serialize) -> Result<String, Failure> {
        let claims = serde_json::to_vec(claims);
        let claims = claims.map_err(|error| Failure::new(format!("while merging claims: {error}")))?;
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let request = SignJwtRequest { claims: claims.clone() };
        let signed = self.line.call("Sign", CALL, |mut client| {
            let request = request.clone();
            async move { client.sign(request).await }
        });
        let signed = signed.await.map_err(|status| Failure::from(status).during("while signing jwt"))?;
        let checked = self.check_header(&signed.header).await;
        checked.map_err(|failure| failure.during("while validating header"))?;
        if signed.signature.is_empty() {
            return Err(Failure::new("empty signature returned"));
        }
        Ok(format!("{}.{claims}.{}", signed.header, signed.signature))
    }

    /// Whether the header says no more than it must, and names a key that whoever verifies tokens can know.
    async fn check_header(&self, header: &str) -> Result<(), Failure> {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Header {
            alg: String,
            kid: String,
            typ: String,
        }
        let json = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|error| Failure::new(format!("while unwrapping header: {error}")))?;
        let Header { alg, kid, typ } = serde_json::from_slice(&json)
            .map_err(|error| Failure::new(format!("while parsing header JSON: {error}")))?;
        if typ != "JWT" {
            return Err(Failure::new("bad type"));
        }
        if kid.is_empty() {
            return Err(Failure::new("key id missing"));
        }
        if kid.len() > LONGEST_KEY_ID {
            return Err(Failure::new("key id longer than 1 kb"));
        }
        if !ALGORITHMS.contains(&alg.as_str()) {
            return Err(Failure::new(format!("bad signing algorithm {alg:?}")));
        }
        // Such keys are there for tokens of old only.
        self.keys.learn(&kid).await;
        if self.keys.current().withheld.contains(&kid) {
            return Err(Failure::new(format!(
                "key used for signing JWT (kid: {kid}) is excluded from OIDC discovery docs"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
