//! Removes bootstrap tokens whose time is over. Upstream: `token-cleaner`.

use crate::Context;
use crate::support::{now, queue};
use api::core::v1::Secret;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::Time;
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Change, Error, Informer, Projection};
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

/// What is kept of a token: when it ends. The token itself is not.
struct Facts {
    expires: Expires,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expires {
    Never,
    At(Time),
    /// What it says is no time: nobody can say that it still holds.
    Unreadable,
}

fn expires(secret: &Secret) -> Expires {
    let Some(text) = secret.data.get(EXPIRATION).filter(|text| !text.is_empty()) else {
        return Expires::Never;
    };
    let time = std::str::from_utf8(&text.0).ok().and_then(|text| text.parse().ok());
    time.map_or(Expires::Unreadable, Expires::At)
}

impl Projection for Facts {
    type Kind = Secret;

    fn project(secret: &Secret) -> Self {
        Facts { expires: expires(secret) }
    }
}

/// Runs until shutdown. Keys are secrets.
pub(crate) async fn run(context: Context) {
    let query = Query::of::<Secret>().in_namespace(NAMESPACE).fields(format!("type={TYPE}"));
    let tokens: Informer<Facts> = context.informers.query(query);
    let queue = queue();
    let changed = queue.clone();
    tokens.subscribe(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            changed.add(change.object().key().clone());
        }
    });
    tokens.synced().await;
    let client = context.client;
    work("token_cleaner", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (tokens, client) = (tokens.clone(), client.clone());
        async move {
            let Some(token) = tokens.get(&key) else { return Ok(Outcome::Done) };
            match token.expires {
                Expires::Never => return Ok(Outcome::Done),
                Expires::At(at) if at > now() => {
                    let left = (at.unix() - now().unix()).max(1).unsigned_abs();
                    return Ok(Outcome::After(Duration::from_secs(left)));
                }
                Expires::At(_) | Expires::Unreadable => {}
            }
            let preconditions = Preconditions { uid: Some(token.uid.to_string()), ..Default::default() };
            let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
            match client.namespaced::<Secret>(&key.namespace).delete(&key.name, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err::<_, Error>(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_when_they_say() {
        let check = |text: Option<&str>, want: Expires| {
            let mut secret = Secret::default();
            secret.data.extend(text.map(|text| (EXPIRATION.to_owned(), text.as_bytes().to_vec().into())));
            assert_eq!(expires(&secret), want);
        };
        check(None, Expires::Never);
        check(Some(""), Expires::Never);
        check(Some("1970-01-01T00:00:09Z"), Expires::At(Time::from_unix(9)));
        check(Some("tomorrow"), Expires::Unreadable);
    }
}
