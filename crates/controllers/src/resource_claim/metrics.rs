//! How many claims there are, and how many were made.

use super::facts::ClaimFacts;
use client::Informer;
use component::metrics::{CounterVec, Opts, Registry, Stability};
use std::collections::BTreeMap;

const CLAIMS: Opts<'_> = Opts {
    name: "resourceclaim_controller_resource_claims",
    help: "Number of ResourceClaims, categorized by allocation status, admin access, and source. Source can be 'resource_claim_template' (created from a template), 'extended_resource' (extended resources), or empty (manually created by a user).",
    stability: Stability::Alpha,
};
const CREATES: Opts<'_> = Opts {
    name: "resourceclaim_controller_creates_total",
    help: "Number of ResourceClaims creation requests, categorized by creation status and admin access",
    stability: Stability::Alpha,
};

fn word(holds: bool) -> &'static str {
    if holds { "true" } else { "false" }
}

pub(super) struct Metrics {
    creates: CounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, claims: &Informer<ClaimFacts>) -> Self {
        let claims = claims.clone();
        registry.collector(move |encoder| {
            let mut counts: BTreeMap<[&str; 3], f64> = BTreeMap::new();
            for claim in claims.list() {
                let labels = [word(claim.allocated), word(claim.admin), claim.source];
                *counts.entry(labels).or_default() += 1.0;
            }
            let labels = ["allocated", "admin_access", "source"].map(String::from);
            let mut family = encoder.family(CLAIMS.name, &CLAIMS.help(), "gauge", &labels);
            counts.iter().for_each(|(labels, count)| family.value(labels, *count));
        });
        Metrics { creates: registry.counter_vec(CREATES, &["status", "admin_access"]) }
    }

    pub(super) fn made(&self, success: bool, admin: bool) {
        let status = if success { "success" } else { "failure" };
        self.creates.with(&[status, word(admin)]).inc();
    }
}
