//! Readings of what nodes and pods use, and rates between two of them: pure. In comes a kubelet's `/stats/summary`.

use apimachinery::json;
use apimachinery::time::Timestamp;
use apimachinery::value::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Processor time in nanoseconds, and bytes of working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counters {
    cpu: u64,
    memory: u64,
}

impl Counters {
    fn of(value: &Value) -> Option<Self> {
        let cpu = value["cpu"]["usageCoreNanoSeconds"].as_u64()?;
        Some(Counters { cpu, memory: value["memory"]["workingSetBytes"].as_u64()? })
    }
}

/// Namespace and name.
pub(super) type Key = (String, String);

/// One reading of a node.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub at: Instant,
    pub time: Timestamp,
    node: Option<Counters>,
    pods: BTreeMap<Key, BTreeMap<String, Counters>>,
}

impl Sample {
    pub(super) fn of(summary: &Value, at: Instant, time: Timestamp) -> Self {
        let mut pods = BTreeMap::new();
        for pod in summary["pods"].as_array().into_iter().flatten() {
            let text = |key: &str| pod["podRef"][key].as_str().unwrap_or_default().to_owned();
            let containers = pod["containers"].as_array().into_iter().flatten();
            let containers = containers.filter_map(|container| {
                Some((container["name"].as_str()?.to_owned(), Counters::of(container)?))
            });
            pods.insert((text("namespace"), text("name")), containers.collect());
        }
        Sample { at, time, node: Counters::of(&summary["node"]), pods }
    }
}

/// Two readings of a node.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub before: Sample,
    pub after: Sample,
}

impl Pair {
    fn window(&self) -> Duration {
        self.after.at.duration_since(self.before.at)
    }

    /// What was used between them; nothing when a counter went back, which is that of another life.
    fn usage(&self, before: Counters, after: Counters) -> Option<Value> {
        let used = after.cpu.checked_sub(before.cpu)?;
        let nanos = u64::try_from(self.window().as_nanos()).ok().filter(|nanos| *nanos > 0)?;
        let rate = u128::from(used) * 1_000_000_000 / u128::from(nanos);
        Some(json!({ "cpu": format!("{rate}n"), "memory": format!("{}Ki", after.memory / 1024) }))
    }

    /// What every answer about this node says of time.
    pub(super) fn when(&self) -> (String, String) {
        (
            apimachinery::time::Time::from(self.after.time).to_string(),
            format!("{}ms", self.window().as_millis()),
        )
    }

    pub(super) fn node(&self) -> Option<Value> {
        self.usage(self.before.node?, self.after.node?)
    }

    /// The containers of every pod that were there both times. A pod of which one is missing is left out, as a sum that
    /// lacks something misleads.
    pub(super) fn pods(&self) -> BTreeMap<Key, Vec<Value>> {
        let mut out = BTreeMap::new();
        for (key, containers) in &self.after.pods {
            let Some(before) = self.before.pods.get(key) else { continue };
            let usages = containers.iter().map(|(name, after)| {
                let usage = self.usage(*before.get(name)?, *after)?;
                Some(json!({ "name": name, "usage": usage }))
            });
            if let Some(usages) = usages.collect::<Option<Vec<Value>>>().filter(|all| !all.is_empty()) {
                out.insert(key.clone(), usages);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn summary(node: u64, pods: Value) -> Value {
        json!({ "node": { "cpu": { "usageCoreNanoSeconds": node }, "memory": { "workingSetBytes": 1 << 30 } }, "pods": pods })
    }

    fn pod(name: &str, containers: &[(&str, u64)]) -> Value {
        let containers: Vec<Value> = containers
            .iter()
            .map(|(name, cpu)| json!({ "name": name, "cpu": { "usageCoreNanoSeconds": cpu }, "memory": { "workingSetBytes": 2048 } }))
            .collect();
        json!({ "podRef": { "namespace": "ns", "name": name }, "containers": containers })
    }

    #[test]
    fn rates() {
        let start = Instant::now();
        let sample = |value: Value, after| {
            Sample::of(&value, start + Duration::from_millis(after), Timestamp::from_second(1000).unwrap())
        };
        let before = json!([
            pod("a", &[("c", 100), ("d", 0)]),
            pod("restarted", &[("c", 900)]),
            pod("grown", &[("c", 1)])
        ]);
        let after = json!([
            pod("a", &[("c", 1_000_100), ("d", 500)]),
            pod("restarted", &[("c", 5)]),
            pod("grown", &[("c", 1), ("new", 1)]),
            pod("fresh", &[("c", 1)]),
        ]);
        let pair = Pair {
            before: sample(summary(1_000_000_000, before), 0),
            after: sample(summary(2_000_000_000, after), 2000),
        };
        let shown = json!({ "node": pair.node(), "when": pair.when(), "pods": pair.pods().into_iter().map(|((_, name), v)| (name, v)).collect::<BTreeMap<_, _>>() });
        expect![[r#"{"node":{"cpu":"500000000n","memory":"1048576Ki"},"pods":{"a":[{"name":"c","usage":{"cpu":"500000n","memory":"2Ki"}},{"name":"d","usage":{"cpu":"250n","memory":"2Ki"}}]},"when":["1970-01-01T00:16:40Z","2000ms"]}"#]]
            .assert_eq(&shown.to_string());
    }
}
