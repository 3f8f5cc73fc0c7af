//! The keys of an external signer (upstream's key cache): fetched when they are due, and whenever a token names one
//! that is not among them. Those that were had last stay when the signer cannot be asked.

use super::generated::{FetchKeysRequest, FetchKeysResponse, Timestamp};
use super::{Failure, LONGEST_KEY_ID, Line};
use crate::authn::token_keys::KeySet;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::{Mutex, RwLock};
use pki::PublicKey;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// After how long keys are asked for again that could not be had.
const AGAIN: Duration = Duration::from_secs(10);

type Fetching = Shared<BoxFuture<'static, Result<(), Failure>>>;

/// See the module.
pub struct KeyCache {
    line: Line,
    limit: Duration,
    current: RwLock<Arc<KeySet>>,
    /// The call under way, which all wait for who want one.
    fetching: Mutex<Option<Fetching>>,
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

impl KeyCache {
    pub(super) fn new(line: Line, limit: Duration) -> Self {
        KeyCache { line, limit, current: RwLock::default(), fetching: Mutex::default() }
    }

    /// The keys as they are known now.
    pub(crate) fn current(&self) -> Arc<KeySet> {
        self.current.read().clone()
    }

    /// Asks for the keys again if this one is not among them; with no name, if there are none.
    pub(crate) async fn learn(self: &Arc<Self>, key_id: &str) {
        if self.current().has(key_id) {
            return;
        }
        if let Err(failure) = self.sync().await {
            tracing::error!(%failure, "Error while syncing keys");
        } else if !self.current().has(key_id) {
            tracing::error!(key_id, "Key id not found after refresh");
        }
    }

    /// Fetches the keys, or waits for whoever does.
    pub(super) async fn sync(self: &Arc<Self>) -> Result<(), Failure> {
        let fetching = {
            let mut fetching = self.fetching.lock();
            let begin = || {
                let this = self.clone();
                // Whoever began it may go, others wait for it.
                let task = tokio::spawn(async move {
                    let fetched = this.fetch().await;
                    *this.fetching.lock() = None;
                    fetched
                });
                let joined = task.map(|ended| ended.unwrap_or_else(|e| Err(Failure::new(e.to_string()))));
                joined.boxed().shared()
            };
            fetching.get_or_insert_with(begin).clone()
        };
        fetching.await
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let call = self.line.call("FetchKeys", self.limit, |mut client| async move {
            client.fetch_keys(FetchKeysRequest {}).await
        });
        let fetched = match call.await {
            Ok(response) => key_set(&response).map(|set| (set, seconds(response.data_timestamp))),
            Err(status) => {
                Err(Failure::from(status).during("while getting externally supported jwt signing keys"))
            }
        };
        self.line.measures.fetched(fetched.as_ref().map(|(_, stamp)| *stamp));
        let (set, _) = fetched.map_err(|failure| failure.during("while fetching token verification keys"))?;
        *self.current.write() = Arc::new(set);
        Ok(())
    }

    /// Fetches the keys whenever the signer said that they may have changed.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut next = self.current().fresh_until.unwrap_or_else(Instant::now);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let synced = tokio::select! {
                () = shutdown.cancelled() => return,
                synced = self.sync() => synced,
            };
            next = due(&synced, self.current().fresh_until, Instant::now());
            if let Err(failure) = synced {
                tracing::error!(%failure, "when syncing supported public keys(Stale set of keys will be supported)");
            }
        }
    }
}

/// When keys are to be fetched next.
fn due(synced: &Result<(), Failure>, fresh_until: Option<Instant>, now: Instant) -> Instant {
    match (synced, fresh_until) {
        (Ok(()), Some(until)) => until,
        _ => now + AGAIN,
    }
}

fn seconds(stamp: Option<Timestamp>) -> f64 {
    stamp.map_or(0.0, |stamp| stamp.seconds as f64 + f64::from(stamp.nanos) / 1e9)
}

/// Whether it is a moment of the years 1 to 9999, in the words of Go's protobuf.
fn check_stamp(stamp: Option<Timestamp>) -> Result<(), String> {
    let Some(Timestamp { seconds, nanos }) = stamp else { return Err("invalid nil Timestamp".into()) };
    let shown = match nanos {
        0 => format!("seconds:{seconds}"),
        _ => format!("seconds:{seconds} nanos:{nanos}"),
    };
    match seconds {
        ..-62_135_596_800 => Err(format!("timestamp ({shown}) before 0001-01-01")),
        253_402_300_800.. => Err(format!("timestamp ({shown}) after 9999-12-31")),
        _ if !(0..1_000_000_000).contains(&nanos) => {
            Err(format!("timestamp ({shown}) has out-of-range nanos"))
        }
        _ => Ok(()),
    }
}

/// The keys that a signer tells of, if all is well with each of them.
fn key_set(response: &FetchKeysResponse) -> Result<KeySet, Failure> {
    let hint = response.refresh_hint_seconds;
    let refresh = u64::try_from(hint).ok().filter(|hint| *hint > 0);
    let refresh = refresh.ok_or_else(|| Failure::new(format!("found invalid refresh hint ({hint}s)")))?;
    if response.keys.is_empty() {
        return Err(Failure::new("found no keys"));
    }
    check_stamp(response.data_timestamp)
        .map_err(|why| Failure::new(format!("invalid data timestamp: {why}")))?;
    let mut keys = Vec::new();
    for key in &response.keys {
        if key.key_id.is_empty() || key.key_id.len() > LONGEST_KEY_ID {
            return Err(Failure::new(format!("found invalid public key id {:?}", key.key_id)));
        }
        if key.key.is_empty() {
            return Err(Failure::new("found empty public key"));
        }
        let parsed = PublicKey::from_spki(&key.key)
            .map_err(|error| Failure::new(format!("while parsing external public keys: {error}")))?;
        keys.push((parsed.named(&key.key_id), key.exclude_from_oidc_discovery));
    }
    // A hint of ages is one of never, not an overflow.
    let fresh_until = Instant::now() + Duration::from_secs(refresh.min(u64::from(u32::MAX)));
    Ok(KeySet::external(keys, fresh_until))
}

#[cfg(test)]
mod tests {
    use super::super::generated::Key;
    use super::*;
    use expect_test::{Expect, expect};

    fn response() -> FetchKeysResponse {
        let key = pki::PrivateKey::generate().unwrap().public().spki().to_vec();
        FetchKeysResponse {
            keys: vec![Key { key_id: "a".into(), key, exclude_from_oidc_discovery: true }],
            data_timestamp: Some(Timestamp { seconds: 1, nanos: 0 }),
            refresh_hint_seconds: 5,
        }
    }

    fn check(change: impl FnOnce(&mut FetchKeysResponse), wanted: Expect) {
        let mut response = response();
        change(&mut response);
        let said = key_set(&response).map_or_else(|f| f.to_string(), |_| "good".into());
        wanted.assert_eq(&said);
    }

    #[test]
    fn keys_are_taken_if_all_is_well_with_them() {
        check(|_| (), expect!["good"]);
        check(|r| r.refresh_hint_seconds = 0, expect!["found invalid refresh hint (0s)"]);
        check(|r| r.refresh_hint_seconds = -1, expect!["found invalid refresh hint (-1s)"]);
        check(|r| r.refresh_hint_seconds = i64::MAX, expect!["good"]);
        check(|r| r.keys.clear(), expect!["found no keys"]);
        check(|r| r.data_timestamp = None, expect!["invalid data timestamp: invalid nil Timestamp"]);
        let stamp = |seconds, nanos| {
            move |r: &mut FetchKeysResponse| {
                r.data_timestamp = Some(Timestamp { seconds, nanos });
            }
        };
        check(
            stamp(i64::MIN, 0),
            expect!["invalid data timestamp: timestamp (seconds:-9223372036854775808) before 0001-01-01"],
        );
        check(
            stamp(i64::MAX, 0),
            expect!["invalid data timestamp: timestamp (seconds:9223372036854775807) after 9999-12-31"],
        );
        check(
            stamp(1, -1),
            expect!["invalid data timestamp: timestamp (seconds:1 nanos:-1) has out-of-range nanos"],
        );
        check(|r| r.keys[0].key_id.clear(), expect![[r#"found invalid public key id """#]]);
        check(|r| r.keys[0].key_id = "k".repeat(1024), expect!["good"]);
        let long = |r: &mut FetchKeysResponse| r.keys[0].key_id = "k".repeat(1025);
        let mut longer = response();
        long(&mut longer);
        assert!(key_set(&longer).unwrap_err().to_string().starts_with("found invalid public key id"));
        check(|r| r.keys[0].key.clear(), expect!["found empty public key"]);
        check(
            |r| r.keys[0].key = b"no key".to_vec(),
            expect!["while parsing external public keys: public key: not a SubjectPublicKeyInfo"],
        );
    }

    #[test]
    fn keys_are_fetched_when_due_and_soon_after_a_failure() {
        let now = Instant::now();
        let until = now + Duration::from_secs(300);
        assert_eq!(due(&Ok(()), Some(until), now), until);
        assert_eq!(due(&Err(Failure::new("gone")), Some(until), now), now + AGAIN);
    }
}
