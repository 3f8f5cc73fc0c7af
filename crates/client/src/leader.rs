//! Leader election by a `Lease` (client-go's leaderelection). A lease keeps two actors from working at once most of the
//! time: who is stopped and goes on later does not know yet that it has lost it. Where that matters, a leader's writes are
//! pinned to its term.

use crate::client::Client;
use crate::error::Result;
use api::Kind as _;
use api::coordination::v1::Lease;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::MicroTime;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a lease holds, how long a leader tries to renew it, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub lease: Duration,
    pub renew_deadline: Duration,
    pub retry: Duration,
}

impl Default for Timing {
    /// Upstream's 15, 10 and 2 seconds.
    fn default() -> Self {
        Timing {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A candidate for the lease `namespace/name`.
#[derive(Debug)]
pub struct Elector {
    pub client: Client,
    pub namespace: String,
    pub name: String,
    pub identity: String,
    pub timing: Timing,
}

/// The time for which a candidate leads.
#[derive(Debug)]
pub struct Term {
    /// The lease as it was taken.
    pub lease: Lease,
    /// Cancelled when the lease is lost; whoever leads cancels it to give up.
    pub ended: CancellationToken,
}

/// The record last seen, and when it was seen to change.
struct Observed {
    record: Option<(String, String)>,
    at: Instant,
}

impl Elector {
    /// Waits to become the leader, runs `lead` for a term, and starts over until `shutdown`.
    pub async fn run<F, Fut>(self, shutdown: CancellationToken, lead: F)
    where
        F: Fn(Term) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut observed = Observed { record: None, at: Instant::now() };
        while !shutdown.is_cancelled() {
            match self.hold(&mut observed).await {
                Ok(Some(lease)) => {
                    tracing::info!(lease = self.name, identity = self.identity, "became the leader");
                    let ended = shutdown.child_token();
                    let term = Term { lease, ended: ended.clone() };
                    tokio::join!(lead(term), self.renew(&ended, &mut observed));
                    if shutdown.is_cancelled() {
                        self.release().await;
                        return;
                    }
                    tracing::warn!(lease = self.name, "lost the lease");
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "could not take the lease"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.timing.retry) => {}
            }
        }
    }

    async fn renew(&self, ended: &CancellationToken, observed: &mut Observed) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let left = self.timing.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.hold(observed)).await {
                Ok(Ok(Some(_))) => renewed = Instant::now(),
                Ok(Ok(None)) => return ended.cancel(),
                Ok(Err(_)) | Err(_) => {}
            }
            if renewed.elapsed() > self.timing.renew_deadline {
                return ended.cancel();
            }
        }
    }

    /// [`Self::try_hold`], and once more when somebody got ahead: a leader must not go on for a period in which another
    /// has its lease.
    async fn hold(&self, observed: &mut Observed) -> Result<Option<Lease>> {
        match self.try_hold(observed).await {
            Err(error) if error.is_conflict() => self.try_hold(observed).await,
            other => other,
        }
    }

    /// Takes or renews the lease; nothing while somebody else holds it.
    async fn try_hold(&self, observed: &mut Observed) -> Result<Option<Lease>> {
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let now = MicroTime::from(SystemClock::default().now());
        let seconds = i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX);
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let mut lease = Lease::new();
            lease.metadata.name = self.name.clone();
            lease.metadata.namespace = self.namespace.clone();
            lease.spec.holder_identity = Some(self.identity.clone());
            lease.spec.lease_duration_seconds = Some(seconds);
            lease.spec.acquire_time = Some(now);
            lease.spec.renew_time = Some(now);
            lease.spec.lease_transitions = Some(0);
            return match api.create(&lease).await {
                Ok(lease) => Ok(Some(lease)),
                Err(e) if e.is_already_exists() => Ok(None),
                Err(e) => Err(e),
            };
        };
        let holder = lease.spec.holder_identity.clone().unwrap_or_default();
        let record = (holder.clone(), lease.metadata.resource_version.clone());
        if observed.record.as_ref() != Some(&record) {
            // Judged by when it changed here, not by the holder's clock.
            *observed = Observed { record: Some(record), at: Instant::now() };
        }
        let mine = holder == self.identity;
        if !mine && !holder.is_empty() {
            let held = Duration::from_secs(lease.spec.lease_duration_seconds.unwrap_or(0).max(0) as u64);
            if observed.at.elapsed() < held {
                return Ok(None);
            }
        }
        if !mine {
            lease.spec.acquire_time = Some(now);
            lease.spec.lease_transitions = Some(lease.spec.lease_transitions.unwrap_or(0) + 1);
        }
        lease.spec.holder_identity = Some(self.identity.clone());
        lease.spec.lease_duration_seconds = Some(seconds);
        lease.spec.renew_time = Some(now);
        // If somebody wrote in between, whether it was to take the lease is seen by looking again.
        api.update(&lease).await.map(Some)
    }

    /// Gives the lease up, so that another takes it at once.
    async fn release(&self) {
        let api = self.client.namespaced::<Lease>(&self.namespace);
        if let Ok(Some(mut lease)) = api.get_opt(&self.name).await
            && lease.spec.holder_identity.as_deref() == Some(&self.identity)
        {
            lease.spec.holder_identity = Some(String::new());
            lease.spec.lease_duration_seconds = Some(1);
            if let Err(error) = api.update(&lease).await {
                tracing::debug!(lease = self.name, %error, "could not give the lease up");
            }
        }
    }
}
