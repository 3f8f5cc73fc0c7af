//! The first certificate of a node. Upstream: `pkg/kubelet/certificate/bootstrap`.

use super::{CLIENT, Error, ask, plan, store::Store};
use apimachinery::time::Timestamp;
use client::Client;
use pki::Identity;
use std::path::Path;

/// What a node calls with, if it is kept in `directory` and has not expired.
pub fn kept(directory: &Path) -> Result<Option<Identity>, Error> {
    let kept = Store::new(directory, CLIENT.file).current()?;
    Ok(kept.filter(|identity| Timestamp::now() < identity.certificate.not_after))
}

/// Asks for a certificate to call with as `system:node:<node_name>`, and keeps it in `directory`. `client` is of who may
/// ask for such: of a bootstrap token, say. Waits until the request is approved and signed.
pub async fn join(client: &Client, node_name: &str, directory: &Path) -> Result<Identity, Error> {
    ask(client, CLIENT, &plan::calling(node_name), &Store::new(directory, CLIENT.file)).await
}
