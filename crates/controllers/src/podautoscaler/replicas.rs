//! How many pods bring a metric to its target. Pure. Upstream: `replica_calculator.go`.

use api::core::v1::Pod;
use apimachinery::time::{Duration, Time};
use std::collections::BTreeMap;

/// How long after its start a pod's CPU says nothing while it is not ready, in seconds.
const CPU_INITIALIZATION: i64 = 300;
/// How long after its start a pod that was never ready is held for not ready yet, in seconds.
const INITIAL_READINESS: i64 = 30;

/// What one pod was measured at, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Time,
    /// Over how many seconds.
    pub window: i64,
}

pub(super) type Samples = BTreeMap<String, Sample>;

/// How far off the target is still at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    pub up: f64,
    pub down: f64,
}

impl Tolerances {
    pub(super) fn hold(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What was asked of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    pub current: i32,
    pub tolerances: Tolerances,
    /// The pods of the target.
    pub pods: &'a [Pod],
    pub now: Time,
}

/// Pods by what their samples are good for.
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
}

impl Groups {
    /// Takes the samples of pods that do not count out of `samples`.
    fn new(query: &Query, samples: &mut Samples, resource: &str) -> Self {
        let mut groups = Groups { ready: 0, unready: Vec::new(), missing: Vec::new() };
        for pod in query.pods {
            let name = &pod.metadata.name;
            if pod.metadata.deletion_timestamp.is_some() || pod.status.phase == "Failed" {
                samples.remove(name);
                continue;
            }
            if pod.status.phase == "Pending" {
                samples.remove(name);
                groups.unready.push(name.clone());
                continue;
            }
            let Some(sample) = samples.get(name) else {
                groups.missing.push(name.clone());
                continue;
            };
            if resource == "cpu" && is_unready(pod, sample, query.now) {
                samples.remove(name);
                groups.unready.push(name.clone());
                continue;
            }
            groups.ready += 1;
        }
        groups
    }
}

/// Whether a pod's CPU is that of a start, not of its work.
fn is_unready(pod: &Pod, sample: &Sample, now: Time) -> bool {
    let ready = pod.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(started)) = (ready, pod.status.start_time) else { return true };
    let since = ready.last_transition_time.unwrap_or_default();
    let after = |seconds| started.plus(Duration::from_seconds(seconds));
    if after(CPU_INITIALIZATION) > now {
        ready.status == "False" || sample.at < since.plus(Duration::from_seconds(sample.window))
    } else {
        ready.status == "False" && after(INITIAL_READINESS) > since
    }
}

fn ceil(number: f64) -> i32 {
    number.ceil().min(f64::from(i32::MAX)) as i32
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_SAMPLES: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// The ratio of what is used to the target, and what is told of it.
type Usage = (f64, i32, i64);

/// Pods for the ratio of `usage`; pods without samples count as harmless for the direction that it goes. `missing` is
/// what a pod without a sample is taken for when the size goes down.
fn from_samples(
    query: &Query,
    mut samples: Samples,
    resource: &str,
    usage: impl Fn(&Samples) -> Result<Usage, String>,
    missing: impl Fn(&str) -> i64,
) -> Result<(i32, i32, i64), String> {
    if query.pods.is_empty() {
        return Err(NO_PODS.into());
    }
    let groups = Groups::new(query, &mut samples, resource);
    if samples.is_empty() {
        return Err(NO_SAMPLES.into());
    }
    let (ratio, percent, raw) = usage(&samples)?;
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        let replicas =
            if query.tolerances.hold(ratio) { query.current } else { ceil(ratio * groups.ready as f64) };
        return Ok((replicas, percent, raw));
    }
    let mut assume =
        |name: &String, value| samples.insert(name.clone(), Sample { value, ..Sample::default() });
    if ratio != 1.0 {
        for name in &groups.missing {
            assume(name, if ratio < 1.0 { missing(name) } else { 0 });
        }
    }
    if up_with_unready {
        groups.unready.iter().for_each(|name| {
            assume(name, 0);
        });
    }
    let (new, _, _) = usage(&samples)?;
    let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
    let replicas = ceil(new * samples.len() as f64);
    let wrong_way = (new < 1.0 && replicas > query.current) || (new > 1.0 && replicas < query.current);
    let stays = query.tolerances.hold(new) || turned || wrong_way;
    Ok((if stays { query.current } else { replicas }, percent, raw))
}

/// For a share of what pods request, in percent; also the share and the mean use.
pub(super) fn by_utilization(
    query: &Query,
    samples: Samples,
    resource: &str,
    container: &str,
    target: i32,
) -> Result<(i32, i32, i64), String> {
    if query.pods.is_empty() {
        return Err(NO_PODS.into());
    }
    // What is wrong with the samples is told before what is wrong with the requests.
    let mut rest = samples.clone();
    Groups::new(query, &mut rest, resource);
    if rest.is_empty() {
        return Err(NO_SAMPLES.into());
    }
    let requests = requests(query.pods, container, resource)?;
    let usage = |samples: &Samples| {
        let known = samples.iter().filter_map(|(name, sample)| Some((sample.value, *requests.get(name)?)));
        let (used, asked, count) =
            known.fold((0, 0, 0), |(used, asked, count), (u, a)| (used + u, asked + a, count + 1));
        if asked == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        let percent = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
        Ok((f64::from(percent) / f64::from(target), percent, used / count))
    };
    let full = i64::from(target.max(100));
    let missing = |name: &str| requests.get(name).copied().unwrap_or(0) * full / 100;
    from_samples(query, samples, resource, usage, missing)
}

/// For a mean value of the pods; also that value.
pub(super) fn by_value(
    query: &Query,
    samples: Samples,
    resource: &str,
    target: i64,
) -> Result<(i32, i64), String> {
    let usage = |samples: &Samples| {
        let mean = samples.values().map(|sample| sample.value).sum::<i64>() / samples.len().max(1) as i64;
        Ok((mean as f64 / target as f64, 0, mean))
    };
    let (replicas, _, mean) = from_samples(query, samples, resource, usage, |_| target)?;
    Ok((replicas, mean))
}

/// For one value of something else that all pods share in.
pub(super) fn by_total(query: &Query, value: i64, target: i64) -> Result<i32, String> {
    let ratio = value as f64 / target as f64;
    if query.current == 0 {
        return Ok(ceil(ratio));
    }
    if query.tolerances.hold(ratio) {
        return Ok(query.current);
    }
    if query.pods.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let ready = query
        .pods
        .iter()
        .filter(|pod| pod.status.phase == "Running" && rules::pod_conditions::is_ready(&pod.status));
    Ok(ceil(ratio * ready.count() as f64))
}

/// For one value of something else, so much of it for each pod; also the value per pod there is.
pub(super) fn by_share(tolerances: Tolerances, replicas: i32, value: i64, target: i64) -> (i32, i64) {
    let ratio = value as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerances.hold(ratio) { replicas } else { ceil(value as f64 / target as f64) };
    (wanted, (value as f64 / f64::from(replicas)).ceil() as i64)
}

/// What each pod, or one container of each, requests, in thousandths.
fn requests(pods: &[Pod], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pod.metadata.name.clone(), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: &str, resource: &str) -> Result<i64, String> {
    let name = &pod.metadata.name;
    let whole = pod.spec.resources.as_ref().filter(|r| container.is_empty() && !r.requests.is_empty());
    if let Some(whole) = whole {
        let request = whole.requests.get(resource);
        return request
            .map(|request| request.milli_value())
            .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"));
    }
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0;
    for each in pod.spec.containers.iter().chain(sidecars) {
        if !container.is_empty() && container != each.name {
            continue;
        }
        let request = each.resources.requests.get(resource).ok_or_else(|| {
            format!("missing request for {resource} in container {} of Pod {name}", each.name)
        })?;
        sum += request.milli_value();
        if container == each.name {
            return Ok(sum);
        }
    }
    match container {
        "" => Ok(sum),
        container => Err(format!("container {container} not found in Pod {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    const NOW: i64 = 1_000_000;

    /// `pods`: a letter each: r(unning and ready), u(nready), p(ending), d(eleted). `used`: thousandths, `-` for none.
    fn check(pods: &str, used: &str, target: i32, expected: Expect) {
        let all: Vec<Pod> = pods
            .chars()
            .enumerate()
            .map(|(i, state)| {
                let pod = json!({
                    "metadata": {"name": format!("p{i}"),
                        "deletionTimestamp": (state == 'd').then_some("2020-01-01T00:00:00Z")},
                    "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
                    "status": {"phase": if state == 'p' { "Pending" } else { "Running" },
                        "startTime": Time::from_unix(NOW - 1000).to_string(),
                        "conditions": [{"type": "Ready", "status": if state == 'u' { "False" } else { "True" },
                            "lastTransitionTime": Time::from_unix(NOW - 990).to_string()}]},
                });
                apimachinery::value::from_value(pod).unwrap()
            })
            .collect();
        let samples = used.split(' ').enumerate().filter_map(|(i, value)| {
            let value = value.parse().ok()?;
            Some((format!("p{i}"), Sample { value, at: Time::from_unix(NOW), window: 60 }))
        });
        let query = Query {
            current: i32::try_from(all.len()).unwrap(),
            tolerances: Tolerances { up: 0.1, down: 0.1 },
            pods: &all,
            now: Time::from_unix(NOW),
        };
        let shown = match by_utilization(&query, samples.collect(), "cpu", "", target) {
            Ok((replicas, percent, raw)) => format!("{replicas} at {percent}% ({raw}m)"),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn utilization() {
        check("rrr", "300 500 700", 30, expect!["5 at 50% (500m)"]);
        check("rrr", "300 500 700", 50, expect!["3 at 50% (500m)"]);
        // Within a tenth of the target.
        check("rrr", "500 520 530", 50, expect!["3 at 51% (516m)"]);
        check("rrrrr", "100 100 100 100 100", 50, expect!["1 at 10% (100m)"]);
        // Pods that are not ready do not slow a growth down by what they do not use yet.
        check("rru", "900 900 100", 30, expect!["6 at 90% (900m)"]);
        check("rrp", "300 300 -", 50, expect!["2 at 30% (300m)"]);
        // Pods without samples count as fully used when it shrinks, and as idle when it grows.
        check("rrr", "100 100 -", 50, expect!["3 at 10% (100m)"]);
        check("rrr", "900 900 -", 50, expect!["4 at 90% (900m)"]);
        check("rrd", "900 900 900", 50, expect!["4 at 90% (900m)"]);
        check("pp", "- -", 50, expect!["did not receive metrics for targeted pods (pods might be unready)"]);
        check("", "", 50, expect!["no pods returned by selector while calculating replica count"]);
    }

    #[test]
    fn shares() {
        let tolerances = Tolerances { up: 0.1, down: 0.1 };
        assert_eq!(by_share(tolerances, 3, 9000, 2000), (5, 3000));
        assert_eq!(by_share(tolerances, 3, 6100, 2000), (3, 2034));
    }
}
