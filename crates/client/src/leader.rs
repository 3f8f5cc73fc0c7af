//! Leader election by a `Lease` (client-go's leaderelection). A lease keeps two actors from working at once most of the
//! time; correctness never rests on it, but on preconditions of every write.

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

/// The record last seen, and when it was seen to change.
struct Observed {
    record: Option<(String, String)>,
    at: Instant,
}

impl Elector {
    /// Waits to become the leader, runs `lead` with a token that is cancelled when the lease is lost, and starts over
    /// until `shutdown`.
    pub async fn run<F, Fut>(self, shutdown: CancellationToken, lead: F)
    where
        F: Fn(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut observed = Observed { record: None, at: Instant::now() };
        while !shutdown.is_cancelled() {
            match self.hold(&mut observed).await {
                Ok(true) => {
                    tracing::info!(lease = self.name, identity = self.identity, "became the leader");
                    let term = shutdown.child_token();
                    tokio::join!(lead(term.clone()), self.renew(&term, &mut observed));
                    if shutdown.is_cancelled() {
                        self.release().await;
                        return;
                    }
                    tracing::warn!(lease = self.name, "lost the lease");
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "could not take the lease"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.timing.retry) => {}
            }
        }
    }

    async fn renew(&self, term: &CancellationToken, observed: &mut Observed) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = term.cancelled() => return,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let left = self.timing.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.hold(observed)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return term.cancel(),
                Ok(Err(_)) | Err(_) => {}
            }
            if renewed.elapsed() > self.timing.renew_deadline {
                return term.cancel();
            }
        }
    }

    /// [`Self::try_hold`], and once more when somebody got ahead: a leader must not go on for a period in which another
    /// has its lease.
    async fn hold(&self, observed: &mut Observed) -> Result<bool> {
        match self.try_hold(observed).await {
            Err(error) if error.is_conflict() => self.try_hold(observed).await,
            other => other,
        }
    }

    /// Takes or renews the lease; false while somebody else holds it.
    async fn try_hold(&self, observed: &mut Observed) -> Result<bool> {
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
                Ok(_) => Ok(true),
                Err(e) if e.is_already_exists() => Ok(false),
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
                return Ok(false);
            }
        }
        if !mine {
            lease.spec.acquire_time = Some(now);
            lease.spec.lease_transitions = Some(lease.spec.lease_transitions.unwrap_or(0) + 1);
        }
        lease.spec.holder_identity = Some(self.identity.clone());
        lease.spec.lease_duration_seconds = Some(seconds);
        lease.spec.renew_time = Some(now);
        match api.update(&lease).await {
            Ok(_) => Ok(true),
            // Somebody wrote in between: whether it was to take the lease is seen by looking again.
            Err(e) => Err(e),
        }
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
