//! Who signs tokens of service accounts, and which keys they are checked against: keys at hand, or those of a signer
//! elsewhere.

use super::external_jwt::{ExternalSigner, KeyCache};
use pki::PublicKey;
use pki::jwt::Verifier;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// Keys that are known at one time.
#[derive(Debug, Default)]
pub struct KeySet {
    verifier: Verifier,
    /// Those that others may verify tokens with.
    pub(crate) published: Vec<PublicKey>,
    /// The names of those that only this server does, for tokens of old.
    pub(crate) withheld: HashSet<String>,
    /// Until when no others are to be expected; always, if that is not said.
    pub(crate) fresh_until: Option<Instant>,
}

impl KeySet {
    /// The keys of an external signer, each with whether it is withheld from others.
    pub(crate) fn external(keys: Vec<(PublicKey, bool)>, fresh_until: Instant) -> Self {
        let named = |withheld: bool| keys.iter().filter(move |(_, w)| *w == withheld).map(|(key, _)| key);
        KeySet {
            published: named(false).cloned().collect(),
            withheld: named(true).map(|key| key.key_id().to_owned()).collect(),
            verifier: Verifier::new(keys.into_iter().map(|(key, _)| key).collect()),
            fresh_until: Some(fresh_until),
        }
    }

    /// Whether there is a key of this name; any, if it is empty.
    pub(crate) fn has(&self, key_id: &str) -> bool {
        self.verifier.keys().iter().any(|key| key_id.is_empty() || key.key_id() == key_id)
    }
}

/// The keys that tokens are checked against.
#[derive(Debug, Clone)]
pub enum Keys {
    Fixed(Arc<KeySet>),
    External(Arc<KeyCache>),
}

impl Keys {
    /// Keys that stay.
    pub fn fixed(keys: Vec<PublicKey>) -> Self {
        let set = KeySet { published: keys.clone(), verifier: Verifier::new(keys), ..Default::default() };
        Keys::Fixed(Arc::new(set))
    }

    pub(crate) fn current(&self) -> Arc<KeySet> {
        match self {
            Keys::Fixed(keys) => keys.clone(),
            Keys::External(cache) => cache.current(),
        }
    }

    /// The claims of a token that one of the keys signed.
    pub(super) fn verify<T: DeserializeOwned>(&self, token: &str) -> pki::Result<T> {
        match self {
            Keys::Fixed(keys) => keys.verifier.verify(token),
            Keys::External(cache) => cache.current().verifier.verify(token),
        }
    }
}

/// Signs tokens.
#[derive(Debug)]
pub enum Signer {
    Key(Arc<pki::jwt::Signer>),
    External(Arc<ExternalSigner>),
}

impl Signer {
    /// The token of these claims; or why there is none.
    pub(crate) async fn sign(&self, claims: &impl Serialize) -> Result<String, String> {
        match self {
            Signer::Key(key) => key.sign(claims).map_err(|error| error.to_string()),
            Signer::External(signer) => signer.sign(claims).await.map_err(|failure| failure.to_string()),
        }
    }
}
