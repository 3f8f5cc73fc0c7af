//! Terms of leaders. A lease keeps two of them from working at once most of the time; a term does so always. It is a key
//! that changes when somebody else begins to lead, and every write of a leader is pinned to what it was when its own term
//! began: what a leader had on its way when it was stopped, or still believes when it goes on, comes to nothing.

use crate::registry::{Registry, store_error};
use apimachinery::status::Status;
use store::{Expect, Key, Pin, Revision, Write};

/// Beside the resources of the API; upstream's servers pass over it.
const PREFIX: &str = "/registry/tiphys/terms/";

/// Begins the term of `identity`, who took the lease `namespace/name` at this resourceVersion, unless the lease has
/// changed since. All that earlier leaders have written is in this server's caches when it returns.
pub async fn begin(
    registry: &Registry,
    (namespace, name): (&str, &str),
    resource_version: &str,
    identity: &str,
) -> Result<Pin, Status> {
    let leases = registry.resources.get("coordination.k8s.io", "v1", "leases");
    let leases = leases.ok_or_else(|| Status::internal_error("leases are not served"))?;
    let revision = resource_version.parse().map(Revision).map_err(Status::internal_error)?;
    let lease = Pin { key: leases.key(namespace, name), revision };
    let key = Key::new(PREFIX, name);
    let write = Write::put(key.clone(), identity.to_owned(), Expect::Any);
    let events = registry.store.commit_pinned(vec![write], Some(&lease)).await.map_err(store_error)?;
    let revision = events.first().map_or(revision, |event| event.revision);
    registry.store.wait_for(revision).await.map_err(store_error)?;
    Ok(Pin { key, revision })
}
