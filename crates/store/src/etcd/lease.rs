//! Leases: those that callers hold, and those that let events expire. The latter are shared as upstream shares them:
//! a lease serves for a twentieth of its time (a minute at most) and for a thousand keys.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tonic::Status;

use super::connect::{self, led};
use super::core::Core;
use super::error;
use super::generated::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use crate::contract::{Error, Result};
use crate::model::LeaseId;

const REUSE: Duration = Duration::from_secs(60);
const MOST_KEYS: usize = 1_000;

/// The lease that keys with a TTL get at present.
struct Shared {
    lease: LeaseId,
    ends: Instant,
    keys: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Leases {
    /// By TTL, of which there are few.
    shared: Mutex<HashMap<Duration, Shared>>,
    /// A lease that etcd no longer knows; it is not given out again.
    lost: parking_lot::Mutex<Option<LeaseId>>,
}

impl Leases {
    /// A lease that ends `ttl` from now, or a little later.
    pub(super) async fn lasting(&self, core: &Core, ttl: Duration) -> Result<LeaseId> {
        let reuse = (ttl / 20).min(REUSE);
        let mut shared = self.shared.lock().await;
        let now = Instant::now();
        if let Some(have) = shared.get_mut(&ttl) {
            have.keys += 1;
            let lasts = now + ttl < have.ends && now + ttl + reuse > have.ends;
            if lasts && have.keys <= MOST_KEYS && *self.lost.lock() != Some(have.lease) {
                return Ok(have.lease);
            }
        }
        let lease = grant(core, ttl + reuse).await?;
        shared.insert(ttl, Shared { lease, ends: now + ttl + reuse, keys: 1 });
        Ok(lease)
    }

    pub(super) fn forget(&self, lease: LeaseId) {
        *self.lost.lock() = Some(lease);
    }
}

pub(super) async fn grant(core: &Core, ttl: Duration) -> Result<LeaseId> {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    let request = LeaseGrantRequest { ttl: seconds as i64, id: 0 };
    let granted = core
        .cluster
        .attempt(|channel| async move { connect::lease(channel).lease_grant(led(request)).await })
        .await
        .map_err(|status| error::general(&status))?;
    Ok(LeaseId(granted.into_inner().id as u64))
}

pub(super) async fn keep_alive(core: &Core, lease: LeaseId) -> Result<()> {
    let request = LeaseKeepAliveRequest { id: lease.0 as i64 };
    let answer = core
        .cluster
        .attempt(|channel| async move {
            let requests = tokio_stream::once(request);
            let mut answers = connect::lease(channel).lease_keep_alive(led(requests)).await?.into_inner();
            answers.message().await
        })
        .await;
    match answer {
        Ok(Some(answer)) if answer.ttl > 0 => Ok(()),
        Ok(Some(_)) => Err(Error::LeaseNotFound(lease)),
        Ok(None) => Err(error::general(&Status::unavailable("the keep-alive was not answered"))),
        Err(status) => Err(refusal(&status, lease)),
    }
}

pub(super) async fn revoke(core: &Core, lease: LeaseId) -> Result<()> {
    let request = LeaseRevokeRequest { id: lease.0 as i64 };
    core.cluster
        .attempt(|channel| async move { connect::lease(channel).lease_revoke(led(request)).await })
        .await
        .map(drop)
        .map_err(|status| refusal(&status, lease))
}

fn refusal(status: &Status, lease: LeaseId) -> Error {
    if error::is_lease_not_found(status) { Error::LeaseNotFound(lease) } else { error::general(status) }
}
