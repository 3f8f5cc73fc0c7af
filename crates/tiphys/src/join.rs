//! How a node becomes a member of a cluster, once: it learns with a bootstrap token that it speaks to the right cluster, what
//! all nodes agree on, and asks for a certificate. Upstream: `kubeadm join`'s token-based discovery, and the kubelet's TLS
//! bootstrap. What it learned is kept.

use crate::bootstrap_token::Token;
use crate::node::Identity;
use crate::node_flags::ClusterFlags;
use crate::places::Places;
use crate::remote;
use anyhow::{Context as _, Result, bail, ensure};
use api::core::v1::ConfigMap;
use apiserver::bootstrap::join::SETTINGS;
use clap::Args;
use client::Client;
use client::https::{Https, TokenSource};
use kubelet::certificates;
use pki::files::{Access, Durability};
use pki::tls::Trust;
use pki::{Certificate, Kubeconfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For how long a cluster is looked for that does not answer, or does not know the token yet. As kubeadm.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks.
const AGAIN: Duration = Duration::from_secs(5);

/// What a node joins with; nothing of it is needed by one that has joined.
#[derive(Debug, Args)]
pub(crate) struct Invitation {
    /// A bootstrap token, as `tiphys token create` makes it.
    #[arg(long, env = "TIPHYS_TOKEN", hide_env_values = true)]
    pub token: Option<Token>,
    /// Hashes (sha256:<hex>) of the public keys of authorities, one of which the cluster's must be.
    #[arg(long)]
    pub discovery_token_ca_cert_hash: Vec<String>,
}

/// A node that has joined.
pub(crate) struct Member {
    /// Who signs everybody in the cluster.
    pub authority: Certificate,
    pub cluster: ClusterFlags,
    /// What the node calls with.
    pub calling: pki::Identity,
}

/// What is kept of a cluster.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// PEM.
    authority: String,
    cluster: ClusterFlags,
}

fn kept_in(places: &Places) -> PathBuf {
    places.data_dir.join("cluster.json")
}

/// The cluster that the node has joined, or joins now.
pub(crate) async fn member(
    server: &str,
    invitation: &Invitation,
    identity: &Identity,
    places: &Places,
) -> Result<Member> {
    let path = kept_in(places);
    let certificates = places.root_dir.join("pki");
    let known = pki::files::read_if_present(&path)?;
    let known: Option<Kept> = known
        .map(|known| serde_json::from_slice(&known).with_context(|| path.display().to_string()))
        .transpose()?;
    let calling = certificates::kept(&certificates)?;
    if let (Some(kept), Some(calling)) = (known, calling) {
        let called = format!("system:node:{}", identity.name);
        ensure!(
            calling.certificate.subject.common_name == called,
            "this node has joined as {:?}, and cannot be {called:?} now: use its name, or `tiphys reset --remove-data`",
            calling.certificate.subject.common_name
        );
        let authority = Certificate::from_pem(kept.authority.as_bytes())?;
        return Ok(Member { authority, cluster: kept.cluster, calling });
    }
    let token = invitation.token.as_ref().context(
        "this node has no certificate of the cluster that is still good: --token is needed (see `tiphys token create`)",
    )?;
    let authority = discover(server, token, &invitation.discovery_token_ca_cert_hash).await?;
    let trust = Trust::pem(authority.to_pem().as_bytes())?;
    let client = client(server, &trust, Some(remote::fixed(token.to_string())))?;
    let settings = client.namespaced::<ConfigMap>("kube-system").get(SETTINGS).await;
    let settings = settings.context("reading what the nodes of the cluster agree on")?;
    let cluster = ClusterFlags::of_settings(&settings.data)?;
    tracing::info!(node = identity.name, "asking for a certificate");
    let calling = certificates::join(&client, &identity.name, &certificates).await;
    let calling = calling.context("asking for a certificate")?;
    let kept = Kept { authority: authority.to_pem(), cluster };
    pki::files::write(&path, &serde_json::to_vec(&kept)?, Access::Secret, Durability::Synced)?;
    Ok(Member { authority, cluster: kept.cluster, calling })
}

fn client(server: &str, trust: &Trust, token: Option<TokenSource>) -> Result<Client> {
    let tls = pki::tls::client_config(trust, None, &[b"h2"])?;
    Ok(Client::new(Arc::new(Https::new(server, tls, token).context("--server")?), "tiphys-agent"))
}

/// The cluster's authority, of which the token is the proof.
async fn discover(server: &str, token: &Token, hashes: &[String]) -> Result<Certificate> {
    // Whoever it is: what is read is signed.
    let anyone = client(server, &Trust::Anyone, None)?;
    let began = Instant::now();
    loop {
        let wait = match anyone.namespaced::<ConfigMap>("kube-public").get("cluster-info").await {
            Ok(info) => match verified(&info, token)? {
                None => format!(
                    "cluster-info is not signed with token {:?}: it is unknown there, or has expired",
                    token.id
                ),
                Some(kubeconfig) => {
                    let authority = authority(&kubeconfig)?;
                    let hash = authority.public_key_hash();
                    ensure!(
                        hashes.is_empty() || hashes.contains(&hash),
                        "the cluster's authority has the hash {hash}, which is none of --discovery-token-ca-cert-hash"
                    );
                    return Ok(authority);
                }
            },
            Err(error) => format!("{error}"),
        };
        if began.elapsed() > PATIENCE {
            bail!("{server}: {wait}");
        }
        tracing::warn!(server, "the cluster cannot be joined yet: {wait}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// The kubeconfig of `cluster-info`, if it is signed with the token; nothing while it is not signed. KEP-130.
fn verified(info: &ConfigMap, token: &Token) -> Result<Option<String>> {
    let kubeconfig = info.data.get("kubeconfig").context("cluster-info holds no kubeconfig")?;
    let Some(signature) = info.data.get(&format!("jws-kubeconfig-{}", token.id)) else { return Ok(None) };
    let wanted = pki::jwt::detached(kubeconfig.as_bytes(), &token.id, token.secret.as_bytes());
    ensure!(*signature == wanted, "cluster-info is signed with another secret than the token's");
    Ok(Some(kubeconfig.clone()))
}

fn authority(kubeconfig: &str) -> Result<Certificate> {
    let kubeconfig = Kubeconfig::parse(kubeconfig).context("cluster-info")?;
    let cluster = kubeconfig.clusters.first().context("cluster-info names no cluster")?;
    Certificate::from_pem(&cluster.cluster.certificate_authority_data.0).context("cluster-info")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_token_signs_is_believed() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let mut info = ConfigMap::default();
        let refused = |info: &ConfigMap| verified(info, &token).unwrap_err().to_string();
        assert_eq!(refused(&info), "cluster-info holds no kubeconfig");
        info.data.insert("kubeconfig".into(), "kind: Config".into());
        assert_eq!(verified(&info, &token).unwrap(), None);
        let signed = |secret: &[u8]| pki::jwt::detached(b"kind: Config", "abcdef", secret);
        info.data.insert("jws-kubeconfig-abcdef".into(), signed(b"another"));
        assert_eq!(refused(&info), "cluster-info is signed with another secret than the token's");
        info.data.insert("jws-kubeconfig-abcdef".into(), signed(b"0123456789abcdef"));
        assert_eq!(verified(&info, &token).unwrap().unwrap(), "kind: Config");
        info.data.insert("kubeconfig".into(), "kind: Config\n".into());
        assert_eq!(refused(&info), "cluster-info is signed with another secret than the token's");
    }
}
