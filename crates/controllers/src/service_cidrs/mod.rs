//! Ranges of service addresses: each says that it is ready, and goes only when no address needs it any more.
//! Upstream: `service-cidr-controller`. Watches ServiceCIDRs and IPAddresses; keys are ServiceCIDRs.

mod plan;

use crate::Context;
use crate::support::{WallClock, queue};
use api::networking::v1::{IPAddress, ServiceCIDR};
use apimachinery::json;
use client::controller::{Outcome, Writes, run as work};
use client::{Client, Error, Informer, ObjectKey, Patch, PatchParams, Projection, Recorder};
use plan::{READY, Range, Ready, Step, TERMINATING, holding, overlapping};
use std::net::IpAddr;

const WORKERS: usize = 5;
const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

impl Projection for Range {
    type Kind = ServiceCIDR;

    fn project(range: &ServiceCIDR) -> Self {
        Range {
            name: range.metadata.name.clone(),
            cidrs: range.spec.cidrs.clone(),
            deleting: range.metadata.deletion_timestamp,
            held: range.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER),
        }
    }
}

/// An address that a Service has; none when somebody else looks after it.
struct Taken(Option<IpAddr>);

impl Projection for Taken {
    type Kind = IPAddress;

    fn project(address: &IPAddress) -> Self {
        let managed = address.metadata.labels.get(MANAGED_BY).is_some_and(|by| by == ALLOCATOR);
        Taken(address.metadata.name.parse().ok().filter(|_| managed))
    }
}

fn all(ranges: &Informer<Range>) -> Vec<Range> {
    ranges.list().iter().map(|range| Range::clone(range)).collect()
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let ranges: Informer<Range> = context.informers.get();
    let addresses: Informer<Taken> = context.informers.get();
    let queue = queue();
    let (known, touched) = (ranges.clone(), queue.clone());
    ranges.subscribe(move |change| {
        // One that comes or goes may let others go, or hold them.
        let others = all(&known);
        for range in change.old().into_iter().chain([change.object()]) {
            touched.add(range.key().clone());
            overlapping(&others, range).for_each(|other| touched.add(ObjectKey::new("", &other.name)));
        }
    });
    let (known, touched) = (ranges.clone(), queue.clone());
    addresses.subscribe(move |change| {
        if let Some(address) = change.object().0 {
            holding(&all(&known), address).for_each(|range| touched.add(ObjectKey::new("", &range.name)));
        }
    });
    ranges.synced().await;
    addresses.synced().await;
    let act = Act {
        recorder: Recorder::new(context.client.clone(), NAME, ""),
        client: context.client,
        clock: context.clock,
        writes: Writes::default(),
        ranges: ranges.clone(),
    };
    work("ipaddresses", queue, act.writes.clone(), WORKERS, context.shutdown, move |key| {
        let (act, addresses) = (act.clone(), addresses.clone());
        async move { act.reconcile(&key, &addresses).await }
    })
    .await;
}

/// The only writes.
#[derive(Clone)]
struct Act {
    client: Client,
    recorder: Recorder,
    clock: WallClock,
    writes: Writes<ObjectKey>,
    ranges: Informer<Range>,
}

impl Act {
    async fn reconcile(&self, key: &ObjectKey, addresses: &Informer<Taken>) -> Result<Outcome, Error> {
        let Some(cached) = self.ranges.get(key) else { return Ok(Outcome::Done) };
        let taken: Vec<IpAddr> = addresses.list().iter().filter_map(|address| address.0).collect();
        match plan::plan(&cached, &all(&self.ranges), &taken, self.clock.now()) {
            Step::Keep => {
                if !cached.held {
                    self.hold(key, &json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
                }
                let range = cached.decode()?;
                let said = self.say(key, &range, &READY).await;
                if said.is_err() {
                    let text = "The ServiceCIDR Status can not be set to Ready=True";
                    self.recorder.warning(&range, "KubernetesServiceCIDRError", text);
                }
                said?;
            }
            Step::Wait => self.say(key, &cached.decode()?, &TERMINATING).await?,
            Step::Until(then) => return Ok(Outcome::After(self.clock.until(then))),
            Step::Release if cached.held => {
                let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
                self.hold(key, &patch).await?;
            }
            Step::Release => {}
        }
        Ok(Outcome::Done)
    }

    async fn hold(&self, key: &ObjectKey, patch: &apimachinery::value::Value) -> Result<(), Error> {
        let api = self.client.all::<ServiceCIDR>();
        let patch = Patch::Strategic(patch.clone());
        match api.patch(&key.name, &patch, &PatchParams::default()).await {
            Ok(range) => self.writes.note(key, &self.ranges, &range.metadata.resource_version),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sets the condition, unless it says so already.
    async fn say(&self, key: &ObjectKey, range: &ServiceCIDR, ready: &Ready) -> Result<(), Error> {
        let said = range.status.conditions.iter().any(|condition| {
            condition.type_ == "Ready"
                && condition.status == ready.status
                && condition.reason == ready.reason
                && condition.message == ready.message
        });
        if said {
            return Ok(());
        }
        let patch = Patch::Apply(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": &*key.name},
            "status": {"conditions": [{
                "type": "Ready",
                "status": ready.status,
                "reason": ready.reason,
                "message": ready.message,
                "lastTransitionTime": self.clock.now().to_string(),
            }]},
        }));
        let params = PatchParams { field_manager: NAME.into(), force: true, ..Default::default() };
        let range = self.client.all::<ServiceCIDR>().patch_status(&key.name, &patch, &params).await?;
        self.writes.note(key, &self.ranges, &range.metadata.resource_version);
        Ok(())
    }
}
