//! The plugin's configuration: whom to ask, and how long answers hold. Like upstream's, it is of no kind.

use crate::admission::roster::Fault;
use apimachinery::time::Duration as ApiDuration;
use serde::Deserialize;
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::admission) struct Configuration {
    pub(super) kubeconfig: String,
    pub(super) allow_ttl: Duration,
    pub(super) deny_ttl: Duration,
    pub(super) retry_backoff: Duration,
    /// Whether images may be used that nobody can be asked about.
    pub(super) default_allow: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    image_policy: Policy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    kube_config_file: String,
    #[serde(rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(rename = "denyTTL")]
    deny_ttl: i64,
    retry_backoff: i64,
    default_allow: bool,
}

/// What a number of the file may be, and is when it is zero.
struct Range {
    /// The number counts these, in nanoseconds.
    unit: i64,
    least: ApiDuration,
    most: ApiDuration,
    default: ApiDuration,
}

const SECOND: i64 = 1_000_000_000;

fn seconds(default: i64) -> Range {
    Range {
        unit: SECOND,
        least: ApiDuration::from_seconds(1),
        most: ApiDuration::from_seconds(30 * 60),
        default: ApiDuration::from_seconds(default),
    }
}

fn backoff() -> Range {
    Range {
        unit: SECOND / 1000,
        least: ApiDuration::from_nanoseconds(1),
        most: ApiDuration::from_seconds(5 * 60),
        default: ApiDuration::from_nanoseconds(SECOND / 2),
    }
}

impl Range {
    /// The time that a number stands for; -1 is none at all.
    fn read(&self, number: i64) -> Result<Duration, String> {
        let value = match number {
            -1 => return Ok(Duration::ZERO),
            0 => self.default,
            number => ApiDuration::from_nanoseconds(number.saturating_mul(self.unit)),
        };
        let outside = || format!("valid value is between {} and {}, got {value}", self.least, self.most);
        let within = value >= self.least && value <= self.most;
        value.to_std().filter(|_| within).ok_or_else(outside)
    }
}

/// The configuration of a text, which there must be.
pub(in crate::admission) fn read(text: Option<&str>) -> Result<Configuration, Fault> {
    let text = text.ok_or_else(|| "no config specified".to_owned())?;
    let tree = schema::decode::free_yaml(text, schema::decode::FieldValidation::Ignore);
    let value = tree.map_err(|error| error.to_string())?.value;
    let File { image_policy: policy } = File::deserialize(value).map_err(|error| error.to_string())?;
    Ok(Configuration {
        retry_backoff: backoff().read(policy.retry_backoff)?,
        allow_ttl: seconds(5 * 60).read(policy.allow_ttl)?,
        deny_ttl: seconds(30).read(policy.deny_ttl)?,
        default_allow: policy.default_allow,
        kubeconfig: policy.kube_config_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seconds_and_milliseconds() {
        let of = |members: &str| read(Some(&format!("imagePolicy: {{{members}}}")));
        let default = of("kubeConfigFile: /a").unwrap();
        let told =
            |c: &Configuration| (c.retry_backoff.as_millis(), c.allow_ttl.as_secs(), c.deny_ttl.as_secs());
        assert_eq!(told(&default), (500, 300, 30));
        let own = of("allowTTL: 1, denyTTL: -1, retryBackoff: 20, defaultAllow: true").unwrap();
        assert_eq!((told(&own), own.default_allow), ((20, 1, 0), true));
        let refused = |members: &str| match of(members).unwrap_err() {
            Fault::Configuration(why) | Fault::Initialization(why) => why,
        };
        assert_eq!(refused("allowTTL: 1801"), "valid value is between 1s and 30m0s, got 30m1s");
        assert_eq!(refused("retryBackoff: -2"), "valid value is between 1ns and 5m0s, got -2ms");
        assert_eq!(read(None), Err(Fault::Configuration("no config specified".into())));
    }
}
