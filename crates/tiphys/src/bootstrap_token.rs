//! Bootstrap tokens: what nodes join with. `tiphys token` is as `kubeadm token`.

use crate::places::Places;
use crate::remote;
use anyhow::{Context as _, Result, ensure};
use api::core::v1::Secret;
use api::{ByteString, Kind as _};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Timestamp;
use apiserver::bootstrap::join::TOKEN_GROUP;
use aws_lc_rs::rand;
use clap::Subcommand;
use client::{Client, ListParams};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// `<id>.<secret>`, of 6 and 16 small letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub id: String,
    pub secret: String,
}

/// The secret is not for logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits =
            |part: &str, length: usize| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        match text.split_once('.') {
            Some((id, secret)) if fits(id, 6) && fits(secret, 16) => {
                Ok(Token { id: id.into(), secret: secret.into() })
            }
            _ => {
                Err("the bootstrap token is not of the form \"\\A([a-z0-9]{6})\\.([a-z0-9]{16})\\z\"".into())
            }
        }
    }
}

impl Token {
    fn random() -> Result<Token> {
        let part = |length: usize| -> Result<String> {
            let mut part = String::new();
            while part.len() < length {
                let mut byte = [0];
                rand::fill(&mut byte).map_err(|_| anyhow::anyhow!("no randomness"))?;
                // Each character as likely as any other.
                if byte[0] < 252 {
                    part.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
                }
            }
            Ok(part)
        };
        Ok(Token { id: part(6)?, secret: part(16)? })
    }

    fn secret(&self, until: Option<Timestamp>, description: &str) -> Secret {
        let mut secret = Secret::new();
        secret.metadata.name = format!("{PREFIX}{}", self.id);
        secret.metadata.namespace = NAMESPACE.into();
        secret.type_ = TYPE.into();
        let mut put = |key: &str, value: &str| {
            secret.data.insert(key.into(), ByteString(value.as_bytes().to_vec()));
        };
        put("token-id", &self.id);
        put("token-secret", &self.secret);
        put("usage-bootstrap-authentication", "true");
        put("usage-bootstrap-signing", "true");
        put("auth-extra-groups", TOKEN_GROUP);
        if let Some(until) = until {
            put("expiration", &until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        if !description.is_empty() {
            put("description", description);
        }
        secret
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it.
    Create {
        /// The token itself [default: a random one].
        token: Option<Token>,
        /// The duration before the token is automatically deleted (e.g. 1s, 2m, 3h). If set to '0', the token will never
        /// expire.
        #[arg(long, default_value = "24h", value_parser = crate::cli::duration)]
        ttl: Duration,
        /// A human friendly description of how this token is used.
        #[arg(long, default_value = "")]
        description: String,
        /// Instead of printing only the token, print the full command that a node joins with.
        #[arg(long)]
        print_join_command: bool,
    },
    /// List the tokens, without their secrets.
    List,
    /// Delete tokens, by themselves or by their ids.
    Delete {
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

/// Runs one, as the administrator of the server whose data these places have.
pub(crate) fn run(places: &Places, command: TokenCommand) -> Result<()> {
    pki::tls::install_provider();
    let kubeconfig = places.data_dir.join("admin.kubeconfig");
    let client = remote::of_kubeconfig(&kubeconfig, "tiphys-token")
        .with_context(|| format!("reading {}", kubeconfig.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            TokenCommand::Create { token, ttl, description, print_join_command } => {
                let token = token.map_or_else(Token::random, Ok)?;
                let until = (!ttl.is_zero()).then(|| Timestamp::now() + ttl);
                let secret = token.secret(until, &description);
                client.namespaced::<Secret>(NAMESPACE).create(&secret).await?;
                if !print_join_command {
                    println!("{token}");
                    return Ok(());
                }
                let resolved = pki::Kubeconfig::load(&kubeconfig)?.resolve(None)?;
                let authority = resolved.certificate_authority.context("the kubeconfig has no authority")?;
                let authority = pki::Certificate::from_pem(&authority.0)?;
                println!(
                    "tiphys agent --server {} --token {token} --discovery-token-ca-cert-hash {}",
                    resolved.server,
                    authority.public_key_hash()
                );
                Ok(())
            }
            TokenCommand::List => list(&client).await,
            TokenCommand::Delete { tokens } => {
                for token in tokens {
                    let id = token.split('.').next().unwrap_or_default();
                    ensure!(id.len() == 6, "{id:?} is no token id");
                    let name = format!("{PREFIX}{id}");
                    client.namespaced::<Secret>(NAMESPACE).delete(&name, &DeleteOptions::default()).await?;
                    println!("bootstrap token {id:?} deleted");
                }
                Ok(())
            }
        }
    })
}

async fn list(client: &Client) -> Result<()> {
    let params = ListParams::fields(format!("type={TYPE}"));
    let secrets = client.namespaced::<Secret>(NAMESPACE).list(&params).await?;
    let row = |id: &str, expires: &str, description: &str| println!("{id:<8}{expires:<22}{description}");
    row("ID", "EXPIRES", "DESCRIPTION");
    for secret in secrets.items {
        let text = |key: &str| secret.data.get(key).map(|value| String::from_utf8_lossy(&value.0));
        row(
            &text("token-id").unwrap_or_default(),
            &text("expiration").unwrap_or("<forever>".into()),
            &text("description").unwrap_or("<none>".into()),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_made() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!((&*token.id, &*token.secret), ("abcdef", "0123456789abcdef"));
        assert_eq!(format!("{token:?}"), "Token(abcdef.…)");
        for wrong in
            ["", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdef.x"]
        {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
        let made = Token::random().unwrap();
        assert_eq!(made.to_string().parse::<Token>(), Ok(made.clone()));
        assert_ne!(Token::random().unwrap(), made);
    }

    #[test]
    fn a_token_is_kept_as_kubeadm_keeps_it() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let until = "2026-01-02T03:04:05Z".parse().unwrap();
        let secret = token.secret(Some(until), "for one");
        assert_eq!(secret.metadata.name, "bootstrap-token-abcdef");
        let data: Vec<_> =
            secret.data.iter().map(|(k, v)| format!("{k}={}", String::from_utf8_lossy(&v.0))).collect();
        assert_eq!(
            data,
            [
                "auth-extra-groups=system:bootstrappers:kubeadm:default-node-token",
                "description=for one",
                "expiration=2026-01-02T03:04:05Z",
                "token-id=abcdef",
                "token-secret=0123456789abcdef",
                "usage-bootstrap-authentication=true",
                "usage-bootstrap-signing=true",
            ]
        );
        assert!(!token.secret(None, "").data.contains_key("expiration"));
    }
}
