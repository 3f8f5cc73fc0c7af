//! What to do about a job. Pure: the job, its pods and the time in; pods to make and to remove, and the status out.

use super::facts::PodFacts;
use super::indexes::Indexes;
use super::metrics;
use super::policy::{Action, action, rule, succeeded};
use super::status::*;
use crate::pods::Phase;
use api::batch::v1::{Job, JobCondition, JobStatus};
use apimachinery::time::{Duration, Time};
use client::Cached;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Ends that one look records at most, so that the status stays small.
const MAX_UNCOUNTED: usize = 500;
/// Pods that one look makes or removes at most.
const BURST: usize = 500;
const BACKOFF: i64 = 10;
const MAX_BACKOFF: i64 = 600;

pub(super) type Pod = Arc<Cached<PodFacts>>;

/// A pod to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    pub index: Option<i32>,
    /// How often its index failed, and how often that did not count.
    pub failures: Option<(i32, i32)>,
}

/// What to write: removals and creations, then the status, then finalizers.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<NewPod>,
    pub delete: Vec<Pod>,
    /// Pods that are too many: removed without being counted.
    pub discard: Vec<Pod>,
    pub status: JobStatus,
    /// Pods whose end stands in the status.
    pub let_go: Vec<Pod>,
    /// Event types, reasons and messages to tell once the status is written.
    pub tell: Vec<(bool, String, String)>,
    pub again: Option<Time>,
    pub action: metrics::Action,
    /// What rules of the failure policy said of pods that failed.
    pub handled: Vec<String>,
}

struct View<'a> {
    job: &'a Job,
    pods: &'a [Pod],
    now: Time,
    indexed: bool,
    completions: Option<i32>,
    /// Terminating pods are replaced only when they ended.
    replace_failed_only: bool,
}

/// Why a job ends.
struct End {
    success: bool,
    reason: String,
    message: String,
}

impl End {
    fn new(success: bool, reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(End { success, reason: reason.into(), message: message.into() })
    }

    fn of(success: bool, condition: &JobCondition) -> Option<Self> {
        End::new(success, &condition.reason, condition.message.clone())
    }
}

pub(super) fn plan(job: &Job, pods: &[Pod], now: Time) -> Plan {
    let view = View {
        job,
        pods,
        now,
        indexed: job.spec.completion_mode.as_deref() == Some("Indexed"),
        completions: job.spec.completions,
        replace_failed_only: job.spec.pod_replacement_policy.as_deref() == Some("Failed"),
    };
    view.plan()
}

impl View<'_> {
    fn suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    /// Whether the pod counts as failed; one that is being deleted does at once, unless only ended pods are replaced.
    fn failed(&self, pod: &PodFacts) -> bool {
        pod.phase == Phase::Failed
            || (!self.replace_failed_only && pod.deleting && pod.phase != Phase::Succeeded)
    }

    /// The completion that a pod works on; none for one beyond the number of completions.
    fn index(&self, pod: &PodFacts) -> Option<i32> {
        pod.index.filter(|index| *index >= 0 && self.completions.is_some_and(|all| *index < all))
    }

    fn plan(&self) -> Plan {
        let (job, now) = (self.job, self.now);
        let mut plan = Plan { status: job.status.clone(), ..Plan::default() };
        if plan.status.start_time.is_none() && !self.suspended() {
            plan.status.start_time = Some(now);
        }
        self.count_released(&mut plan.status);
        let active: Vec<Pod> = self.pods.iter().filter(|pod| pod.active()).cloned().collect();
        let done = self.succeeded_indexes();
        let lost = self.failed_indexes();
        let (succeeded, failed) = self.totals(&plan.status, &done);
        let deadline = self.deadline_left(&plan.status);
        let mut end = self.end(failed, &done, &lost, deadline);
        if let Some(left) = deadline.filter(|_| end.is_none() && !self.suspended()) {
            plan.again = Some(now.plus(Duration::from_seconds(left)));
        }
        let mut active_after = active.len();
        if end.is_some() {
            plan.delete.clone_from(&active);
        } else {
            if job.metadata.deletion_timestamp.is_none() {
                self.manage(&mut plan, &active, succeeded, &done, &lost);
                plan.action = metrics::Action::of(&plan, self.suspended());
            }
            active_after = active.len() + plan.create.len() - plan.discard.len();
            let complete = match self.completions {
                None => succeeded > 0 && active_after == 0,
                Some(all) => succeeded >= all && active_after == 0,
            };
            if complete && !self.suspended() {
                end = End::new(true, "CompletionsReached", "Reached expected number of succeeded pods");
            } else if set_suspended(&mut plan.status, self.suspended(), now) {
                if self.suspended() {
                    plan.status.start_time = None;
                    plan.tell.push((true, "Suspended".into(), "Job suspended".into()));
                } else {
                    plan.status.start_time = Some(now);
                    plan.tell.push((true, "Resumed".into(), "Job resumed".into()));
                }
            }
        }
        self.record_ends(&mut plan, end.as_ref(), &done, &lost);
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let removed: HashSet<&str> = plan.delete.iter().chain(&plan.discard).map(|pod| &*pod.uid).collect();
        let ready = active.iter().filter(|pod| pod.ready && !removed.contains(&*pod.uid)).count();
        let terminating = self.pods.iter().filter(|pod| pod.terminating()).count() + removed.len();
        plan.status.active = count(if end.is_some() { 0 } else { active_after });
        plan.status.ready = Some(count(ready));
        plan.status.terminating = Some(count(terminating));
        if let Some(end) = end {
            self.finish(&mut plan, &end, terminating);
        }
        plan
    }

    /// Pods whose finalizer is gone move from the list of the uncounted to the counters.
    fn count_released(&self, status: &mut JobStatus) {
        let tracked: HashSet<&str> =
            self.pods.iter().filter(|pod| pod.tracked).map(|pod| &*pod.uid).collect();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let before = (uncounted.succeeded.len(), uncounted.failed.len());
        uncounted.succeeded.retain(|uid| tracked.contains(uid.as_str()));
        uncounted.failed.retain(|uid| tracked.contains(uid.as_str()));
        let gone = |before: usize, after: usize| i32::try_from(before - after).unwrap_or(i32::MAX);
        let (succeeded, failed) =
            (gone(before.0, uncounted.succeeded.len()), gone(before.1, uncounted.failed.len()));
        status.succeeded += succeeded;
        status.failed += failed;
    }

    fn succeeded_indexes(&self) -> Indexes {
        let Some(completions) = self.completions.filter(|_| self.indexed) else { return Indexes::default() };
        let mut done = Indexes::parse(&self.job.status.completed_indexes, completions);
        let ended = self.pods.iter().filter(|pod| pod.tracked && pod.phase == Phase::Succeeded);
        done.0.extend(ended.filter_map(|pod| self.index(pod)));
        done
    }

    /// Indexes that failed more often than each may; none if the job counts failures together.
    fn failed_indexes(&self) -> Option<Indexes> {
        let limit = self.job.spec.backoff_limit_per_index?;
        let known = self.job.status.failed_indexes.as_deref().unwrap_or_default();
        let mut lost = Indexes::parse(known, self.completions.unwrap_or(0));
        for pod in self.pods.iter().filter(|pod| pod.tracked && self.failed(pod)) {
            let over = match action(self.job, pod) {
                Action::FailIndex => true,
                Action::Ignore => false,
                _ => pod.failures >= limit,
            };
            lost.0.extend(self.index(pod).filter(|_| over));
        }
        Some(lost)
    }

    /// How many succeeded and failed, those included that the status does not count yet.
    fn totals(&self, status: &JobStatus, done: &Indexes) -> (i32, i32) {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (mut succeeded, mut failed) = (status.succeeded, status.failed);
        for pod in self.pods.iter().filter(|pod| pod.tracked) {
            let listed = |uids: &[String]| uids.iter().any(|uid| **uid == *pod.uid);
            if listed(&uncounted.succeeded) {
                succeeded += 1;
            } else if listed(&uncounted.failed) {
                failed += 1;
            } else if pod.phase == Phase::Succeeded {
                succeeded += 1;
            } else if self.failed(pod) && action(self.job, pod) != Action::Ignore {
                failed += 1;
            }
        }
        (if self.indexed { done.len() } else { succeeded }, failed)
    }

    /// Seconds until the job has been active for too long.
    fn deadline_left(&self, status: &JobStatus) -> Option<i64> {
        let deadline = self.job.spec.active_deadline_seconds?;
        Some(status.start_time?.unix() + deadline - self.now.unix())
    }

    /// Whether and why the job ends, but for having all its completions.
    fn end(&self, failed: i32, done: &Indexes, lost: &Option<Indexes>, deadline: Option<i64>) -> Option<End> {
        let (spec, status) = (&self.job.spec, &self.job.status);
        if let Some(met) = holds(status, SUCCESS_CRITERIA_MET) {
            return End::of(true, met);
        }
        if let Some(target) = holds(status, FAILURE_TARGET) {
            return End::of(false, target);
        }
        for pod in self.pods.iter().filter(|pod| pod.tracked && self.failed(pod)) {
            if let Action::FailJob(message) = action(self.job, pod) {
                return End::new(false, "PodFailurePolicy", message);
            }
        }
        let limit = spec.backoff_limit.unwrap_or(6);
        if failed > limit || self.restarts_exceed(limit) {
            return End::new(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if !self.suspended() && deadline.is_some_and(|left| left <= 0) {
            return End::new(false, "DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if let Some(lost) = lost {
            if spec.max_failed_indexes.is_some_and(|max| lost.len() > max) {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                return End::new(false, "MaxFailedIndexesExceeded", text);
            }
            if lost.len() > 0 && lost.len() + done.len() >= self.completions.unwrap_or(0) {
                return End::new(false, "FailedIndexes", "Job has failed indexes");
            }
        }
        succeeded(self.job, done).and_then(|message| End::new(true, "SuccessPolicy", message))
    }

    /// With restarts in place, each restart is a failure.
    fn restarts_exceed(&self, limit: i32) -> bool {
        if self.job.spec.template.spec.restart_policy != "OnFailure" {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pod.phase, Phase::Running | Phase::Pending));
        let restarts: i64 = running.map(|pod| pod.restarts).sum();
        if limit == 0 { restarts > 0 } else { restarts >= i64::from(limit) }
    }

    /// Pods to make or to remove in a job that goes on.
    fn manage(
        &self,
        plan: &mut Plan,
        active: &[Pod],
        succeeded: i32,
        done: &Indexes,
        lost: &Option<Indexes>,
    ) {
        if self.suspended() {
            plan.discard = active.to_vec();
            return;
        }
        let size = |number: i32| usize::try_from(number).unwrap_or(0);
        let parallelism = size(self.job.spec.parallelism.unwrap_or(1));
        let wanted = match self.completions {
            None if succeeded > 0 => active.len(),
            None => parallelism,
            Some(all) => size(all - succeeded).min(parallelism),
        };
        plan.discard = self.surplus(active, active.len().saturating_sub(wanted));
        plan.discard.truncate(BURST);
        if !plan.discard.is_empty() {
            return;
        }
        let terminating = match self.replace_failed_only {
            true => self.pods.iter().filter(|pod| pod.terminating()).count(),
            false => 0,
        };
        let missing = wanted.saturating_sub(terminating + active.len()).min(BURST);
        if missing == 0 {
            return;
        }
        if self.job.spec.backoff_limit_per_index.is_none() {
            let failures = self.pods.iter().filter(|pod| self.failed(pod));
            if let Some(left) = self.backoff_left(failures) {
                plan.again = Some(sooner(plan.again, left));
                return;
            }
        }
        if !self.indexed {
            plan.create = vec![NewPod::default(); missing];
            return;
        }
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|pod| self.index(pod)).collect();
        if self.replace_failed_only {
            taken.extend(self.pods.iter().filter(|pod| pod.terminating()).filter_map(|pod| self.index(pod)));
        }
        let free = (0..self.completions.unwrap_or(0))
            .filter(|index| !taken.contains(index) && !done.has(*index))
            .filter(|index| lost.as_ref().is_none_or(|lost| !lost.has(*index)));
        let held = self.last_failures();
        for index in free.take(missing) {
            let Some(last) = held.get(&index) else {
                let failures = lost.is_some().then_some((0, 0));
                plan.create.push(NewPod { index: Some(index), failures });
                continue;
            };
            if let Some(left) = self.backoff_of(
                last.failures + last.ignored_failures + 1,
                Some(last.ended.unwrap_or(last.created)),
            ) {
                plan.again = Some(sooner(plan.again, left));
                continue;
            }
            let ignored = action(self.job, last) == Action::Ignore;
            let failures = (last.failures + i32::from(!ignored), last.ignored_failures + i32::from(ignored));
            plan.create.push(NewPod { index: Some(index), failures: Some(failures) });
        }
    }

    /// The last failed pod of each index, in jobs that count failures per index. It is held until it is replaced: it is
    /// what knows how often the index failed.
    fn last_failures(&self) -> BTreeMap<i32, Pod> {
        let mut last: BTreeMap<i32, Pod> = BTreeMap::new();
        if self.job.spec.backoff_limit_per_index.is_none() {
            return last;
        }
        for pod in self.pods.iter().filter(|pod| pod.tracked && self.failed(pod)) {
            let Some(index) = self.index(pod) else { continue };
            let rank = |pod: &PodFacts| pod.failures + pod.ignored_failures;
            if last.get(&index).is_none_or(|known| rank(known) < rank(pod)) {
                last.insert(index, pod.clone());
            }
        }
        last
    }

    fn backoff_left<'a>(&self, failed: impl Iterator<Item = &'a Pod>) -> Option<Time> {
        let succeeded = self.pods.iter().filter(|pod| pod.phase == Phase::Succeeded);
        let last_success = succeeded.filter_map(|pod| pod.ended).max();
        let ends: Vec<Time> = failed
            .map(|pod| pod.ended.unwrap_or(pod.created))
            .filter(|end| last_success.is_none_or(|success| *end > success))
            .collect();
        self.backoff_of(i32::try_from(ends.len()).unwrap_or(i32::MAX), ends.into_iter().max())
    }

    /// Until when to wait after so many failures, the last of them at `end`.
    fn backoff_of(&self, failures: i32, end: Option<Time>) -> Option<Time> {
        if failures == 0 {
            return None;
        }
        let delay = BACKOFF.saturating_mul(1 << (failures - 1).min(10)).min(MAX_BACKOFF);
        Some(end?.plus(Duration::from_seconds(delay))).filter(|then| *then > self.now)
    }

    /// Active pods to remove: those without a completion of their own first, then the least far.
    fn surplus(&self, active: &[Pod], at_least: usize) -> Vec<Pod> {
        let mut order: Vec<&Pod> = active.iter().collect();
        order.sort_by_key(|pod| (pod.phase, pod.ready, std::cmp::Reverse(pod.created)));
        let mut surplus: Vec<Pod> = Vec::new();
        if self.indexed {
            let mut seen = BTreeSet::new();
            // Of two pods with one index the one that is further stays.
            for pod in order.iter().rev() {
                if !self.index(pod).is_some_and(|index| seen.insert(index)) {
                    surplus.push((*pod).clone());
                }
            }
            // As many as must go beyond these: the highest indexes.
            order.retain(|pod| !surplus.iter().any(|gone| gone.uid == pod.uid));
            order.sort_by_key(|pod| std::cmp::Reverse(pod.index));
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(order.into_iter().take(more).cloned());
        surplus
    }

    /// Lists ended pods in the status and lets them go.
    fn record_ends(&self, plan: &mut Plan, end: Option<&End>, done: &Indexes, lost: &Option<Indexes>) {
        let held = self.last_failures();
        let mut uncounted = plan.status.uncounted_terminated_pods.take().unwrap_or_default();
        for pod in self.pods.iter().filter(|pod| pod.tracked) {
            let failed = self.failed(pod);
            let deleting_job = self.job.metadata.deletion_timestamp.is_some();
            let ended = pod.terminal() || failed || ((end.is_some() || deleting_job) && pod.deleting);
            if !ended || self.is_held(pod, &held, end, done, lost) {
                continue;
            }
            if uncounted.succeeded.len() + uncounted.failed.len() >= MAX_UNCOUNTED {
                break;
            }
            let listed = |uids: &[String]| uids.iter().any(|uid| **uid == *pod.uid);
            let valid = !self.indexed || self.index(pod).is_some();
            if pod.phase == Phase::Succeeded && !listed(&uncounted.failed) {
                // An index counts once by itself.
                if !self.indexed && !listed(&uncounted.succeeded) {
                    uncounted.succeeded.push(pod.uid.to_string());
                }
            } else if failed || end.is_some_and(|end| !end.success) {
                if !listed(&uncounted.failed)
                    && let Some((action, _)) = rule(self.job, pod)
                {
                    plan.handled.push(action.to_owned());
                }
                let counts = valid && action(self.job, pod) != Action::Ignore;
                if counts && !listed(&uncounted.failed) {
                    uncounted.failed.push(pod.uid.to_string());
                }
            }
            plan.let_go.push(pod.clone());
        }
        if self.indexed {
            plan.status.succeeded = done.len();
            plan.status.completed_indexes = done.to_string();
            plan.status.failed_indexes = lost.as_ref().map(Indexes::to_string);
        }
        // An empty one is kept: it says that ends are tracked.
        plan.status.uncounted_terminated_pods = Some(uncounted);
    }

    /// Whether a failed pod must stay until its replacement is there.
    fn is_held(
        &self,
        pod: &Pod,
        held: &BTreeMap<i32, Pod>,
        end: Option<&End>,
        done: &Indexes,
        lost: &Option<Indexes>,
    ) -> bool {
        let Some(index) = self.index(pod) else { return false };
        let last = held.get(&index).is_some_and(|last| last.uid == pod.uid);
        let over = end.is_some() || done.has(index) || lost.as_ref().is_some_and(|lost| lost.has(index));
        let replaced = self.pods.iter().any(|other| {
            other.index == Some(index)
                && other.failures + other.ignored_failures > pod.failures + pod.ignored_failures
        });
        last && !over && !replaced && self.job.metadata.deletion_timestamp.is_none()
    }

    /// Says why the job ends, and that it ended once no pod is left to wait for.
    fn finish(&self, plan: &mut Plan, end: &End, terminating: usize) {
        let (interim, last) =
            if end.success { (SUCCESS_CRITERIA_MET, COMPLETE) } else { (FAILURE_TARGET, FAILED) };
        if holds(&plan.status, interim).is_none() {
            plan.status.conditions.push(condition(interim, &end.reason, &end.message, self.now));
        }
        let uncounted = plan.status.uncounted_terminated_pods.as_ref();
        let pending = uncounted.is_some_and(|u| !u.succeeded.is_empty() || !u.failed.is_empty());
        if pending || !plan.let_go.is_empty() || terminating > 0 {
            return;
        }
        plan.status.conditions.push(condition(last, &end.reason, &end.message, self.now));
        if end.success {
            plan.status.completion_time = Some(self.now);
            if self.completions.is_some_and(|all| plan.status.succeeded > all) {
                let text = "Too many succeeded pods running after completion count reached";
                plan.tell.push((false, "TooManySucceededPods".into(), text.into()));
            }
            plan.tell.push((true, "Completed".into(), "Job completed".into()));
        } else {
            plan.tell.push((false, end.reason.clone(), end.message.clone()));
        }
    }
}

fn sooner(known: Option<Time>, other: Time) -> Time {
    known.map_or(other, |known| known.min(other))
}
