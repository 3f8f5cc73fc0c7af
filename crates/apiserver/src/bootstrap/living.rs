//! Which API servers are alive, and the endpoints of the `kubernetes` Service made of them (upstream's lease
//! reconciler): each server keeps a key with its address for as long as it lives, and all of them write the same list.

use super::{Config, ensure, kubernetes_endpoints};
use crate::registry::{Registry, store_error};
use crate::user::{MASTERS, User};
use apimachinery::json;
use apimachinery::status::Status;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Expect, Key, Life, Store, Write};
use tokio_util::sync::CancellationToken;

/// Where upstream's servers keep theirs, too; they are no objects of any resource.
const PREFIX: &str = "/registry/masterleases/";
/// How long a server counts after its last sign, and how often it gives one.
const TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(10);

fn key(address: IpAddr) -> Key {
    Key::new(PREFIX, address.to_string())
}

/// Gives a sign of life; returns all who live.
pub async fn announce(store: &dyn Store, address: IpAddr) -> Result<Vec<IpAddr>, Status> {
    let object = json!({ "subsets": [{ "addresses": [{ "ip": address.to_string() }] }] });
    let ty = api::table().kind("", "v1", "Endpoints");
    let ty = ty.ok_or_else(|| Status::internal_error("the table has no Endpoints"))?;
    let value = api::protobuf().encode(ty, &object, "Endpoints", "v1");
    let sign = Write::put(key(address), value, Expect::Any).living(Life::Ttl(TTL));
    store.commit(sign).await.map_err(store_error)?;
    living(store).await
}

async fn living(store: &dyn Store) -> Result<Vec<IpAddr>, Status> {
    let signs = store.consistent_snapshot(PREFIX).await.map_err(store_error)?;
    let mut addresses: Vec<IpAddr> = signs.entries.keys().filter_map(|name| name.parse().ok()).collect();
    addresses.sort();
    Ok(addresses)
}

/// Gives signs, and writes the list whenever it changes, until `shutdown`; then the others are left.
pub async fn run(registry: Arc<Registry>, mut config: Config, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let pointed = match announce(&*registry.store, config.advertise_address).await {
            Ok(addresses) => point(&registry, &mut config, addresses).await,
            Err(status) => Err(status),
        };
        if let Err(status) = pointed {
            tracing::warn!(%status, "the endpoints of the kubernetes service cannot be kept");
        }
    }
    if let Err(status) = withdraw(&registry, &mut config).await {
        tracing::debug!(%status, "this server's address stays until its time is over");
    }
}

async fn withdraw(registry: &Registry, config: &mut Config) -> Result<(), Status> {
    let gone = Write::delete(key(config.advertise_address), Expect::Any);
    registry.store.commit(gone).await.map_err(store_error)?;
    let left = living(&*registry.store).await?;
    // The last one leaves its address: an empty list would tell clients nothing.
    if left.is_empty() { Ok(()) } else { point(registry, config, left).await }
}

async fn point(registry: &Registry, config: &mut Config, addresses: Vec<IpAddr>) -> Result<(), Status> {
    config.addresses = addresses;
    let user = User::new("system:apiserver", &[MASTERS]);
    for (group, resource, object) in kubernetes_endpoints(config) {
        ensure(registry, &user, group, resource, object).await?;
    }
    Ok(())
}
