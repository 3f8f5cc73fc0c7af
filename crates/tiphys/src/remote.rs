//! Clients of an API server elsewhere.

use anyhow::{Result, ensure};
use client::https::{Https, TokenSource};
use client::{Client, Transport};
use std::path::Path;
use std::sync::Arc;

/// A client with a kubeconfig's credentials, called `agent`.
pub(crate) fn of_kubeconfig(kubeconfig: &Path, agent: &str) -> Result<Client> {
    let resolved = pki::Kubeconfig::load(kubeconfig)?.resolve(None)?;
    ensure!(resolved.user.exec.is_none(), "credentials of exec plugins are not supported");
    let tls = pki::tls::client_config_of(&resolved, &[b"h2"])?;
    let token = Some(resolved.user.token.clone()).filter(|token| !token.is_empty()).map(fixed);
    let transport: Arc<dyn Transport> = Arc::new(Https::new(&resolved.server, tls, token)?);
    Ok(Client::new(transport, agent))
}

/// One token for every request.
pub(crate) fn fixed(token: String) -> TokenSource {
    Arc::new(move || Some(token.clone()))
}
