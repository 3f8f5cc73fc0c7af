//! Counts what goes for a rule, and writes it into the rule's status.

use super::act::{Evicting, Loop, id};
use super::facts::{RuleFacts, Saying};
use super::status::{self, Counts};
use super::{Item, NAME};
use api::Kind as _;
use api::resource::v1beta2::DeviceTaintRule;
use apimachinery::json;
use apimachinery::time;
use client::controller::Outcome;
use client::{Cached, Error, Informer, ObjectKey, Patch, PatchParams};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The status of a rule is written no more often, while nothing of the rule itself changes. Upstream: `ruleStatusPeriod`.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
const PERIOD_SECONDS: i64 = PERIOD.as_secs().cast_signed();

impl Loop {
    /// Sees to the status of a rule.
    pub(super) async fn tell_of(&self, item: &Item, name: &str) -> Result<Outcome, Error> {
        let Some(rules) = &self.rules else { return Ok(Outcome::Done) };
        let Some(rule) = rules.get(&ObjectKey::new("", name)) else {
            let live: BTreeSet<_> = rules.list().iter().map(|rule| rule.uid.clone()).collect();
            self.evicted.lock().retain(|uid, _| live.contains(uid));
            return Ok(Outcome::Done);
        };
        let now = self.clock.now();
        if let Some(told) = rule.condition.as_ref().filter(|told| told.observed_generation == rule.generation)
        {
            let next = told.last_transition_time.plus(time::Duration::from_seconds(PERIOD_SECONDS));
            if next > now {
                return Ok(Outcome::After(self.clock.until(next)));
            }
        }
        let mut condition = status::condition(&rule.saying, rule.generation, self.counts(&rule));
        if let Some(told) = &rule.condition {
            condition.last_transition_time = told.last_transition_time;
        }
        if rule.condition.as_ref() == Some(&condition) {
            return Ok(Outcome::Done);
        }
        condition.last_transition_time = now;
        let patch = Patch::Apply(json!({
            "apiVersion": DeviceTaintRule::api_version(),
            "kind": DeviceTaintRule::KIND,
            "metadata": {"name": name, "uid": *rule.uid},
            "status": {"conditions": [condition]},
        }));
        let params = PatchParams { field_manager: NAME.into(), force: true, ..Default::default() };
        let written = self.client.all::<DeviceTaintRule>().patch_status(name, &patch, &params).await?;
        self.writes.note(item, rules, &written.metadata.resource_version);
        Ok(Outcome::Done)
    }

    fn counts(&self, rule: &Cached<RuleFacts>) -> Counts {
        let evicted = self.evicted.lock().get(&rule.uid).copied().unwrap_or(0);
        let told = Counts { evicted, ..Counts::default() };
        match rule.saying.taint.effect.as_str() {
            "NoExecute" => self.pods_of(rule, &self.evicting(), told),
            // As if it evicted, and no other did.
            "None" => {
                let alone = [(id(rule), rule.saying.evicting())];
                let told = self.pods_of(rule, &alone, told);
                let published = self.published_devices(&rule.saying);
                Counts { published, allocated: self.allocated_devices(&rule.saying), ..told }
            }
            _ => told,
        }
    }

    /// The pods that go for a rule.
    fn pods_of(&self, rule: &Cached<RuleFacts>, rules: &[Evicting], told: Counts) -> Counts {
        let id = id(rule);
        let pods = self.pods.list().into_iter().filter(|pod| pod.placed && !pod.deleting);
        let going = pods.filter(|pod| self.of_pod(pod, rules).is_some_and(|all| all.rules.contains(&id)));
        let places: Vec<String> = going.map(|pod| pod.namespace().to_owned()).collect();
        let pods = places.len();
        Counts { pods, namespaces: places.into_iter().collect::<BTreeSet<_>>().len(), ..told }
    }

    /// Devices in the newest generations of their pools. Their names are read anew: this is not asked often.
    fn published_devices(&self, saying: &Saying) -> usize {
        let slices = self.slices.list();
        let mut newest: HashMap<&str, i64> = HashMap::new();
        for slice in &slices {
            let known = newest.entry(&slice.pool).or_insert(slice.generation);
            *known = slice.generation.max(*known);
        }
        let current =
            slices.iter().filter(|slice| newest.get(slice.pool.as_str()) == Some(&slice.generation));
        let specs = current.filter_map(|slice| Some(slice.decode().ok()?.spec));
        specs
            .map(|spec| {
                let names = spec.devices.iter().map(|device| &device.name);
                names.filter(|name| saying.is_about(&spec.driver, &spec.pool.name, name)).count()
            })
            .sum()
    }

    fn allocated_devices(&self, saying: &Saying) -> usize {
        let claims = Informer::list(&self.claims);
        let given = claims.iter().flat_map(|claim| &claim.devices);
        given.filter(|device| saying.is_about_given(device)).count()
    }
}
