//! The levels and schemas in force, made of the objects: which schema a request is of, and which level serves it.

use super::defaults;
use super::level::{Kind, Level};
use super::matching;
use super::metrics::{Metrics, Pair};
use super::queues::Queuing;
use super::share;
use crate::request::RequestInfo;
use crate::user::User;
use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use apimachinery::clock::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Of its nominal seats, what an estimate of one request may come to at most.
const LARGEST_REQUEST: f64 = 0.15;

/// A flow schema in force.
#[derive(Debug)]
pub(super) struct Schema {
    pub schema: FlowSchema,
    pub level: Arc<Held>,
    pub pair: Arc<Pair>,
}

/// A level with what its object says.
#[derive(Debug)]
pub(super) struct Held {
    pub level: Arc<Level>,
    pub object: PriorityLevelConfiguration,
    /// It has no object any more, and is there for those who wait in it.
    pub quiescing: bool,
    pub nominal: u32,
    pub minimum: u32,
    pub maximum: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// In the order in which they are asked.
    pub schemas: Vec<Schema>,
    pub levels: BTreeMap<String, Arc<Held>>,
    /// The sum of what levels have nominally.
    pub nominal: u32,
}

/// How a level's object wants those answered who find no seats; nothing for an object that contradicts itself.
fn kind(object: &PriorityLevelConfiguration) -> Option<Kind> {
    let spec = &object.spec;
    let exempt = spec.type_ == "Exempt";
    if exempt != spec.exempt.is_some() || exempt != (object.metadata.name == defaults::EXEMPT) {
        return None;
    }
    let Some(limited) = &spec.limited else { return exempt.then_some(Kind::Exempt) };
    let size = |n: i32| usize::try_from(n).unwrap_or(0);
    match (limited.limit_response.type_.as_str(), &limited.limit_response.queuing) {
        ("Reject", None) => Some(Kind::Reject),
        ("Queue", Some(queuing)) => {
            let (queues, hand) = (size(queuing.queues), size(queuing.hand_size));
            let sane = queues > 0 && hand > 0 && hand <= queues;
            sane.then_some(Kind::Queue(Queuing { queues, hand, length: size(queuing.queue_length_limit) }))
        }
        _ => None,
    }
}

/// Shares, percent that may be lent, percent that may be borrowed.
fn shares(object: &PriorityLevelConfiguration) -> (i32, i32, Option<i32>) {
    match (&object.spec.limited, &object.spec.exempt) {
        (Some(limited), _) => (
            limited.nominal_concurrency_shares.unwrap_or(30),
            limited.lendable_percent.unwrap_or(0),
            limited.borrowing_limit_percent,
        ),
        (None, Some(exempt)) => {
            (exempt.nominal_concurrency_shares.unwrap_or(0), exempt.lendable_percent.unwrap_or(0), None)
        }
        (None, None) => (0, 0, None),
    }
}

/// What the requests of a level are measured by that has no seats: exempt ones are served all the same.
fn instead(total: u32) -> u32 {
    (f64::from(total) / 10.0).round().max(1.0) as u32
}

impl Config {
    /// What objects come to, where `self` was in force: levels that are known go on.
    pub(super) fn digest(
        &self,
        total: u32,
        mut levels: Vec<PriorityLevelConfiguration>,
        mut schemas: Vec<FlowSchema>,
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
    ) -> Config {
        levels.retain(|object| {
            let good = kind(object).is_some();
            if !good {
                tracing::warn!(
                    name = object.metadata.name,
                    "ignoring a PriorityLevelConfiguration that is broken"
                );
            }
            good
        });
        for mandatory in defaults::priority_levels() {
            let name = &mandatory.metadata.name;
            if defaults::is_mandatory(name) && !levels.iter().any(|object| object.metadata.name == *name) {
                levels.push(mandatory);
            }
        }
        let mut kept: Vec<(PriorityLevelConfiguration, bool)> =
            levels.into_iter().map(|l| (l, false)).collect();
        for (name, held) in &self.levels {
            if kept.iter().all(|(object, _)| object.metadata.name != *name) {
                match held.level.is_idle() {
                    true => metrics.forget(name),
                    false => kept.push((held.object.clone(), true)),
                }
            }
        }
        let places = kept.iter().filter_map(|(object, _)| kind(object)).map(Kind::places).sum();
        let share_sum: f64 = kept.iter().map(|(object, _)| f64::from(shares(object).0)).sum();
        let mut config = Config::default();
        for (object, quiescing) in kept {
            let held = self.hold(object, quiescing, (total, share_sum), metrics, clock);
            config.nominal += held.nominal;
            config.levels.insert(held.level.name.clone(), Arc::new(held));
        }
        metrics.limit(clock.monotonic(), config.nominal, places);
        schemas.retain(|schema| {
            let level = &schema.spec.priority_level_configuration.name;
            config.levels.get(level).is_some_and(|held| !held.quiescing)
        });
        for mandatory in defaults::flow_schemas() {
            let name = &mandatory.metadata.name;
            if defaults::is_mandatory(name) && !schemas.iter().any(|schema| schema.metadata.name == *name) {
                schemas.push(mandatory);
            }
        }
        schemas.sort_by(|a, b| {
            let key = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        for schema in schemas {
            let Some(level) = config.levels.get(&schema.spec.priority_level_configuration.name) else {
                continue;
            };
            let pair = metrics.pair(&level.level.name, &schema.metadata.name);
            config.schemas.push(Schema { level: level.clone(), pair, schema });
        }
        config
    }

    fn hold(
        &self,
        object: PriorityLevelConfiguration,
        quiescing: bool,
        (total, share_sum): (u32, f64),
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
    ) -> Held {
        let name = object.metadata.name.clone();
        let kind = kind(&object).unwrap_or(Kind::Reject);
        let (share, lendable, borrowable) = shares(&object);
        let nominal = match share_sum > 0.0 {
            true => (f64::from(total) * f64::from(share) / share_sum).ceil() as u32,
            false => 0,
        };
        let percent = |percent: i32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let lends = percent(lendable).min(nominal);
        let borrows = borrowable.map_or(total, percent);
        let (minimum, maximum) = (nominal - lends, nominal.saturating_add(borrows));
        let own = metrics.level(&name);
        own.nominal.set(f64::from(nominal));
        own.lower.set(f64::from(minimum));
        own.upper.set(f64::from(maximum));
        let level = match self.levels.get(&name) {
            Some(held) => {
                held.level.configure(kind);
                held.level.clone()
            }
            None => {
                let level = Level::new(&name, kind, own, clock.clone());
                level.set_limit(nominal - lends / 2, instead(total));
                Arc::new(level)
            }
        };
        if let Kind::Queue(queuing) = kind {
            let most =
                (f64::from(nominal) * LARGEST_REQUEST).ceil().min((nominal as usize / queuing.hand) as f64);
            level.max_seats.store(most.max(1.0) as u32, Ordering::Relaxed);
        }
        Held { level, object, quiescing, nominal, minimum, maximum }
    }

    /// Adjusts the levels' limits to what was wanted lately.
    pub(super) fn adjust(&self, now: std::time::Duration, total: u32, metrics: &Metrics) {
        let held: Vec<&Arc<Held>> = self.levels.values().collect();
        let lately: Vec<_> =
            held.iter().map(|held| held.level.demand.close(now, held.level.seats_wanted())).collect();
        let wants: Vec<share::Level> = held
            .iter()
            .zip(&lately)
            .map(|(held, lately)| share::Level {
                exempt: held.object.spec.exempt.is_some(),
                nominal: held.nominal,
                minimum: held.minimum,
                maximum: held.maximum,
                current: held.level.limit(),
                peak: lately.peak,
                smoothed: lately.smoothed,
            })
            .collect();
        let shared = share::adjust(self.nominal, &wants);
        metrics.fair_fraction.set(shared.fraction);
        for (i, (held, lately)) in held.iter().zip(&lately).enumerate() {
            held.level.set_limit(shared.limits[i], instead(total));
            let own = metrics.level(&held.level.name);
            let values = [f64::from(lately.peak), lately.mean, lately.deviation, lately.smoothed];
            own.demand.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
            own.target.set(shared.targets[i]);
        }
    }

    /// The schema of a request. There is always one: the last one is for everybody.
    pub(super) fn schema(&self, user: &User, info: &RequestInfo) -> Option<&Schema> {
        let found = self.schemas.iter().find(|schema| matching::matches(&schema.schema, user, info));
        found.or_else(|| self.schemas.iter().find(|s| s.schema.metadata.name == defaults::CATCH_ALL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::clock::SystemClock;
    use component::metrics::Registry;
    use expect_test::expect;

    fn show(config: &Config) -> String {
        let mut out = String::new();
        for (name, held) in &config.levels {
            let level = &held.level;
            let largest = level.max_seats.load(Ordering::Relaxed);
            out += &format!(
                "{name}: {} nominal, {} to {}, {} now, requests to {largest}{}\n",
                held.nominal,
                held.minimum,
                held.maximum,
                level.limit(),
                if held.quiescing { ", quiescing" } else { "" },
            );
        }
        let schemas: Vec<_> = config.schemas.iter().map(|s| s.schema.metadata.name.as_str()).collect();
        out + &schemas.join(" ")
    }

    #[tokio::test]
    async fn objects_become_levels() {
        let registry = Registry::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let metrics = Metrics::new(&registry, &clock);
        let digest = |config: &Config, levels, schemas| config.digest(600, levels, schemas, &metrics, &clock);
        // Without objects there is what nobody can do without.
        let none = digest(&Config::default(), Vec::new(), Vec::new());
        expect![[r#"
            catch-all: 600 nominal, 600 to 1200, 600 now, requests to 0
            exempt: 0 nominal, 0 to 600, 0 now, requests to 0
            exempt catch-all"#]]
        .assert_eq(&show(&none));
        let all = digest(&none, defaults::priority_levels(), defaults::flow_schemas());
        expect![[r#"
            catch-all: 13 nominal, 13 to 613, 600 now, requests to 0
            exempt: 0 nominal, 0 to 600, 0 now, requests to 0
            global-default: 49 nominal, 24 to 649, 37 now, requests to 8
            leader-election: 25 nominal, 25 to 625, 25 now, requests to 4
            node-high: 98 nominal, 73 to 698, 86 now, requests to 15
            system: 74 nominal, 50 to 674, 62 now, requests to 12
            workload-high: 98 nominal, 49 to 698, 74 now, requests to 15
            workload-low: 245 nominal, 24 to 845, 135 now, requests to 37
            exempt probes system-leader-election system-node-high system-nodes kube-controller-manager kube-scheduler kube-system-service-accounts service-accounts global-default catch-all"#]].assert_eq(&show(&all));
        assert!(!registry.render().contains("NaN"), "nothing is a part of nothing");
        all.adjust(clock.monotonic(), 600, &metrics);
        expect![[r#"
            catch-all: 13 nominal, 13 to 613, 30 now, requests to 0
            exempt: 0 nominal, 0 to 600, 0 now, requests to 0
            global-default: 49 nominal, 24 to 649, 56 now, requests to 8
            leader-election: 25 nominal, 25 to 625, 58 now, requests to 4
            node-high: 98 nominal, 73 to 698, 170 now, requests to 15
            system: 74 nominal, 50 to 674, 117 now, requests to 12
            workload-high: 98 nominal, 49 to 698, 114 now, requests to 15
            workload-low: 245 nominal, 24 to 845, 56 now, requests to 37
            exempt probes system-leader-election system-node-high system-nodes kube-controller-manager kube-scheduler kube-system-service-accounts service-accounts global-default catch-all"#]].assert_eq(&show(&all));
        // A level that goes stays as long as somebody is served by it; its schemas go at once.
        let pair = metrics.pair("system", "system-nodes");
        let system = all.levels["system"].level.clone();
        let (work, among) = (crate::flowcontrol::work::Work::ONE, metrics.requests(false));
        let request = crate::flowcontrol::level::Request { pair: &pair, work, is_watch: false, among };
        let patience = std::time::Duration::from_secs(1);
        let held = system.start(request, patience, || (0, Default::default())).await.unwrap();
        let mut fewer = defaults::priority_levels();
        fewer.retain(|level| level.metadata.name != "system" && level.metadata.name != "workload-low");
        fewer[0].spec.limited = None;
        let after = digest(&all, fewer.clone(), defaults::flow_schemas());
        expect![[r#"
            catch-all: 29 nominal, 29 to 629, 30 now, requests to 0
            exempt: 0 nominal, 0 to 600, 0 now, requests to 0
            global-default: 115 nominal, 57 to 715, 56 now, requests to 18
            leader-election: 58 nominal, 58 to 658, 58 now, requests to 9
            system: 172 nominal, 115 to 772, 117 now, requests to 26, quiescing
            workload-high: 229 nominal, 114 to 829, 114 now, requests to 35
            exempt probes system-leader-election kube-controller-manager kube-scheduler kube-system-service-accounts global-default catch-all"#]].assert_eq(&show(&after));
        drop(held);
        let after = digest(&after, fewer, Vec::new());
        assert!(!after.levels.contains_key("system"));
    }
}
