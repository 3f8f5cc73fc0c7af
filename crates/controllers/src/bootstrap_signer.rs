//! Signs the cluster's published kubeconfig with every bootstrap token, so that who joins with one knows it is the right
//! cluster. Upstream: `bootstrap-signer`.

use crate::Context;
use crate::support::{now, queue};
use api::core::v1::{ConfigMap, Secret};
use apimachinery::time::Time;
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Error, Informer, ObjectKey, Projection};
use std::collections::BTreeMap;
use std::time::Duration;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
const SECRETS: &str = "kube-system";
const SECRET: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Nothing is kept of the map: it is one.
struct Info;

impl Projection for Info {
    type Kind = ConfigMap;

    fn project(_: &ConfigMap) -> Self {
        Info
    }
}

/// Nothing is kept of tokens: they are decoded while something is signed.
struct Token;

impl Projection for Token {
    type Kind = Secret;

    fn project(_: &Secret) -> Self {
        Token
    }
}

/// Id, secret and end of a token that may sign now.
fn usable(secret: &Secret, now: Time) -> Option<(String, Vec<u8>, Option<Time>)> {
    let data = |key: &str| secret.data.get(key).map(|value| value.0.as_slice()).unwrap_or_default();
    let id = std::str::from_utf8(data("token-id")).ok().filter(|id| !id.is_empty())?;
    let named = secret.metadata.name.strip_prefix(SECRET) == Some(id);
    let key = data("token-secret");
    let ends = match std::str::from_utf8(data("expiration")).ok()? {
        "" => None,
        text => Some(text.parse::<Time>().ok()?),
    };
    let may = named && !key.is_empty() && data("usage-bootstrap-signing") == b"true";
    (may && ends.is_none_or(|ends| ends > now)).then(|| (id.to_owned(), key.to_vec(), ends))
}

/// The map's data with the signatures it should have.
fn signed(data: &BTreeMap<String, String>, tokens: &[(String, Vec<u8>)]) -> BTreeMap<String, String> {
    let mut signed = data.clone();
    signed.retain(|key, _| !key.starts_with(SIGNATURE));
    let Some(kubeconfig) = data.get(KUBECONFIG) else { return data.clone() };
    for (id, secret) in tokens {
        let signature = pki::jwt::detached(kubeconfig.as_bytes(), id, secret);
        signed.insert(format!("{SIGNATURE}{id}"), signature);
    }
    signed
}

/// Runs until shutdown. There is one key: the map.
pub(crate) async fn run(context: Context) {
    let info = Query::of::<ConfigMap>().in_namespace(NAMESPACE).fields(format!("metadata.name={NAME}"));
    let info: Informer<Info> = context.informers.query(info);
    let tokens = Query::of::<Secret>().in_namespace(SECRETS).fields(format!("type={TYPE}"));
    let tokens: Informer<Token> = context.informers.query(tokens);
    info.synced().await;
    tokens.synced().await;
    let key = ObjectKey::new(NAMESPACE, NAME);
    let queue = queue();
    let (changed, only) = (queue.clone(), key.clone());
    info.subscribe(move |_| changed.add(only.clone()));
    let changed = queue.clone();
    tokens.subscribe(move |_| changed.add(key.clone()));
    let writes = Writes::default();
    let noted = writes.clone();
    let client = context.client;
    work("bootstrap_signer_queue", queue, writes, 1, context.shutdown, move |key| {
        let (info, tokens, client, noted) = (info.clone(), tokens.clone(), client.clone(), noted.clone());
        async move {
            let Some(cached) = info.get(&key) else { return Ok(Outcome::Done) };
            let (mut keys, mut next, now) = (Vec::new(), None, now());
            for token in tokens.list() {
                let Some((id, secret, ends)) = usable(&token.decode()?, now) else { continue };
                next = next.into_iter().chain(ends).min();
                keys.push((id, secret));
            }
            let mut map = cached.decode()?;
            let data = signed(&map.data, &keys);
            if data != map.data {
                map.data = data;
                match client.namespaced::<ConfigMap>(NAMESPACE).update(&map).await {
                    Ok(written) => noted.note(&key, &info, &written.metadata.resource_version),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err::<_, Error>(error),
                }
            }
            Ok(match next {
                Some(ends) => {
                    Outcome::After(Duration::from_secs((ends.unix() - now.unix()).max(1).unsigned_abs()))
                }
                None => Outcome::Done,
            })
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_sign_as_long_as_they_may() {
        let check = |name: &str, data: &[(&str, &str)], want: bool| {
            let mut secret = Secret::default();
            secret.metadata.name = name.into();
            secret.data = data.iter().map(|(k, v)| (k.to_string(), v.as_bytes().to_vec().into())).collect();
            assert_eq!(usable(&secret, Time::from_unix(100)).is_some(), want, "{name} {data:?}");
        };
        let base = [("token-id", "abc"), ("token-secret", "s"), ("usage-bootstrap-signing", "true")];
        let with = |more: (&'static str, &'static str)| [base[0], base[1], base[2], more];
        check("bootstrap-token-abc", &base, true);
        check("bootstrap-token-abd", &base, false);
        check("bootstrap-token-abc", &base[..2], false);
        check("bootstrap-token-abc", &with(("expiration", "1970-01-01T00:00:01Z")), false);
        check("bootstrap-token-abc", &with(("expiration", "2070-01-01T00:00:01Z")), true);
    }

    #[test]
    fn old_signatures_go() {
        let data = [("kubeconfig", "k"), ("jws-kubeconfig-old", "x")];
        let data: BTreeMap<_, _> = data.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let signed = signed(&data, &[("new".into(), b"s".to_vec())]);
        assert_eq!(
            signed.keys().map(String::as_str).collect::<Vec<_>>(),
            ["jws-kubeconfig-new", "kubeconfig"]
        );
        assert_eq!(super::signed(&signed, &[("new".into(), b"s".to_vec())]), signed);
    }
}
