//! `--enable-bootstrap-token-auth`: tokens `id.secret` of nodes that join, kept in Secrets of kube-system.

use super::tokens::{Answer, Known, TokenAuthenticator};
use crate::object;
use crate::registry::Registry;
use crate::user::User;
use api::core::v1::Secret;
use apimachinery::decode::Decode as _;
use apimachinery::time::Time;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// See the module.
pub struct BootstrapTokens(pub Arc<Registry>);

/// The parts of a token that has the form of one.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (is(id, 6) && is(secret, 16)).then_some((id, secret))
}

/// Whether the name of an extra group is one: `system:bootstrappers:` and `[a-z0-9:-]{0,255}[a-z0-9]`.
fn is_group(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("system:bootstrappers:") else { return false };
    let ends = rest.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let within =
        rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-'));
    ends && within && rest.len() <= 256
}

impl BootstrapTokens {
    fn find(&self, token: &str) -> Answer {
        let Some((id, secret)) = parse(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let Some(secrets) = self.0.resources.get("", "v1", "secrets") else { return Ok(None) };
        let Ok(found) = self.0.get(&secrets, "kube-system", &name) else { return Ok(None) };
        let refuse = |why: &str| {
            tracing::info!("Bootstrap secret kube-system/{name} matching bearer token {why}");
            Ok(None)
        };
        if object::is_being_deleted(&found.value) {
            return refuse("is deleted and awaiting removal");
        }
        let Ok(kept) = Secret::from_value(&found.value) else { return Ok(None) };
        match self.groups(&kept, id, secret) {
            Ok(groups) => Ok(Some(Known {
                user: User { name: format!("system:bootstrap:{id}"), groups, ..Default::default() },
                audiences: Vec::new(),
            })),
            Err(why) => refuse(&why),
        }
    }

    /// The groups of the token that a Secret holds, if it is this one and may be used.
    fn groups(&self, kept: &Secret, id: &str, secret: &str) -> Result<Vec<String>, String> {
        let text = |key: &str| {
            let value = kept.data.get(key).map(|v| String::from_utf8_lossy(v.as_ref()).into_owned());
            value.unwrap_or_default()
        };
        if kept.type_ != TYPE || kept.data.is_empty() {
            return Err(format!("has invalid type, expected {TYPE}."));
        }
        let (have, given) = (text("token-secret"), secret);
        if aws_lc_rs::constant_time::verify_slices_are_equal(have.as_bytes(), given.as_bytes()).is_err() {
            return Err("has invalid value for key token-secret.".into());
        }
        if text("token-id") != id {
            return Err("has invalid value for key token-id.".into());
        }
        let expiration = text("expiration");
        if !expiration.is_empty() {
            match expiration.parse::<Time>() {
                Ok(at) if at.unix() > self.0.clock.now().as_second() => {}
                Ok(_) => return Err("is expired".into()),
                Err(_) => return Err("has unparseable expiration".into()),
            }
        }
        if text("usage-bootstrap-authentication") != "true" {
            return Err("not marked usage-bootstrap-authentication=true.".into());
        }
        let mut groups = BTreeSet::from([GROUP.to_owned()]);
        let extra = text("auth-extra-groups");
        for group in extra.split(',').map(str::trim).filter(|_| !extra.is_empty()) {
            if !is_group(group) {
                return Err(format!(
                    "has invalid value for key auth-extra-groups: bootstrap group {group:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)."
                ));
            }
            groups.insert(group.to_owned());
        }
        Ok(groups.into_iter().collect())
    }
}

impl TokenAuthenticator for BootstrapTokens {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Answer> {
        Box::pin(std::future::ready(self.find(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_tokens_and_groups() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in
            ["", "abcdef", "abcdef.0123456789abcdeF", "abcde.0123456789abcdef", "abcdef.0123456789abcdef.x"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for (group, valid) in [
            ("system:bootstrappers:a:b-c", true),
            ("system:bootstrappers:", false),
            ("system:bootstrappers:a-", false),
            ("system:masters", false),
            ("system:bootstrappers", false),
        ] {
            assert_eq!(is_group(group), valid, "{group}");
        }
    }
}
