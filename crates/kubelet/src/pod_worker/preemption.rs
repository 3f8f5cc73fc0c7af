//! A critical pod that the node has no room for makes others go that are less important: as few of the least important as
//! free what it lacks. Choosing is pure. Upstream: `pkg/kubelet/preemption`.

use super::admission::Lack;
use super::status::Forced;
use api::core::v1::{Pod, PodCondition};
use rules::pod_conditions::DISRUPTION_TARGET;
use rules::pod_requests::{Options, requests_as};
use rules::qos::{QosClass, pod_qos};
use std::collections::BTreeMap;
use std::sync::Arc;

const REASON: &str = "Preempting";
const MESSAGE: &str = "Preempted in order to admit critical pod";
/// Priority from which a pod is critical to its node.
const CRITICAL: i32 = 2_000_000_000;

/// By resource.
type Amounts = BTreeMap<String, i64>;

pub(super) fn is_critical(pod: &Pod) -> bool {
    crate::labels::is_static_pod(pod)
        || crate::labels::is_mirror_pod(pod)
        || pod.spec.priority.is_some_and(|priority| priority >= CRITICAL)
}

/// Whether one may push out another. Upstream: `Preemptable`.
fn may_preempt(preemptor: &Pod, other: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec.priority;
    is_critical(preemptor) && !is_critical(other)
        || priority(preemptor).zip(priority(other)).is_some_and(|(one, other)| one > other)
}

/// What a pod gives back that goes.
fn freed(pod: &Pod) -> Amounts {
    let mut freed = requests_as::<i64>(pod, Options::default());
    freed.insert("pods".into(), 1);
    freed
}

fn less(mut wanted: Amounts, pods: &[Arc<Pod>]) -> Amounts {
    for pod in pods {
        let freed = freed(pod);
        for (name, left) in &mut wanted {
            *left -= freed.get(name).copied().unwrap_or(0);
        }
    }
    wanted.retain(|_, left| *left > 0);
    wanted
}

/// How far what is wanted still is when this pod is gone.
fn distance(wanted: &Amounts, pod: &Pod) -> f64 {
    let freed = freed(pod);
    let far = |(name, amount): (&String, &i64)| {
        let left = (amount - freed.get(name).copied().unwrap_or(0)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    wanted.iter().map(far).sum()
}

/// By memory, then by processors.
fn size(pod: &Pod) -> (i64, i64) {
    let requests = requests_as::<i64>(pod, Options::default());
    let get = |name: &str| requests.get(name).copied().unwrap_or(0);
    (get("memory"), get("cpu"))
}

/// Of these, those whose going comes nearest to what is wanted, one after another until it is there.
fn nearest(mut pods: Vec<Arc<Pod>>, mut wanted: Amounts) -> Vec<Arc<Pod>> {
    let mut chosen = Vec::new();
    while !wanted.is_empty() && !pods.is_empty() {
        let key = |pod: &Arc<Pod>| (distance(&wanted, pod), size(pod));
        let order = |a: &Arc<Pod>, b: &Arc<Pod>| {
            let ((near, small), (other, large)) = (key(a), key(b));
            near.total_cmp(&other).then(small.cmp(&large))
        };
        let best = (0..pods.len()).min_by(|a, b| order(&pods[*a], &pods[*b])).unwrap_or(0);
        let pod = pods.swap_remove(best);
        wanted = less(wanted, std::slice::from_ref(&pod));
        chosen.push(pod);
    }
    chosen
}

/// Who has to go: of the most important class only those that must, so that the classes below save what they can.
pub(super) fn choose(pod: &Pod, lacks: &[Lack], others: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, String> {
    let wanted: Amounts = lacks.iter().map(|lack| (lack.resource.clone(), lack.missing())).collect();
    let of = |class: QosClass| -> Vec<Arc<Pod>> {
        let mine = others.iter().filter(|other| may_preempt(pod, other) && pod_qos(other) == class);
        mine.cloned().collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let all = [best_effort.clone(), burstable.clone(), guaranteed.clone()].concat();
    let unmet = less(wanted.clone(), &all);
    if !unmet.is_empty() {
        let told: String = unmet.iter().map(|(name, left)| format!("(res: {name}, q: {left}), ")).collect();
        return Err(format!(
            "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{told}]"
        ));
    }
    let guaranteed = nearest(guaranteed, less(less(wanted.clone(), &best_effort), &burstable));
    let burstable = nearest(burstable, less(less(wanted.clone(), &best_effort), &guaranteed));
    let best_effort = nearest(best_effort, less(less(wanted, &burstable), &guaranteed));
    Ok([best_effort, burstable, guaranteed].concat())
}

/// The end of one that has to go.
pub(super) fn forced(pod: &Pod) -> Forced {
    let condition = PodCondition {
        type_: DISRUPTION_TARGET.into(),
        observed_generation: pod.metadata.generation,
        status: "True".into(),
        reason: "TerminationByKubelet".into(),
        message: "Pod was preempted by Kubelet to accommodate a critical pod.".into(),
        last_transition_time: Some(crate::clock::time()),
        ..Default::default()
    };
    let condition = Some(Box::new(condition));
    Forced { reason: REASON.into(), message: MESSAGE.into(), condition, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    /// `name cpu memory` in cores and Gi, a limit where it ends in `!`.
    fn pod(text: &str) -> Arc<Pod> {
        let (text, guaranteed) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut resources = json!({});
        if let [_, cpu, memory] = words.as_slice() {
            let amounts = json!({ "cpu": cpu, "memory": format!("{memory}Gi") });
            resources["requests"] = amounts.clone();
            if guaranteed {
                resources["limits"] = amounts;
            }
        }
        let spec = json!({ "priority": 0, "containers": [{ "name": "c", "resources": resources }] });
        Arc::new(
            apimachinery::value::from_value(json!({ "metadata": { "name": words[0] }, "spec": spec }))
                .unwrap(),
        )
    }

    #[track_caller]
    fn check(lacks: &[(&str, i64)], others: &[&str], expected: Expect) {
        let mut critical = Pod::clone(&pod("critical"));
        critical.spec.priority = Some(CRITICAL);
        let lack = |(resource, missing): &(&str, i64)| Lack {
            resource: (*resource).to_owned(),
            requested: *missing,
            used: 0,
            capacity: 0,
        };
        let lacks: Vec<Lack> = lacks.iter().map(lack).collect();
        let others: Vec<Arc<Pod>> = others.iter().map(|text| pod(text)).collect();
        let told = match choose(&critical, &lacks, &others) {
            Ok(pods) => pods.iter().map(|pod| pod.metadata.name.as_str()).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn the_least_important_go() {
        let others = ["free", "small 1 1", "large 4 4", "sure 2 2!"];
        check(&[("cpu", 1000)], &others, expect!["small"]);
        check(&[("cpu", 3000)], &others, expect!["large"]);
        check(&[("cpu", 6000)], &others, expect!["large sure"]);
        check(&[("pods", 1)], &others, expect!["free"]);
        check(&[("pods", 1), ("memory", 1 << 30)], &others, expect!["small"]);
        check(
            &[("cpu", 9000)],
            &others,
            expect![
                "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 2000), ]"
            ],
        );
    }
}
