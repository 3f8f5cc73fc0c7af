//! An OpenID provider: its discovery document, and the keys that its tokens are signed with, fetched anew when a token
//! names one that is not known. Messages are those of the library that upstream uses.

use super::metrics::JwksMetrics;
use crate::remote::{Remote, Response};
use apimachinery::clock::Clock;
use apimachinery::quote::quote;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use pki::PublicKey;
use pki::public_key::Jwk;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::claims::{Claims, strings};

/// The absolute timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After which pause a provider that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long before their end cached keys count as old, in seconds.
const EXPIRY_DELTA: i64 = 30;
/// By how much clocks may differ in `nbf`, in seconds.
const LEEWAY: i64 = 60;

/// The provider of one issuer; what is found out of it comes in the background.
pub(super) struct Provider {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Arc<[String]>,
    clock: Arc<dyn Clock>,
    state: watch::Receiver<State>,
    /// Ends the background work when nobody uses the provider any more.
    _guard: tokio_util::sync::DropGuard,
}

#[derive(Clone)]
enum State {
    NotReady(String),
    Ready(Arc<KeySet>),
}

/// The keys of a provider.
struct KeySet {
    remote: Arc<Remote>,
    url: String,
    clock: Arc<dyn Clock>,
    cached: Mutex<Cached>,
    /// One fetch at a time; who comes meanwhile takes what it brings.
    fetching: tokio::sync::Mutex<()>,
    metrics: Option<JwksMetrics>,
    alive: CancellationToken,
}

#[derive(Default)]
struct Cached {
    keys: Arc<Vec<(String, PublicKey)>>,
    expiry: Timestamp,
    /// Counts fetches that succeeded.
    generation: u64,
}

/// A compact token, taken apart but not verified.
struct Compact<'a> {
    algorithm: String,
    key_id: String,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

pub(super) struct Settings {
    pub(super) issuer: String,
    /// Where the discovery document is, if not where it should be.
    pub(super) discovery_url: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Arc<[String]>,
    pub(super) remote: Arc<Remote>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Option<JwksMetrics>,
}

impl Provider {
    /// Begins to look for the provider.
    pub(super) fn start(settings: Settings) -> Self {
        let alive = CancellationToken::new();
        let issuer = settings.issuer.clone();
        let not_yet = format!("oidc: authenticator for issuer {} is not initialized", quote(&issuer));
        let (sender, state) = watch::channel(State::NotReady(not_yet));
        let provider = Provider {
            issuer,
            audiences: settings.audiences.clone(),
            algorithms: settings.algorithms.clone(),
            clock: settings.clock.clone(),
            state,
            _guard: alive.clone().drop_guard(),
        };
        let stop = alive.clone();
        tokio::spawn(async move { stop.run_until_cancelled(discover(settings, sender, alive)).await });
        provider
    }

    /// Why the provider is of no use yet.
    pub(super) fn health(&self) -> Result<(), String> {
        match &*self.state.borrow() {
            State::Ready(_) => Ok(()),
            State::NotReady(why) => {
                Err(format!("oidc: authenticator for issuer {} is not healthy: {why}", quote(&self.issuer)))
            }
        }
    }

    /// Waits until the provider is found.
    pub(super) async fn ready(&self) {
        let mut state = self.state.clone();
        // An error means that the work was ended; so is the waiting then.
        let _ = state.wait_for(|state| matches!(state, State::Ready(_))).await;
    }

    /// The claims of a token of this issuer, for one of the audiences.
    pub(super) async fn verify(&self, token: &str) -> Result<Claims, String> {
        let keys = match &*self.state.borrow() {
            State::Ready(keys) => keys.clone(),
            State::NotReady(_) => return Err("oidc: authenticator not initialized".into()),
        };
        self.verified(&keys, token).await.map_err(|e| format!("oidc: verify token: {e}"))
    }

    async fn verified(&self, keys: &KeySet, token: &str) -> Result<Claims, String> {
        let compact = Compact::parse(token)?;
        if !self.algorithms.contains(&compact.algorithm) {
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, expected {} got {}",
                quoted(&self.algorithms),
                quote(&compact.algorithm)
            ));
        }
        keys.check(&compact).await.map_err(|e| format!("failed to verify signature: {e}"))?;
        let claims =
            serde_json::from_slice::<Value>(&compact.payload).map_err(|e| e.to_string()).and_then(|value| {
                match value {
                    Value::Object(claims) => Ok(claims),
                    _ => Err("claims are no object".into()),
                }
            });
        let claims: Claims = claims.map_err(|e| format!("oidc: failed to unmarshal claims: {e}"))?;
        self.check(&claims)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims) -> Result<(), String> {
        let unreadable = |e: String| format!("oidc: failed to unmarshal claims: {e}");
        let issuer = super::claims::string(claims, "iss").unwrap_or_default();
        let google = self.issuer == super::GOOGLE && issuer == super::GOOGLE_WITHOUT_SCHEME;
        if issuer != self.issuer && !google {
            return Err(format!(
                "oidc: id token issued by a different provider, expected {} got {}",
                quote(&self.issuer),
                quote(&issuer)
            ));
        }
        let audiences = claims.get("aud").map_or_else(|| Ok(Vec::new()), strings).map_err(unreadable)?;
        if !self.audiences.iter().any(|wanted| audiences.contains(wanted)) {
            let got = quoted(&audiences);
            return Err(match self.audiences.as_slice() {
                [one] => format!("oidc: expected audience {} got {got}", quote(one)),
                many => {
                    let mut many = many.to_vec();
                    many.sort();
                    format!("oidc: expected audience in {} got {got}", quoted(&many))
                }
            });
        }
        let now = self.clock.now();
        let expiry = seconds(claims.get("exp")).map_err(unreadable)?;
        if expiry.is_none_or(|at| at < now.as_second()) {
            let shown = expiry.map_or_else(|| "0001-01-01 00:00:00 +0000 UTC".into(), go_time);
            return Err(format!("oidc: token is expired (Token Expiry: {shown})"));
        }
        if let Some(at) = seconds(claims.get("nbf")).map_err(unreadable)?
            && now.as_second() + LEEWAY < at
        {
            return Err(format!(
                "oidc: current time {} before the nbf (not before) time: {}",
                go_time(now.as_second()),
                go_time(at)
            ));
        }
        distributed_sources(claims)
    }
}

/// Every distributed claim must name a source that is there.
fn distributed_sources(claims: &Claims) -> Result<(), String> {
    let Some(Value::Object(names)) = claims.get("_claim_names") else { return Ok(()) };
    for source in names.values() {
        let source = source.as_str().unwrap_or_default();
        if source.is_empty() {
            return Err("oidc: failed to obtain source from claim name".into());
        }
        if claims.get("_claim_sources").and_then(|sources| sources.get(source)).is_none() {
            return Err("oidc: source does not exist".into());
        }
    }
    Ok(())
}

/// A list as Go's `%q` shows it.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|item| quote(item)).collect::<Vec<_>>().join(" "))
}

/// A point in time as Go prints it.
fn go_time(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    format!("{}", at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"))
}

/// Seconds since the epoch, with or without a fraction.
fn seconds(value: Option<&Value>) -> Result<Option<i64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            Ok(number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)))
        }
        Some(other) => Err(format!("parsing date {other}: not a number")),
    }
}

impl<'a> Compact<'a> {
    fn parse(token: &'a str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Header {
            #[serde(default)]
            alg: String,
            #[serde(default)]
            kid: String,
            #[serde(default)]
            crit: Option<Value>,
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(match parts.len() {
                0..3 => {
                    "oidc: malformed jwt: go-jose/go-jose: compact JWS format must have three parts".into()
                }
                _ => "oidc: malformed jwt".into(),
            });
        };
        let malformed = |e: &dyn std::fmt::Display| format!("oidc: malformed jwt: {e}");
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|e| malformed(&e));
        let read: Header = serde_json::from_slice(&decode(header)?).map_err(|e| malformed(&e))?;
        // An extension that must be understood, and is not.
        if read.crit.is_some() {
            return Err("failed to verify signature: failed to verify id token signature".into());
        }
        Ok(Compact {
            algorithm: read.alg,
            key_id: read.kid,
            signed: &token[..header.len() + 1 + payload.len()],
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    fn signed_by(&self, keys: &[(String, PublicKey)]) -> bool {
        keys.iter()
            .filter(|(id, _)| self.key_id.is_empty() || *id == self.key_id)
            .any(|(_, key)| key.verifies_jws(&self.algorithm, self.signed.as_bytes(), &self.signature))
    }
}

impl KeySet {
    async fn check(&self, token: &Compact<'_>) -> Result<(), String> {
        const WRONG: &str = "failed to verify id token signature";
        let (keys, expiry, generation) = {
            let cached = self.cached.lock();
            (cached.keys.clone(), cached.expiry, cached.generation)
        };
        if token.signed_by(&keys) {
            return Ok(());
        }
        if self.clock.now().as_second() + EXPIRY_DELTA <= expiry.as_second() {
            return Err(WRONG.into());
        }
        let keys = self.newer(generation).await.map_err(|e| format!("fetching keys {e}"))?;
        if token.signed_by(&keys) { Ok(()) } else { Err(WRONG.into()) }
    }

    /// Keys fetched after those of a generation.
    async fn newer(&self, generation: u64) -> Result<Arc<Vec<(String, PublicKey)>>, String> {
        let _one_at_a_time = self.fetching.lock().await;
        {
            let cached = self.cached.lock();
            if cached.generation > generation {
                return Ok(cached.keys.clone());
            }
        }
        let fetched = self.fetch().await;
        if let Some(metrics) = self.metrics.as_ref().filter(|_| !self.alive.is_cancelled()) {
            metrics.fetched(fetched.as_ref().ok().map(|(body, ..)| &**body));
        }
        let (_, keys, expiry) = fetched?;
        let mut cached = self.cached.lock();
        cached.keys = Arc::new(keys);
        cached.expiry = expiry;
        cached.generation += 1;
        Ok(cached.keys.clone())
    }

    /// What the provider publishes: the text, the keys in it that can be used, and until when they hold.
    async fn fetch(&self) -> Result<(String, Vec<(String, PublicKey)>, Timestamp), String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let response = self.remote.get(&self.url, HeaderMap::new(), TIMEOUT).await;
        let response = response.map_err(|e| format!("oidc: get keys failed {e}"))?;
        let body = String::from_utf8_lossy(&response.body).into_owned();
        if response.status != http::StatusCode::OK {
            return Err(format!("oidc: get keys failed: {} {body}", response.status_text()));
        }
        let set: Set =
            unmarshal(&response).map_err(|e| format!("oidc: failed to decode keys: {e} {body}"))?;
        let keys = set.keys.into_iter().filter_map(|key| {
            let jwk: Jwk = apimachinery::value::from_value(key).ok()?;
            let id = jwk.kid.clone();
            // Keys of kinds that sign no tokens are nobody's business here.
            PublicKey::from_jwk(&jwk).ok().map(|key| (id, key))
        });
        Ok((body, keys.collect(), expiry(&response.headers, self.clock.now())))
    }
}

/// Until when an answer may be kept, by what it says itself.
fn expiry(headers: &HeaderMap, now: Timestamp) -> Timestamp {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let directives: Vec<String> =
        text("cache-control").split(',').map(|d| d.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|d| ["no-store", "private", "no-cache"].iter().any(|no| d.starts_with(no))) {
        return now;
    }
    let seconds = |name: &str| {
        directives
            .iter()
            .find_map(|d| d.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').parse::<i64>().ok())
    };
    if let Some(seconds) = seconds("s-maxage").or_else(|| seconds("max-age")) {
        let age = text("age").parse::<i64>().unwrap_or(0);
        let left = Duration::from_secs(u64::try_from(seconds - age).unwrap_or(0));
        return now.checked_add(left).unwrap_or(Timestamp::MAX);
    }
    let expires = jiff::fmt::rfc2822::parse(text("expires")).map(|at| at.timestamp());
    expires.ok().filter(|at| *at > now).unwrap_or(now)
}

fn unmarshal<T: serde::de::DeserializeOwned>(response: &Response) -> Result<T, String> {
    let error = match serde_json::from_slice(&response.body) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let media = response.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = media.unwrap_or_default();
    Err(match media.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            format!("got Content-Type = application/json, but could not unmarshal as JSON: {error}")
        }
        _ => format!("expected Content-Type = application/json, got {}: {error}", quote(media)),
    })
}

/// Asks for the discovery document until it is there.
async fn discover(settings: Settings, state: watch::Sender<State>, alive: CancellationToken) {
    let clock = settings.clock.clone();
    loop {
        match jwks_url(&settings).await {
            Ok(url) => {
                let keys = KeySet {
                    remote: settings.remote,
                    url,
                    clock: settings.clock,
                    cached: Mutex::default(),
                    fetching: tokio::sync::Mutex::default(),
                    metrics: settings.metrics,
                    alive,
                };
                state.send_replace(State::Ready(Arc::new(keys)));
                return;
            }
            Err(error) => {
                tracing::error!(issuer = settings.issuer, %error, "oidc authenticator: initializing plugin");
                state.send_replace(State::NotReady(error));
            }
        }
        clock.sleep(AGAIN).await;
    }
}

async fn jwks_url(settings: &Settings) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        issuer: String,
        #[serde(default)]
        jwks_uri: String,
    }
    let issuer = &settings.issuer;
    let usual = || format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let url = settings.discovery_url.clone().unwrap_or_else(usual);
    let response = settings.remote.get(&url, HeaderMap::new(), TIMEOUT).await.map_err(|e| e.to_string())?;
    if response.status != http::StatusCode::OK {
        let body = String::from_utf8_lossy(&response.body);
        return Err(format!("{}: {body}", response.status_text()));
    }
    let document: Document =
        unmarshal(&response).map_err(|e| format!("oidc: failed to decode provider discovery object: {e}"))?;
    if document.issuer != *issuer {
        return Err(format!(
            "oidc: issuer did not match the issuer returned by provider, expected {} got {}",
            quote(issuer),
            quote(&document.issuer)
        ));
    }
    if document.jwks_uri.is_empty() {
        return Err("provider did not return JWKS URL".into());
    }
    Ok(document.jwks_uri)
}
