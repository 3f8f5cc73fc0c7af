//! What is kept of pods that use claims, of claims, and of templates.

use api::core::v1::Pod;
use api::resource::v1::{
    DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
};
use client::Projection;
use client::informer::Index;
use rules::pod_conditions::is_terminal;
use rules::resource_claim::{EXTENDED, FINALIZER, Wanted};

pub(crate) const BY_CLAIM: &str = "claim";
pub(crate) const BY_TEMPLATE: &str = "template";
pub(crate) const BY_OWNER: &str = "owner";

pub(crate) const BY_POOL: &str = "pool";

/// On a claim that was made for a pod: what the pod calls it.
pub(crate) const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";

#[derive(Debug, Clone, Default)]
pub(crate) struct PodFacts {
    pub wanted: Vec<Wanted>,
    /// The claim that the scheduler made for its extended resources.
    pub extended: Option<String>,
    /// Whether it has a node.
    pub placed: bool,
    pub deleting: bool,
    terminal: bool,
}

impl PodFacts {
    /// Whether it will not run any more. Upstream: `isPodDone`.
    pub(crate) fn done(&self) -> bool {
        self.terminal || self.deleting && !self.placed
    }

    /// Whether claims are to be made for it. One that has ended gets none: it would go at once, and come again.
    pub(crate) fn asks(&self) -> bool {
        !self.wanted.is_empty() && !self.deleting && !self.done()
    }

    /// The names of all its claims that have one.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().filter_map(Wanted::claim).chain(self.extended.as_deref())
    }
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let extended = pod.status.extended_resource_claim_status.as_ref();
        PodFacts {
            wanted: Wanted::all(pod).collect(),
            extended: extended.map(|status| status.resource_claim_name.clone()),
            placed: !pod.spec.node_name.is_empty(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            terminal: is_terminal(&pod.status.phase),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CLAIM, |pod| pod.claims().map(|name| format!("{}/{name}", pod.namespace())).collect()),
            (BY_TEMPLATE, |pod| {
                let templates = pod.wanted.iter().filter_map(|wanted| wanted.template.as_ref());
                templates.map(|name| format!("{}/{name}", pod.namespace())).collect()
            }),
        ]
    }
}

/// A pod, by what a claim knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimFacts {
    /// The pod that it was made for.
    pub owner: Option<Owner>,
    /// What that pod calls it.
    pub called: Option<String>,
    pub reserved_for: Vec<ResourceClaimConsumerReference>,
    pub allocated: bool,
    /// What it was given.
    pub devices: Vec<DeviceRequestAllocationResult>,
    /// Whether our finalizer holds it.
    pub held: bool,
    pub deleting: bool,
    pub admin: bool,
    /// As metrics tell who made it.
    pub source: &'static str,
}

impl ClaimFacts {
    /// Whether it was made for the pod.
    pub(crate) fn is_of(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }

    pub(crate) fn reserved(&self, uid: &str) -> bool {
        self.reserved_for.iter().any(|consumer| consumer.uid == uid)
    }
}

/// Whether a claim asks for devices that others use.
pub(crate) fn asks_admin(claim: &api::resource::v1::ResourceClaimSpec) -> bool {
    let mut exact = claim.devices.requests.iter().filter_map(|request| request.exactly.as_ref());
    exact.any(|request| request.admin_access == Some(true))
}

fn owner(claim: &ResourceClaim) -> Option<Owner> {
    let mut owners = claim.metadata.owner_references.iter();
    let pod = owners.find(|o| o.controller == Some(true) && o.api_version == "v1" && o.kind == "Pod")?;
    Some(Owner { name: pod.name.clone(), uid: pod.uid.clone() })
}

impl Projection for ClaimFacts {
    type Kind = ResourceClaim;

    fn project(claim: &ResourceClaim) -> Self {
        let meta = &claim.metadata;
        let called = meta.annotations.get(POD_CLAIM).cloned();
        let extended = meta.annotations.get(EXTENDED).is_some_and(|value| value == "true");
        ClaimFacts {
            owner: owner(claim),
            source: match &called {
                _ if extended => "extended_resource",
                Some(name) if !name.is_empty() => "resource_claim_template",
                _ => "",
            },
            called,
            reserved_for: claim.status.reserved_for.clone(),
            allocated: claim.status.allocation.is_some(),
            devices: claim.status.allocation.iter().flat_map(|a| &a.devices.results).cloned().collect(),
            held: meta.finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            deleting: meta.deletion_timestamp.is_some(),
            admin: asks_admin(&claim.spec),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_OWNER, |claim| claim.owner.iter().map(|owner| owner.uid.clone()).collect()),
            (BY_POOL, |claim| {
                let mut pools: Vec<String> =
                    claim.devices.iter().map(|device| pool(&device.driver, &device.pool)).collect();
                pools.sort();
                pools.dedup();
                pools
            }),
        ]
    }
}

/// A pool of devices, as indices name it.
pub(crate) fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// That a template exists.
pub(crate) struct Template;

impl Projection for Template {
    type Kind = ResourceClaimTemplate;

    fn project(_: &ResourceClaimTemplate) -> Self {
        Template
    }
}
