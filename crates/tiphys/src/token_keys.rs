//! Where the keys of service-account tokens are: in files or the server's own directory, or with a signer behind a
//! socket, which is waited for at the start and says how long tokens may live.

use crate::settings::ServiceAccounts;
use anyhow::{Context as _, Result, ensure};
use apimachinery::time::Duration as ApiDuration;
use apiserver::authn::external_jwt::ExternalSigner;
use apiserver::authn::token_keys::{Keys, Signer};
use apiserver::rooms::token::{EXTENDED, MOUNTED};
use component::metrics::Registry;
use pki::{PrivateKey, PublicKey};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(crate) enum TokenKeys {
    Here {
        signer: Arc<pki::jwt::Signer>,
        /// Keys that tokens may be signed with.
        trusted: Vec<PublicKey>,
    },
    /// The signer's socket: a path, or an abstract name after an `@`.
    Elsewhere(String),
}

/// What comes of it.
pub(crate) struct TokenIssuer {
    pub keys: Keys,
    pub signer: Signer,
    pub longest: Option<Duration>,
    /// How long tokens live that pods mount, if that is longer than they were asked for.
    pub extends: Option<Duration>,
}

/// Upstream's `^@([a-zA-Z0-9_-]+\.)*[a-zA-Z0-9_-]+$`.
fn is_abstract_name(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    name.split('.').all(good)
}

/// As Go shows it.
fn shown(duration: Duration) -> ApiDuration {
    ApiDuration::from_nanoseconds(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

impl TokenKeys {
    pub(crate) fn here(signer: PrivateKey, trusted: Vec<PublicKey>) -> Self {
        TokenKeys::Here { signer: Arc::new(pki::jwt::Signer::new(signer)), trusted }
    }

    /// Those of `--service-account-signing-endpoint`.
    pub(crate) fn elsewhere(endpoint: &str) -> Result<Self> {
        if let Some(name) = endpoint.strip_prefix('@') {
            ensure!(
                is_abstract_name(name),
                "invalid value {endpoint:?} passed for `--service-account-signing-endpoint`, when prefixed with @ must be a valid abstract socket name"
            );
        }
        Ok(TokenKeys::Elsewhere(endpoint.to_owned()))
    }

    /// Waits for the signer, if there is one.
    pub(crate) async fn issuer(&self, accounts: &ServiceAccounts, metrics: &Registry) -> Result<TokenIssuer> {
        let (keys, signer, most) = match self {
            TokenKeys::Here { signer, trusted } => {
                (Keys::fixed(trusted.clone()), Signer::Key(signer.clone()), None)
            }
            TokenKeys::Elsewhere(endpoint) => {
                let signer = ExternalSigner::connect(endpoint, metrics).await;
                let signer = Arc::new(signer.context("while setting up external-jwt-signer")?);
                let most = signer.longest();
                (Keys::External(signer.keys().clone()), Signer::External(signer), Some(most))
            }
        };
        let longest = longest(accounts.longest, most)?;
        if let Some(longest) = longest.filter(|_| accounts.extends) {
            warnings(longest, most).iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        let extended = most.map_or(EXTENDED, |most| most.min(EXTENDED));
        Ok(TokenIssuer { keys, signer, longest, extends: accounts.extends.then_some(extended) })
    }
}

/// The longest life of a token, by the flag and by the most that a signer allows.
fn longest(flag: Option<Duration>, most: Option<Duration>) -> Result<Option<Duration>> {
    if let (Some(flag), Some(most)) = (flag, most) {
        ensure!(
            flag <= most,
            "service-account-max-token-expiration cannot be set longer than the token expiration supported by service-account-signing-endpoint: {} > {}",
            shown(flag),
            shown(most)
        );
    }
    Ok(flag.or(most))
}

/// What is odd about tokens that live longer than was asked for, when none may live longer than this.
fn warnings(longest: Duration, most: Option<Duration>) -> Vec<String> {
    const EXTENDS: &str = "service-account-extend-token-expiration is true";
    let (mounted, extended, life) = (MOUNTED.unsigned_abs(), EXTENDED.as_secs(), shown(longest));
    let mut warnings = Vec::new();
    if longest.as_secs() < mounted {
        let what = match most {
            None => "service-account-max-token-expiration must be set",
            Some(_) => "token lifetime supported by external-jwt-signer must be",
        };
        warnings.push(format!(
            "{EXTENDS}, in order to correctly trigger safe transition logic, {what} longer than {mounted} seconds (currently {life})"
        ));
    }
    if longest < EXTENDED {
        warnings.push(match most {
            None => format!(
                "{EXTENDS}, enabling tokens valid up to {extended} seconds, which is longer than service-account-max-token-expiration set to {life}"
            ),
            Some(_) => format!(
                "{EXTENDS}, tokens validity will be caped at the smaller of {extended} seconds and maximum token lifetime supported by external-jwt-signer ({life})"
            ),
        });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(flag: Option<u64>, most: Option<u64>, wanted: Expect) {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let said = match longest(seconds(flag), seconds(most)) {
            Ok(None) => "no limit".to_owned(),
            Ok(Some(longest)) => {
                let lines =
                    std::iter::once(shown(longest).to_string()).chain(warnings(longest, seconds(most)));
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        wanted.assert_eq(&said);
    }

    #[test]
    fn lives_are_those_that_the_signer_allows() {
        check(None, None, expect!["no limit"]);
        check(
            Some(7200),
            None,
            expect!["
                2h0m0s
                service-account-extend-token-expiration is true, enabling tokens valid up to 31536000 seconds, which is longer than service-account-max-token-expiration set to 2h0m0s"],
        );
        check(Some(31_536_000), None, expect!["8760h0m0s"]);
        check(
            None,
            Some(600),
            expect!["
                10m0s
                service-account-extend-token-expiration is true, in order to correctly trigger safe transition logic, token lifetime supported by external-jwt-signer must be longer than 3607 seconds (currently 10m0s)
                service-account-extend-token-expiration is true, tokens validity will be caped at the smaller of 31536000 seconds and maximum token lifetime supported by external-jwt-signer (10m0s)"],
        );
        check(Some(7200), Some(31_536_000), expect!["
            2h0m0s
            service-account-extend-token-expiration is true, tokens validity will be caped at the smaller of 31536000 seconds and maximum token lifetime supported by external-jwt-signer (2h0m0s)"]);
        check(
            Some(7200),
            Some(3600),
            expect![
                "service-account-max-token-expiration cannot be set longer than the token expiration supported by service-account-signing-endpoint: 2h0m0s > 1h0m0s"
            ],
        );
    }

    #[test]
    fn abstract_sockets_have_names() {
        for good in ["/run/a", "@a", "@a.b-c_D.0"] {
            assert!(TokenKeys::elsewhere(good).is_ok(), "{good}");
        }
        for bad in ["@", "@a..b", "@.a", "@a.", "@a/b", "@a b", "@@a"] {
            let error = TokenKeys::elsewhere(bad).err().unwrap().to_string();
            assert_eq!(
                error,
                format!(
                    "invalid value {bad:?} passed for `--service-account-signing-endpoint`, when prefixed with @ must be a valid abstract socket name"
                )
            );
        }
    }
}
