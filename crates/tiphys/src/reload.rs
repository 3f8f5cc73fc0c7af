//! Certificates, keys and authorities that are read anew when their files change, without a restart.

use crate::follow::{Follow, Outcome, User};
use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use pki::tls::{ClientRoots, Slot};
use pki::{Certificate, San};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is kept up with its files.
#[derive(Clone, Debug)]
pub(crate) enum Reload {
    Pair { chain: PathBuf, key: PathBuf, slot: Arc<Slot> },
    Roots { file: PathBuf, roots: ClientRoots },
}

impl Reload {
    pub(crate) fn pair(chain: &Path, key: &Path, slot: Arc<Slot>) -> Self {
        Reload::Pair { chain: chain.to_owned(), key: key.to_owned(), slot }
    }

    pub(crate) fn roots(file: &Path, roots: ClientRoots) -> Self {
        Reload::Roots { file: file.to_owned(), roots }
    }

    fn files(&self) -> Vec<&PathBuf> {
        match self {
            Reload::Pair { chain, key, .. } => vec![chain, key],
            Reload::Roots { file, .. } => vec![file],
        }
    }

    /// Takes what the files hold now.
    fn take(&self) -> Result<()> {
        match self {
            Reload::Pair { chain, key, slot } => {
                slot.set_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?
            }
            Reload::Roots { file, roots } => roots.set_pem(&std::fs::read(file)?)?,
        }
        Ok(())
    }

    /// Follows the files until `shutdown`.
    pub(crate) fn start(self, tasks: &TaskTracker, shutdown: &CancellationToken) -> Result<()> {
        for file in self.files() {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            let follow = Follow::new(file, &text, One { reload: self.clone(), file: file.clone() });
            let follow = follow.with_context(|| format!("watching {}", file.display()))?;
            tasks.spawn(follow.run(shutdown.clone()));
        }
        Ok(())
    }
}

/// One of the files.
struct One {
    reload: Reload,
    file: PathBuf,
}

impl User for One {
    fn apply<'a>(&'a mut self, _: &'a str) -> BoxFuture<'a, Outcome> {
        let outcome = match self.reload.take() {
            Ok(()) => {
                tracing::info!(file = %self.file.display(), "read anew");
                Outcome::Settled
            }
            // A certificate is there before its key, or the other way round.
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "cannot be used yet");
                Outcome::Again
            }
        };
        Box::pin(std::future::ready(outcome))
    }

    fn unreadable(&mut self, error: &std::io::Error) {
        tracing::warn!(file = %self.file.display(), %error, "cannot be read anew");
    }
}

/// A value of `--tls-sni-cert-key`.
#[derive(Clone, Debug)]
pub(crate) struct NamedPair {
    pub chain: PathBuf,
    pub key: PathBuf,
    given: Vec<String>,
}

impl NamedPair {
    pub(crate) fn parse(value: &str) -> Result<Self> {
        let (files, names) = match value.split_once(':') {
            Some((_, names)) if names.trim().is_empty() => bail!("empty names list is not allowed"),
            Some((files, names)) => (files, names.split(',').map(|name| name.trim().to_owned()).collect()),
            None => (value, Vec::new()),
        };
        let files: Vec<&str> = files.split(',').map(str::trim).collect();
        let [chain, key] = files.as_slice() else {
            bail!("expected comma separated certificate and key file paths");
        };
        Ok(NamedPair { chain: chain.into(), key: key.into(), given: names })
    }

    /// The names that were given, or those of the certificate.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        if !self.given.is_empty() {
            return Ok(self.given.clone());
        }
        let chain = pki::pem::certificates(&std::fs::read(&self.chain)?)?;
        let Some(leaf) = chain.first() else { bail!("no certificate in {}", self.chain.display()) };
        let leaf = Certificate::from_der(leaf)?;
        let mut names = vec![leaf.subject.common_name.clone()];
        names.extend(leaf.sans.iter().filter_map(|san| match san {
            San::Dns(name) => Some(name.clone()),
            _ => None,
        }));
        names.retain(|name| !name.is_empty());
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(value: &str, expected: Expect) {
        expected.assert_eq(&match NamedPair::parse(value) {
            Ok(pair) => format!("{} {} {:?}", pair.chain.display(), pair.key.display(), pair.given),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn pairs_and_names() {
        check("a.crt,a.key", expect!["a.crt a.key []"]);
        check("a.crt, a.key:*.foo.com, foo.com", expect![[r#"a.crt a.key ["*.foo.com", "foo.com"]"#]]);
        check("a.crt,a.key:", expect!["empty names list is not allowed"]);
        check("a.crt", expect!["expected comma separated certificate and key file paths"]);
    }
}
