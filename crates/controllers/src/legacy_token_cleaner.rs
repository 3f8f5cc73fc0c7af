//! Marks, and a year later removes, tokens in secrets that were made for service accounts of old and that nobody uses.
//! Upstream: `legacy-service-account-token-cleaner`, which looks once a day, too.

use crate::Context;
use crate::pods::PodFacts;
use crate::support::now;
use api::core::v1::{ConfigMap, Secret, ServiceAccount};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::{Duration as Span, Time};
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Cached, Client, Error, Informer, Patch, PatchParams, Projection, Queue};
use std::sync::Arc;
use std::time::Duration;

const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// `--legacy-service-account-token-clean-up-period`, in days.
const PERIOD: i64 = 365;
const DAY: i64 = 24 * 3600;

/// What is kept of a token.
#[derive(Debug)]
struct Facts {
    account: String,
    account_uid: String,
    created: Time,
    deleting: bool,
    last_used: Option<String>,
    invalid_since: Option<String>,
}

impl Projection for Facts {
    type Kind = Secret;

    fn project(secret: &Secret) -> Self {
        let meta = &secret.metadata;
        let annotation = |name: &str| meta.annotations.get(name).cloned().unwrap_or_default();
        Facts {
            account: annotation("kubernetes.io/service-account.name"),
            account_uid: annotation("kubernetes.io/service-account.uid"),
            created: meta.creation_timestamp,
            deleting: meta.deletion_timestamp.is_some(),
            last_used: meta.labels.get(LAST_USED).cloned(),
            invalid_since: meta.labels.get(INVALID_SINCE).cloned(),
        }
    }
}

/// What is kept of an account: nothing, for few are looked at.
struct Account;

impl Projection for Account {
    type Kind = ServiceAccount;

    fn project(_: &ServiceAccount) -> Self {
        Account
    }
}

struct Loop {
    client: Client,
    tokens: Informer<Facts>,
    accounts: Informer<Account>,
    pods: Informer<PodFacts>,
}

fn date(time: Time) -> String {
    time.to_string().get(..10).unwrap_or_default().to_owned()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && format!("{text}T00:00:00Z").parse::<Time>().is_ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keep,
    /// If it was made by the system and no pod mounts it.
    Mark,
    Delete,
}

/// Days compare as they are written.
fn step(token: &Facts, now: Time) -> Step {
    let edge = now.plus(Span::from_seconds(-PERIOD * DAY));
    let unused = match &token.last_used {
        None => true,
        Some(day) => is_date(day) && *day < date(edge),
    };
    if token.deleting || token.created >= edge || !unused {
        return Step::Keep;
    }
    match token.invalid_since.as_deref().filter(|day| is_date(day)) {
        None => Step::Mark,
        Some(day) if day < date(edge).as_str() => Step::Delete,
        Some(_) => Step::Keep,
    }
}

/// Whether tokens have been watched for long enough.
fn knows(since: &str, now: Time) -> bool {
    let since: Option<Time> = format!("{since}T00:00:00Z").parse().ok();
    // From the day after the first.
    since.is_some_and(|since| now.unix() >= since.unix() + (1 + PERIOD) * DAY)
}

/// Runs until shutdown. There is one key: all tokens.
pub(crate) async fn run(context: Context) {
    let query = Query::of::<Secret>().fields(format!("type={TYPE}"));
    let tokens: Informer<Facts> = context.informers.query(query);
    let accounts: Informer<Account> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    tokens.synced().await;
    accounts.synced().await;
    pods.synced().await;
    let queue: Queue<&'static str> = Queue::default();
    queue.add("tokens");
    let this = Arc::new(Loop { client: context.client, tokens, accounts, pods });
    work("legacy-service-account-token-cleaner", queue, Writes::default(), 1, context.shutdown, move |_| {
        let this = this.clone();
        async move { this.reconcile().await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self) -> Result<Outcome, Error> {
        let tracking = self.client.namespaced::<ConfigMap>("kube-system").get(TRACKING).await?;
        let now = now();
        if tracking.data.get("since").is_some_and(|since| knows(since, now)) {
            for token in self.tokens.list() {
                self.look(&token, now).await?;
            }
        }
        Ok(Outcome::After(Duration::from_secs(DAY.unsigned_abs())))
    }

    async fn look(&self, token: &Cached<Facts>, now: Time) -> Result<(), Error> {
        let step = step(token, now);
        if step == Step::Keep || !self.made_by_system(token)? || self.mounted(token) {
            return Ok(());
        }
        let secrets = self.client.namespaced::<Secret>(token.namespace());
        let done = if step == Step::Mark {
            let patch = json!({"metadata": {"uid": *token.uid, "labels": {INVALID_SINCE: date(now)}}});
            secrets.patch(token.name(), &Patch::Merge(patch), &PatchParams::default()).await.map(drop)
        } else {
            let version = Some(token.revision().to_string());
            let preconditions = Preconditions { resource_version: version, ..Default::default() };
            let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
            secrets.delete(token.name(), &options).await.map(drop)
        };
        match done {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Only tokens that their account lists were made by the system.
    fn made_by_system(&self, token: &Cached<Facts>) -> Result<bool, Error> {
        let Some(account) = self.accounts.named(token.namespace(), &token.account) else { return Ok(false) };
        let right = token.account_uid.is_empty() || *token.account_uid == *account.uid;
        Ok(right && account.decode()?.secrets.iter().any(|secret| secret.name == token.name()))
    }

    /// Whether a pod of the namespace refers to the secret. Whatever the field is called: a name that is written nowhere
    /// is not used.
    fn mounted(&self, token: &Cached<Facts>) -> bool {
        let text = apimachinery::value::Value::from(token.name()).to_string();
        let here = self.pods.list().into_iter().filter(|pod| pod.namespace() == token.namespace());
        here.into_iter().any(|pod| pod.raw.bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> Time {
        format!("{day}T12:00:00Z").parse().unwrap()
    }

    #[test]
    fn tokens_are_marked_and_a_year_later_removed() {
        let check = |created: &str, last_used: Option<&str>, invalid: Option<&str>, want: Step| {
            let token = Facts {
                account: "a".into(),
                account_uid: String::new(),
                created: at(created),
                deleting: false,
                last_used: last_used.map(Into::into),
                invalid_since: invalid.map(Into::into),
            };
            assert_eq!(step(&token, at("2026-06-01")), want, "{token:?}");
        };
        check("2026-01-01", None, None, Step::Keep);
        check("2024-01-01", None, None, Step::Mark);
        check("2024-01-01", Some("2026-05-01"), None, Step::Keep);
        check("2024-01-01", Some("2025-05-01"), None, Step::Mark);
        check("2024-01-01", Some("someday"), None, Step::Keep);
        check("2024-01-01", None, Some("2026-05-01"), Step::Keep);
        check("2024-01-01", None, Some("2025-05-01"), Step::Delete);
    }

    #[test]
    fn a_year_is_watched_first() {
        assert!(!knows("2026-01-01", at("2026-12-31")));
        assert!(!knows("2026-01-01", at("2027-01-01")));
        assert!(knows("2026-01-01", at("2027-01-02")));
        assert!(!knows("", at("2027-01-02")));
    }
}
