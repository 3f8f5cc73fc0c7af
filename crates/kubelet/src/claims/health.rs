//! How the devices of claims are, as their drivers tell: shown in the status of the pods that have them, and not known any
//! more when a driver has said nothing for too long. On disk over restarts, in upstream's form. Upstream:
//! `cm/dra/healthinfo.go`, KEP-4680.

use super::Claims;
use super::state::Device;
use crate::plugins::dra_health::dra_resource_health_client::DraResourceHealthClient;
use crate::plugins::dra_health::{DeviceHealth, HealthStatus, NodeWatchResourcesRequest};
use crate::saved;
use api::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};
use apimachinery::time::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;

const FILE: &str = "dra_health_state";
/// How long a word counts whose driver does not say it. Upstream: `DefaultHealthTimeout`.
const USUAL: Duration = Duration::from_secs(30);
/// Before a stream that has ended is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes of a message. Upstream: `ResourceHealthMessageMaxLength`.
const MOST: usize = 1024;
const UNKNOWN: &str = "Unknown";

/// What a driver said of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Word {
    pool_name: String,
    device_name: String,
    health: String,
    #[serde(serialize_with = "shown", deserialize_with = "read")]
    last_updated: Timestamp,
    /// Nanoseconds.
    health_check_timeout: i64,
    #[serde(default)]
    message: String,
}

fn shown<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// All of one driver, by pool and name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Words {
    devices: BTreeMap<String, Word>,
}

/// All drivers'.
#[derive(Debug)]
pub(super) struct Health {
    path: PathBuf,
    words: Mutex<BTreeMap<String, Words>>,
}

impl Word {
    fn of(told: DeviceHealth, now: Timestamp) -> Self {
        let health = match told.health() {
            HealthStatus::Healthy => "Healthy",
            HealthStatus::Unhealthy => "Unhealthy",
            HealthStatus::Unknown => UNKNOWN,
        };
        let seconds = u64::try_from(told.health_check_timeout_seconds).unwrap_or(0);
        let counts = if seconds > 0 { Duration::from_secs(seconds) } else { USUAL };
        let device = told.device.unwrap_or_default();
        Word {
            pool_name: device.pool_name,
            device_name: device.device_name,
            health: health.into(),
            last_updated: now,
            health_check_timeout: i64::try_from(counts.as_nanos()).unwrap_or(i64::MAX),
            message: shortened(told.message),
        }
    }

    /// How long it still counts.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let counts = match u64::try_from(self.health_check_timeout) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => USUAL,
        };
        let age = now.duration_since(self.last_updated);
        counts.checked_sub(Duration::try_from(age).unwrap_or_default())
    }

    fn same(&self, other: &Word) -> bool {
        (&self.health, &self.message, self.health_check_timeout)
            == (&other.health, &other.message, other.health_check_timeout)
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MOST {
        let mut end = MOST - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message += "...";
    }
    message
}

fn key(pool: &str, device: &str) -> String {
    format!("{pool}/{device}")
}

impl Health {
    pub(super) fn load(root_dir: &Path) -> Self {
        let path = root_dir.join(FILE);
        let words = match std::fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(words)) => words,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what drivers said of devices cannot be read");
                BTreeMap::new()
            }
            Err(_) => BTreeMap::new(),
        };
        Health { path, words: Mutex::new(words) }
    }

    fn write(&self, words: &BTreeMap<String, Words>) {
        if let Err(error) = saved::replace(&self.path, words) {
            tracing::warn!(%error, "what drivers said of devices was not written");
        }
    }

    /// How a device is, and what its driver has to say of that.
    fn of(&self, driver: &str, device: &Device, now: Timestamp) -> (String, String) {
        let words = self.words.lock();
        let known =
            words.get(driver).and_then(|all| all.devices.get(&key(&device.pool_name, &device.device_name)));
        match known.filter(|word| word.left(now).is_some()) {
            Some(word) => (word.health.clone(), word.message.clone()),
            None => (UNKNOWN.into(), String::new()),
        }
    }

    /// Takes what a driver says of all its devices; whether any of that is news.
    fn take(&self, driver: &str, told: Vec<DeviceHealth>, now: Timestamp) -> bool {
        let mut words = self.words.lock();
        let known = words.entry(driver.to_owned()).or_default();
        let mut changed = false;
        for told in told {
            let word = Word::of(told, now);
            let before = known.devices.insert(key(&word.pool_name, &word.device_name), word.clone());
            changed |= before.is_none_or(|before| !before.same(&word));
        }
        // What it does not speak of any more counts until it is old.
        for word in known.devices.values_mut() {
            if word.health != UNKNOWN && word.left(now).is_none() {
                (word.health, word.message, word.last_updated) = (UNKNOWN.into(), String::new(), now);
                changed = true;
            }
        }
        if changed {
            self.write(&words);
        }
        changed
    }

    /// Until the first of a driver's words is too old.
    fn next(&self, driver: &str, now: Timestamp) -> Option<Duration> {
        let words = self.words.lock();
        let all = words.get(driver)?.devices.values();
        all.filter(|word| word.health != UNKNOWN).filter_map(|word| word.left(now)).min()
    }

    fn forget(&self, driver: &str) -> bool {
        let mut words = self.words.lock();
        let known = words.remove(driver).is_some();
        if known {
            self.write(&words);
        }
        known
    }
}

/// Hears from a driver how its devices are, for ever. One that does not tell is not asked again.
pub(super) async fn listen(claims: &Claims, driver: &str, channel: Channel) {
    if !claims.features.health {
        return std::future::pending().await;
    }
    loop {
        let mut client = DraResourceHealthClient::new(channel.clone());
        match client.node_watch_resources(NodeWatchResourcesRequest {}).await {
            Ok(stream) => {
                hear(claims, driver, stream.into_inner()).await;
                claims.forget_health(driver);
            }
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                return std::future::pending().await;
            }
            Err(status) => tracing::debug!(driver, %status, "a driver does not tell how its devices are"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the stream ends.
async fn hear(
    claims: &Claims,
    driver: &str,
    mut stream: tonic::Streaming<crate::plugins::dra_health::NodeWatchResourcesResponse>,
) {
    loop {
        let old = claims.health.next(driver, Timestamp::now());
        let old = async {
            match old {
                // A moment later it is past its time.
                Some(left) => tokio::time::sleep(left + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(told)) => {
                    if claims.health.take(driver, told.devices, Timestamp::now()) {
                        claims.tell();
                    }
                }
                Ok(None) | Err(_) => return,
            },
            () = old => claims.tell(),
        }
    }
}

impl Claims {
    /// Nobody vouches for a driver's devices any more.
    pub(super) fn forget_health(&self, driver: &str) {
        if self.health.forget(driver) {
            self.tell();
        }
    }

    /// How the devices of a container's claims are. Upstream: `UpdateAllocatedResourcesStatus`.
    pub(crate) fn health(&self, pod: &Pod, container: &Container) -> Vec<ResourceStatus> {
        let now = Timestamp::now();
        let state = self.state.lock();
        let mut out: Vec<ResourceStatus> = Vec::new();
        for wanted in &container.resources.claims {
            let of_pod = pod.spec.resource_claims.iter().find(|claim| claim.name == wanted.name);
            let name = of_pod.and_then(|claim| super::name_of(pod, claim).ok()?.0);
            let claim = name.and_then(|name| state.get(&(pod.metadata.namespace.clone(), name)));
            let Some(claim) = claim else { continue };
            let name = match wanted.request.as_str() {
                "" => format!("claim:{}", wanted.name),
                request => format!("claim:{}/{request}", wanted.name),
            };
            let mut resources: Vec<ResourceHealth> = Vec::new();
            for (driver, devices) in &claim.drivers {
                for device in devices.iter().filter(|device| device.is_for(&wanted.request)) {
                    let fallback = || format!("{driver}/{}/{}", device.pool_name, device.device_name);
                    let resource_id = device.cdi_device_ids.first().cloned().unwrap_or_else(fallback);
                    if resources.iter().any(|known| known.resource_id == resource_id) {
                        continue;
                    }
                    let (health, message) = self.health.of(driver, device, now);
                    let message = Some(message).filter(|told| self.features.messages && !told.is_empty());
                    resources.push(ResourceHealth { resource_id, health, message });
                }
            }
            if !resources.is_empty() {
                out.push(ResourceStatus { name, resources });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::dra_health::DeviceIdentifier;
    use expect_test::expect;

    /// `oar-1=unhealthy:wet!5`: a device, how it is, a message and for how long that counts.
    fn told(text: &str) -> Vec<DeviceHealth> {
        let one = |word: &str| {
            let (word, seconds) = word.split_once('!').unwrap_or((word, "0"));
            let (word, message) = word.split_once(':').unwrap_or((word, ""));
            let (name, health) = word.split_once('=').unwrap();
            let health = match health {
                "healthy" => HealthStatus::Healthy,
                "unhealthy" => HealthStatus::Unhealthy,
                _ => HealthStatus::Unknown,
            };
            DeviceHealth {
                device: Some(DeviceIdentifier { pool_name: "pool".into(), device_name: name.into() }),
                health: health.into(),
                last_updated_time: 0,
                health_check_timeout_seconds: seconds.parse().unwrap(),
                message: message.into(),
            }
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn words_count_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::load(dir.path());
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let mut out = String::new();
        for (seconds, says) in [
            (0, "oar-1=healthy oar-2=unhealthy:wet!5"),
            // The same is no news, and counts anew.
            (2, "oar-1=healthy oar-2=unhealthy:wet!5"),
            (6, "oar-1=healthy"),
            // By now nobody has spoken of the second for too long.
            (8, "oar-1=healthy"),
            (9, "oar-1=healthy:fine"),
        ] {
            let news = health.take("oars", told(says), at(seconds));
            let shown = ["oar-1", "oar-2"].map(|name| {
                let device =
                    Device { pool_name: "pool".into(), device_name: name.into(), ..Default::default() };
                let (health, message) = health.of("oars", &device, at(seconds));
                format!("{name} {health} {message}")
            });
            let next = health.next("oars", at(seconds)).map(|left| left.as_secs());
            out += &format!("{seconds}: news {news}, {}, next {next:?}\n", shown.join(", "));
        }
        expect![[r#"
            0: news true, oar-1 Healthy , oar-2 Unhealthy wet, next Some(5)
            2: news false, oar-1 Healthy , oar-2 Unhealthy wet, next Some(5)
            6: news false, oar-1 Healthy , oar-2 Unhealthy wet, next Some(1)
            8: news true, oar-1 Healthy , oar-2 Unknown , next Some(30)
            9: news true, oar-1 Healthy fine, oar-2 Unknown , next Some(30)
        "#]]
        .assert_eq(&out);
        // Another kubelet knows as much, as long as that counts.
        let again = Health::load(dir.path());
        let device = Device { pool_name: "pool".into(), device_name: "oar-1".into(), ..Default::default() };
        assert_eq!(again.of("oars", &device, at(20)), ("Healthy".into(), "fine".into()));
        assert_eq!(again.of("oars", &device, at(60)), (UNKNOWN.into(), String::new()));
        assert!(again.forget("oars") && !again.forget("oars"));
        assert_eq!(again.of("oars", &device, at(20)).0, UNKNOWN);
        assert_eq!(shortened("ä".repeat(600)).len(), 1023);
    }
}
