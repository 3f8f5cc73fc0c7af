//! One provider: which images it is asked about, with whose token, and how long its answers are remembered. Upstream:
//! `pluginProvider`.

use super::super::keyring::{Source, matches};
use super::super::records::{PullAccount, sha256};
use super::config::{self, TokenAttributes};
use super::exec::{Program, Response};
use crate::metrics::Metrics;
use crate::tokens::{Tokens, Wanted};
use api::core::v1::{Pod, ServiceAccount};
use client::Client;
use cri::v1::AuthConfig;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// No image and no registry has such a name.
const GLOBAL: &str = "<global>";
const PURGE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Credentials by the places they are for.
pub(super) type Logins = Arc<Vec<(String, AuthConfig)>>;
type Flight = Shared<BoxFuture<'static, Result<Arc<Response>, String>>>;

/// What an answer is remembered under: what it is for, and for whom.
type CacheKey = (String, String);

#[derive(Default)]
struct Cache {
    entries: HashMap<CacheKey, (Logins, Instant)>,
    purged: Option<Instant>,
}

pub(super) struct Provider {
    program: Arc<Program>,
    match_images: Vec<String>,
    default_cache_duration: Duration,
    tokens: Option<TokenAttributes>,
    client: Client,
    issued: Tokens,
    cache: Mutex<Cache>,
    /// Runs that go on: who asks the same meanwhile waits for the same answer.
    flights: Mutex<HashMap<String, Flight>>,
}

/// For whom a provider is asked.
#[derive(Debug, Default)]
struct Asking {
    source: Source,
    token: String,
    annotations: BTreeMap<String, String>,
    cache_key: String,
}

impl Provider {
    pub(super) fn new(told: config::Provider, bin_dir: &Path, client: Client, metrics: Metrics) -> Self {
        let default_cache_duration = told.default_cache_duration.and_then(|duration| duration.to_std());
        Provider {
            program: Arc::new(Program {
                path: bin_dir.join(&told.name),
                name: told.name,
                api_version: told.api_version,
                args: told.args,
                env: told.env,
                metrics,
            }),
            match_images: told.match_images,
            default_cache_duration: default_cache_duration.unwrap_or_default(),
            tokens: told.token_attributes.filter(|tokens| !tokens.service_account_token_audience.is_empty()),
            client,
            issued: Tokens::default(),
            cache: Mutex::default(),
            flights: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.program.name
    }

    pub(super) fn forget(&self, uid: &str) {
        self.issued.forget(uid);
    }

    /// Credentials for an image, and whose they are.
    pub(super) async fn provide(&self, pod: &Pod, image: &str) -> Result<(Logins, Source), String> {
        let nothing = (Logins::default(), Source::Node);
        if !self.match_images.iter().any(|pattern| matches(pattern, image)) {
            return Ok(nothing);
        }
        let Some(asking) = self.asking(pod).await? else { return Ok(nothing) };
        if let Some(known) = self.cached(image, &asking.cache_key) {
            return Ok((known, asking.source));
        }
        let response = self.fly(image, &asking).await.map_err(|error| {
            format!("failed to get credential from external registry credential provider: {error}")
        })?;
        let by_token = self.tokens.as_ref().is_some_and(|tokens| tokens.cache_type == "Token");
        if !asking.token.is_empty()
            && !by_token
            && response.auth.values().any(|login| login.password == asking.token)
        {
            return Err("credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'".into());
        }
        let base = match response.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry(image),
            "Global" => GLOBAL,
            other => {
                return Err(format!(
                    "credential provider plugin did not return a valid cacheKeyType: {other}"
                ));
            }
        };
        let logins = response.auth.iter().map(|(place, login)| {
            let auth = AuthConfig {
                username: login.username.clone(),
                password: login.password.clone(),
                ..Default::default()
            };
            (place.clone(), auth)
        });
        let logins: Logins = Arc::new(logins.collect());
        let duration = match response.cache_duration {
            Some(said) => said.to_std().unwrap_or_default(),
            None => self.default_cache_duration,
        };
        if !duration.is_zero() {
            let (key, until) = ((base.to_owned(), asking.cache_key), Instant::now() + duration);
            self.cache.lock().entries.insert(key, (logins.clone(), until));
        }
        Ok((logins, asking.source))
    }

    /// With whose token to ask; `None` when not to ask for this pod at all.
    async fn asking(&self, pod: &Pod) -> Result<Option<Asking>, String> {
        let Some(tokens) = &self.tokens else { return Ok(Some(Asking::default())) };
        let name = pod.spec.service_account_name.as_str();
        if name.is_empty() {
            // A static pod has none.
            let required = tokens.require_service_account == Some(true);
            return Ok((!required).then(Asking::default));
        }
        let namespace = &pod.metadata.namespace;
        let account = self.client.namespaced::<ServiceAccount>(namespace).get(name).await;
        let account = account.map_err(|error| format!("failed to get service account: {error}"))?;
        let mut annotations = BTreeMap::new();
        for key in &tokens.required_service_account_annotation_keys {
            // A workload may choose by it whether its account is told of.
            let Some(value) = account.metadata.annotations.get(key) else { return Ok(None) };
            annotations.insert(key.clone(), value.clone());
        }
        for key in &tokens.optional_service_account_annotation_keys {
            if let Some(value) = account.metadata.annotations.get(key) {
                annotations.insert(key.clone(), value.clone());
            }
        }
        let uid = account.metadata.uid.clone();
        let wanted =
            Wanted { audience: &tokens.service_account_token_audience, seconds: None, account_uid: &uid };
        let token = self.issued.get(&self.client, pod, wanted).await;
        let token = token.map_err(|error| format!("failed to get service account token: {error}"))?.text;
        let by_token = (tokens.cache_type == "Token").then(|| sha256(token.as_bytes()));
        let cache_key = apimachinery::json!([namespace, name, uid, annotations, by_token]).to_string();
        let source = Source::Account(PullAccount { namespace: namespace.clone(), name: name.into(), uid });
        Ok(Some(Asking { source, token, annotations, cache_key }))
    }

    fn cached(&self, image: &str, account: &str) -> Option<Logins> {
        let now = Instant::now();
        let mut cache = self.cache.lock();
        if now >= *cache.purged.get_or_insert(now) + PURGE_INTERVAL {
            cache.entries.retain(|_, (_, until)| now <= *until);
            cache.purged = Some(now);
        }
        [image, registry(image), GLOBAL].into_iter().find_map(|base| {
            let (logins, until) = cache.entries.get(&(base.to_owned(), account.to_owned()))?;
            (now <= *until).then(|| logins.clone())
        })
    }

    /// Asks the program, once for all who want to know the same at the same time.
    async fn fly(&self, image: &str, asking: &Asking) -> Result<Arc<Response>, String> {
        let hash = if asking.token.is_empty() { String::new() } else { sha256(asking.token.as_bytes()) };
        let key = apimachinery::json!([image, hash, asking.annotations]).to_string();
        let flight = {
            let mut flights = self.flights.lock();
            // One whose askers all gave up would never end.
            flights.retain(|_, flight| flight.strong_count().is_some_and(|askers| askers > 1));
            let (program, image) = (self.program.clone(), image.to_owned());
            let (token, annotations) = (asking.token.clone(), asking.annotations.clone());
            let start = || {
                async move { program.run(&image, &token, &annotations).await.map(Arc::new) }.boxed().shared()
            };
            flights.entry(key.clone()).or_insert_with(start).clone()
        };
        let answer = flight.await;
        self.flights.lock().remove(&key);
        answer
    }
}

fn registry(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}
