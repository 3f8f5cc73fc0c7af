//! Removes pods' requests for certificates that are a quarter of an hour old, whatever became of them: by then nobody waits
//! for them. Only where they are served. Upstream: `podcertificaterequest-cleaner-controller`.

use crate::Context;
use crate::support::queue;
use api::certificates::v1beta1::PodCertificateRequest;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::Time;
use client::controller::{Outcome, Writes, run as work};
use client::discovery::served;
use client::{Change, Error, Informer, Projection};

const GATE: &str = "PodCertificateRequest";
/// In seconds.
const KEPT: i64 = 15 * 60;

/// What is kept of a request: when it may go.
struct Facts {
    due: Time,
}

impl Projection for Facts {
    type Kind = PodCertificateRequest;

    fn project(request: &PodCertificateRequest) -> Self {
        Facts { due: Time::from_unix(request.metadata.creation_timestamp.unix() + KEPT) }
    }
}

/// Runs until shutdown, if there is something to do. Keys are requests.
pub(crate) async fn run(context: Context) {
    if !context.gates.enabled(GATE) {
        return;
    }
    let there = served::<PodCertificateRequest>(&context.client);
    if context.shutdown.run_until_cancelled(there).await == Some(true) {
        clean(context).await;
    }
}

async fn clean(context: Context) {
    let requests: Informer<Facts> = context.informers.get();
    let queue = queue();
    let changed = queue.clone();
    requests.subscribe(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            changed.add(change.object().key().clone());
        }
    });
    requests.synced().await;
    let (client, clock) = (context.client, context.clock);
    work("podcertificaterequest_cleaner", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (requests, client, clock) = (requests.clone(), client.clone(), clock.clone());
        async move {
            let Some(request) = requests.get(&key) else { return Ok(Outcome::Done) };
            if clock.now() < request.due {
                return Ok(clock.outcome(Some(request.due)));
            }
            let preconditions = Preconditions { uid: Some(request.uid.to_string()), ..Default::default() };
            let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
            let api = client.namespaced::<PodCertificateRequest>(&key.namespace);
            match api.delete(&key.name, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err::<_, Error>(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn requests_go_after_a_while() {
        play("pod_certificate_cleaner", &[|context| Box::pin(super::clean(context))]);
    }
}
