//! What to do about the pods of a StatefulSet. Pure: the set, its two revisions, its pods and the time in; steps and the
//! status out.
//!
//! In order (`OrderedReady`) the first thing that blocks ends the look; in parallel everything is done at once, until
//! the update, which goes one by one in either mode.

use super::claims::Owner;
use super::identity::{Version, is_identified, name, versioned_pod};
use super::{claims, first_ordinal, ordinal_of, owns_ordinal};
use crate::history::REVISION_LABEL;
use crate::pods::{Phase, PodFacts};
use api::apps::v1::{StatefulSet, StatefulSetStatus};
use api::core::v1::Pod;
use apimachinery::int_or_string::Rounding;
use apimachinery::meta::OwnerReference;
use apimachinery::time::Time;
use client::Cached;
use std::sync::Arc;

/// What is asked about a claim: absent, or its owners.
pub(super) type ClaimOwners<'a> = &'a dyn Fn(&str) -> Option<Vec<OwnerReference>>;

/// What a look sees.
pub(super) struct Observed<'a> {
    pub set: &'a StatefulSet,
    pub current: &'a Version,
    pub update: &'a Version,
    pub collisions: i32,
    pub pods: &'a [Arc<Cached<PodFacts>>],
    /// Whether a pod's volumes are its claims; asked only of sets that have claims.
    pub mounted: &'a dyn Fn(&Cached<PodFacts>, i32) -> bool,
    pub claims: ClaimOwners<'a>,
    /// Whether `maxUnavailable` counts (a feature gate).
    pub max_unavailable: bool,
    pub now: Time,
}

/// One thing to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Make the pod, its claims first.
    Create(Box<Pod>, i32),
    /// Make claims that are missing.
    Claim {
        pod: Arc<Cached<PodFacts>>,
        ordinal: i32,
    },
    /// Give a pod its identity, its volumes, and its claims their owners.
    Update {
        pod: Arc<Cached<PodFacts>>,
        ordinal: i32,
    },
    /// Give the claims of a pod their owners.
    Retain {
        pod: Arc<Cached<PodFacts>>,
        ordinal: i32,
    },
    Delete(Arc<Cached<PodFacts>>),
}

/// What to do, phase by phase; after a failure the rest waits for the next look.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub phases: [Vec<Step>; 4],
    pub status: StatefulSetStatus,
    /// When the next pod becomes available.
    pub again: Option<Time>,
}

/// A place in the set: its pod, or none yet.
struct Replica {
    pod: Option<Arc<Cached<PodFacts>>>,
    ordinal: i32,
    revision: String,
}

struct View<'a> {
    observed: &'a Observed<'a>,
    in_order: bool,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let in_order = observed.set.spec.pod_management_policy != "Parallel";
    View { observed, in_order }.plan()
}

fn revision(pod: &PodFacts) -> &str {
    pod.labels.get(REVISION_LABEL).map(String::as_str).unwrap_or_default()
}

impl View<'_> {
    fn set(&self) -> &StatefulSet {
        self.observed.set
    }

    fn available(&self, pod: &PodFacts) -> bool {
        pod.available(self.set().spec.min_ready_seconds, self.observed.now)
    }

    fn unavailable(&self, replica: &Replica) -> bool {
        replica.pod.as_ref().is_none_or(|pod| !self.available(pod) || pod.deleting)
    }

    fn plan(&self) -> Plan {
        let Observed { set, current, update, pods, .. } = *self.observed;
        let mut plan = Plan { status: self.count(pods), ..Plan::default() };
        let ready = pods.iter().filter_map(|pod| pod.available_from(set.spec.min_ready_seconds));
        plan.again = ready.filter(|then| *then > self.observed.now).min();
        if set.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let from = first_ordinal(set);
        let replicas: Vec<Replica> = (from..from + set.spec.replicas.unwrap_or(1))
            .map(|ordinal| {
                let pod = pods.iter().find(|pod| ordinal_of(pod.name()) == Some(ordinal)).cloned();
                let revision = match &pod {
                    Some(pod) => revision(pod).to_owned(),
                    None => {
                        versioned_pod(set, current, update, ordinal).metadata.labels[REVISION_LABEL].clone()
                    }
                };
                Replica { pod, ordinal, revision }
            })
            .collect();
        let mut condemned: Vec<Replica> = pods
            .iter()
            .filter_map(|pod| {
                let ordinal = ordinal_of(pod.name())?;
                let revision = revision(pod).to_owned();
                (!owns_ordinal(set, ordinal)).then(|| Replica { pod: Some(pod.clone()), ordinal, revision })
            })
            .collect();
        condemned.sort_by_key(|replica| std::cmp::Reverse(replica.ordinal));
        let counted: Vec<_> =
            replicas.iter().chain(&condemned).filter_map(|replica| replica.pod.clone()).collect();
        plan.status = self.count(&counted);

        for replica in &replicas {
            if self.living(replica, &mut plan.phases[0]) && self.in_order {
                return self.finished(plan);
            }
        }
        for replica in &condemned {
            plan.phases[1].extend(self.retain(replica));
        }
        let unhealthy = replicas.iter().chain(condemned.iter().rev()).find(|r| self.unavailable(r));
        let unhealthy = unhealthy.map(|replica| replica.ordinal);
        for replica in &condemned {
            let Some(pod) = &replica.pod else { continue };
            if pod.deleting {
                if self.in_order {
                    return self.finished(plan);
                }
                continue;
            }
            if self.in_order && !self.runs(pod) && unhealthy != Some(replica.ordinal) {
                return self.finished(plan);
            }
            plan.phases[2].push(Step::Delete(pod.clone()));
            if self.in_order {
                return self.finished(plan);
            }
        }
        if set.spec.update_strategy.type_ != "OnDelete" {
            self.roll(&replicas, &mut plan);
        }
        self.finished(plan)
    }

    /// Running, ready and available.
    fn runs(&self, pod: &PodFacts) -> bool {
        pod.phase == Phase::Running && pod.ready && self.available(pod)
    }

    /// What a place within the set needs. Says whether those after it must wait.
    fn living(&self, replica: &Replica, steps: &mut Vec<Step>) -> bool {
        let Observed { set, current, update, .. } = *self.observed;
        let ordinal = replica.ordinal;
        let Some(pod) = &replica.pod else {
            let pod_name = name(set, ordinal);
            let gone = Owner { name: &pod_name, uid: "" };
            let owners = claims::claims(set, ordinal);
            let mut owners =
                owners.iter().filter_map(|(_, claim)| (self.observed.claims)(&claim.metadata.name));
            // Claims of an earlier pod of this name that go with it are waited for.
            if !(claims::go_with_pods(set) && owners.any(|owners| claims::is_stale(&owners, gone))) {
                steps.push(Step::Create(Box::new(versioned_pod(set, current, update, ordinal)), ordinal));
            }
            return true;
        };
        // Also one that succeeded: how a pod that was evicted ended depends on its containers.
        if pod.terminal() {
            if !pod.deleting {
                steps.push(Step::Delete(pod.clone()));
            }
            return true;
        }
        if pod.phase == Phase::Pending {
            let missing = claims::claims(set, ordinal);
            if missing.iter().any(|(_, claim)| (self.observed.claims)(&claim.metadata.name).is_none()) {
                steps.push(Step::Claim { pod: pod.clone(), ordinal });
            }
        }
        if self.in_order && (pod.deleting || !self.runs(pod)) {
            return true;
        }
        let identified = is_identified(pod.name(), &pod.labels);
        let mounted = set.spec.volume_claim_templates.is_empty() || (self.observed.mounted)(pod, ordinal);
        if !identified || !mounted {
            steps.push(Step::Update { pod: pod.clone(), ordinal });
        } else {
            steps.extend(self.retain(replica));
        }
        false
    }

    /// A step that gives claims the owners that the retention policy asks for.
    fn retain(&self, replica: &Replica) -> Option<Step> {
        let pod = replica.pod.as_ref()?;
        let owner = Owner { name: pod.name(), uid: &pod.uid };
        let all = claims::claims(self.set(), replica.ordinal);
        let mut owners = all.iter().filter_map(|(_, claim)| (self.observed.claims)(&claim.metadata.name));
        owners
            .any(|owners| !claims::owned_as_wanted(&owners, self.set(), owner))
            .then(|| Step::Retain { pod: pod.clone(), ordinal: replica.ordinal })
    }

    /// The update: pods of other revisions go, the highest ordinal first, never past one that is not available.
    fn roll(&self, replicas: &[Replica], plan: &mut Plan) {
        let Observed { set, update, max_unavailable, .. } = *self.observed;
        let rolling = set.spec.update_strategy.rolling_update.as_ref();
        let partition = usize::try_from(rolling.and_then(|r| r.partition).unwrap_or(0)).unwrap_or(0);
        let outdated = |replica: &Replica| {
            replica.revision != update.name && replica.pod.as_ref().is_some_and(|pod| !pod.deleting)
        };
        let candidates = replicas.iter().skip(partition).rev();
        let chosen: Vec<&Replica> = if max_unavailable {
            let all = set.spec.replicas.unwrap_or(1);
            let most = rolling.and_then(|r| r.max_unavailable.as_ref());
            let most = most.and_then(|most| most.scaled_value(all, Rounding::Down).ok()).unwrap_or(1).max(1);
            let missing = replicas.iter().filter(|replica| self.unavailable(replica)).count();
            let room = usize::try_from(most).unwrap_or(1).saturating_sub(missing);
            candidates.filter(|replica| outdated(replica)).take(room).collect()
        } else {
            let first = { candidates }.find(|replica| outdated(replica) || self.unavailable(replica));
            first.into_iter().filter(|replica| outdated(replica)).collect()
        };
        for replica in chosen {
            if let Some(pod) = &replica.pod {
                plan.phases[3].push(Step::Delete(pod.clone()));
                plan.status.current_replicas -= 1;
            }
        }
    }

    fn count(&self, pods: &[Arc<Cached<PodFacts>>]) -> StatefulSetStatus {
        let Observed { set, current, update, collisions, .. } = *self.observed;
        let having = |test: &dyn Fn(&PodFacts) -> bool| {
            i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
        };
        let ready = |pod: &PodFacts| pod.phase == Phase::Running && pod.ready;
        StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas: having(&|_| true),
            ready_replicas: having(&ready),
            available_replicas: having(&|pod| ready(pod) && self.available(pod)),
            current_replicas: having(&|pod| !pod.deleting && revision(pod) == current.name),
            updated_replicas: having(&|pod| !pod.deleting && revision(pod) == update.name),
            current_revision: current.name.clone(),
            update_revision: update.name.clone(),
            collision_count: Some(collisions),
            conditions: set.status.conditions.clone(),
        }
    }

    /// A rollout that reached every pod makes the update the current revision.
    fn finished(&self, mut plan: Plan) -> Plan {
        let wanted = self.set().spec.replicas.unwrap_or(1);
        let status = &mut plan.status;
        if self.set().spec.update_strategy.type_ == "RollingUpdate"
            && status.updated_replicas == wanted
            && status.ready_replicas == wanted
            && status.replicas == wanted
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        plan
    }
}
