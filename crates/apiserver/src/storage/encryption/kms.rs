//! KMS v2: a plugin behind a socket keeps the key that encrypts our seed, and every value is encrypted with a key that
//! is derived from the seed. The seed changes when the plugin says that its key has.
//!
//! Transforms do not wait for the network where writes are ordered: the seed is had at the start, the plugin is asked
//! again every minute, and only a seed that was never met is decrypted on the way. A thread of its own speaks to it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as sync;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};

use super::cipher::{Cipher, random};
use super::config::{ConfigError, Kms as Configuration};
use super::generated::key_management_service_client::KeyManagementServiceClient;
use super::generated::{
    DecryptRequest, EncryptRequest, EncryptedDekSourceType, EncryptedObject, StatusRequest,
};

/// How often the plugin's key is looked at; sooner while it fails.
const EVERY: Duration = Duration::from_secs(60);
const SOONER: Duration = Duration::from_secs(10);
/// How long values are encrypted with a seed after the plugin was last heard of.
const LONGEST: Duration = Duration::from_secs(180);
/// Upstream's default for one call.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The versions of the protocol that a plugin may speak.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];
/// Ciphers of older seeds that are kept.
const MOST: usize = 1_000;

/// What values are encrypted with now.
struct Seed {
    cipher: Arc<Cipher>,
    key_id: String,
    /// The seed as the plugin encrypted it.
    sealed: Vec<u8>,
    annotations: BTreeMap<String, Vec<u8>>,
    good_until: Instant,
}

/// A seed or key as it stands beside a value.
type Source = (i32, Vec<u8>, String);

struct Ask {
    request: DecryptRequest,
    answer: sync::Sender<Result<Vec<u8>, String>>,
}

/// One plugin.
pub(super) struct Kms {
    seed: Arc<RwLock<Result<Seed, String>>>,
    known: Mutex<HashMap<Source, Arc<Cipher>>>,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Kms {
    /// Connects and gets the first seed. A plugin that is not there yet is tried again; until then writes fail.
    pub(super) fn new(configuration: &Configuration) -> Result<Arc<Self>, ConfigError> {
        let name = &configuration.name;
        let fail = |detail: String| ConfigError(format!("kms {name:?}: {detail}"));
        if configuration.api_version != "v2" {
            return Err(fail(format!(
                "apiVersion: Invalid value: {:?}: KMSv1 is deprecated and not served, use v2",
                configuration.api_version
            )));
        }
        let path = configuration.endpoint.strip_prefix("unix://").filter(|path| !path.is_empty());
        let path: PathBuf = path
            .ok_or_else(|| fail("endpoint: Invalid value: unsupported scheme, must be unix".into()))?
            .into();
        let timeout = match &configuration.timeout {
            None => TIMEOUT,
            Some(text) => {
                let parsed: Option<apimachinery::time::Duration> = text.parse().ok();
                let timeout = parsed.and_then(apimachinery::time::Duration::to_std);
                timeout
                    .filter(|t| !t.is_zero())
                    .ok_or_else(|| fail("timeout: should be a positive value".into()))?
            }
        };
        let seed = Arc::new(RwLock::new(Err("the plugin has not answered yet".to_owned())));
        let (asks, queue) = mpsc::unbounded_channel();
        let (first, tried) = sync::channel();
        let shared = seed.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| fail(error.to_string()))?;
        let plugin = name.clone();
        let speak = move || runtime.block_on(speak(plugin, path, timeout, shared, queue, first));
        let spawned = std::thread::Builder::new().name("kms".into()).spawn(speak);
        spawned.map_err(|error| fail(error.to_string()))?;
        // The first attempt is waited for, whatever it comes to.
        let _ = tried.recv();
        Ok(Arc::new(Self { seed, known: Mutex::default(), asks }))
    }

    pub(super) fn encrypt(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        let seed = self.seed.read();
        let seed = seed.as_ref().map_err(Clone::clone)?;
        if Instant::now() > seed.good_until {
            return Err("EDEK with keyID expired: the KMS plugin has not answered for too long".into());
        }
        let object = EncryptedObject {
            encrypted_data: seed.cipher.encrypt(plain, about)?,
            key_id: seed.key_id.clone(),
            encrypted_dek_source: seed.sealed.clone(),
            annotations: seed.annotations.clone().into_iter().collect(),
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        Ok(object.encode_to_vec())
    }

    /// The value, and whether another key would encrypt it now.
    pub(super) fn decrypt(&self, kept: &[u8], about: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let object = EncryptedObject::decode(kept).map_err(|error| error.to_string())?;
        let stale = self.seed.read().as_ref().is_ok_and(|seed| seed.key_id != object.key_id);
        let source: Source =
            (object.encrypted_dek_source_type, object.encrypted_dek_source.clone(), object.key_id.clone());
        let known = self.known.lock().get(&source).cloned();
        let cipher = match known.or_else(|| self.own(&object)) {
            Some(cipher) => cipher,
            None => {
                let (answer, waiting) = sync::channel();
                let request = DecryptRequest {
                    ciphertext: object.encrypted_dek_source.clone(),
                    uid: uuid::Uuid::new_v4().to_string(),
                    key_id: object.key_id.clone(),
                    annotations: object.annotations.clone(),
                };
                self.asks.send(Ask { request, answer }).map_err(|_| "the KMS client has ended")?;
                let key = waiting.recv().map_err(|_| "the KMS client has ended")??;
                let cipher = match EncryptedDekSourceType::try_from(object.encrypted_dek_source_type) {
                    Ok(EncryptedDekSourceType::AesGcmKey) => Cipher::aes_gcm(&key)?,
                    Ok(EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed) => Cipher::Seed(key),
                    Err(_) => return Err("the value's key is of an unknown kind".into()),
                };
                let cipher = Arc::new(cipher);
                let mut known = self.known.lock();
                if known.len() >= MOST {
                    known.clear();
                }
                known.insert(source, cipher.clone());
                cipher
            }
        };
        Ok((cipher.decrypt(&object.encrypted_data, about)?, stale))
    }

    /// The cipher of the present seed, if that is what a value was encrypted with.
    fn own(&self, object: &EncryptedObject) -> Option<Arc<Cipher>> {
        let seed = self.seed.read();
        let seed = seed.as_ref().ok()?;
        (seed.sealed == object.encrypted_dek_source).then(|| seed.cipher.clone())
    }
}

/// Looks after the seed and answers what is asked, until nobody asks any more.
async fn speak(
    name: String,
    path: PathBuf,
    timeout: Duration,
    seed: Arc<RwLock<Result<Seed, String>>>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    first: sync::Sender<()>,
) {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel =
        Endpoint::from_static("http://localhost").timeout(timeout).connect_with_connector_lazy(connector);
    let mut client = KeyManagementServiceClient::new(channel);
    let mut first = Some(first);
    loop {
        let looked = look(&mut client, &seed).await;
        if let Err(error) = &looked {
            tracing::error!(plugin = name, error, "the KMS plugin is not healthy");
            let mut seed = seed.write();
            if let Err(before) = &mut *seed {
                *before = error.clone();
            }
        }
        // Who made us waits for this once.
        drop(first.take());
        let next = tokio::time::Instant::now() + if looked.is_ok() { EVERY } else { SOONER };
        loop {
            let ask = tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                ask = asks.recv() => ask,
            };
            let Some(Ask { request, answer }) = ask else { return };
            let plain = client.decrypt(request).await;
            let plain = plain.map(|plain| plain.into_inner().plaintext);
            // Who asked may have gone.
            let _ = answer
                .send(plain.map_err(|status| format!("failed to decrypt DEK, error: {}", status.message())));
        }
    }
}

/// Asks for the plugin's state, and has a new seed encrypted when its key is another one.
async fn look(
    client: &mut KeyManagementServiceClient<Channel>,
    seed: &RwLock<Result<Seed, String>>,
) -> Result<(), String> {
    let good_until = Instant::now() + LONGEST;
    let status = client.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
    let status = status.into_inner();
    if status.healthz != "ok" {
        return Err(format!("got unexpected healthz status: {}", status.healthz));
    }
    if !VERSIONS.contains(&status.version.as_str()) {
        return Err(format!("expected KMSv2 API version v2, got {}", status.version));
    }
    if let Ok(seed) = &mut *seed.write()
        && seed.key_id == status.key_id
    {
        seed.good_until = good_until;
        return Ok(());
    }
    let plain = random::<32>()?.to_vec();
    let request = EncryptRequest { plaintext: plain.clone(), uid: uuid::Uuid::new_v4().to_string() };
    let sealed = client
        .encrypt(request)
        .await
        .map_err(|status| format!("failed to encrypt DEK, error: {}", status.message()))?;
    let sealed = sealed.into_inner();
    if sealed.key_id != status.key_id {
        return Err("the plugin's key changed while it encrypted".into());
    }
    *seed.write() = Ok(Seed {
        cipher: Arc::new(Cipher::Seed(plain)),
        key_id: sealed.key_id,
        sealed: sealed.ciphertext,
        annotations: sealed.annotations.into_iter().collect(),
        good_until,
    });
    Ok(())
}

#[cfg(test)]
mod tests;
