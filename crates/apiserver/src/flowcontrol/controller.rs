//! Follows FlowSchemas and PriorityLevelConfigurations: puts them in force, says in their status which schemas lead nowhere,
//! keeps the defaults as they are suggested, and adjusts the levels' seats to what is wanted.

use super::Flow;
use super::defaults::{self, AUTO_UPDATE, GROUP};
use crate::bootstrap;
use crate::registry::Registry;
use api::Kind;
use api::flowcontrol::v1::{FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use bytes::Bytes;
use client::{Client, Informer, Informers, Projection};
use http::Request;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often limits are adjusted.
const ADJUST: Duration = Duration::from_secs(10);
/// How long after a change the defaults are put right.
const MAINTAIN: Duration = Duration::from_secs(60);
/// When what was written too often is written again.
const LATER: Duration = Duration::from_secs(40);
/// When what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Who writes statuses.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Several servers of different minds must not write without end.
const MOST_UPDATES_A_MINUTE: usize = 6;

/// An object, whole: there are few.
struct Whole<K>(K);

impl<K: Kind + Clone + Send + Sync + 'static> Projection for Whole<K> {
    type Kind = K;

    fn project(object: &K) -> Self {
        Whole(object.clone())
    }
}

/// See the module.
pub struct Controller {
    flow: Arc<Flow>,
    registry: Arc<Registry>,
    client: Client,
    levels: Informer<Whole<PriorityLevelConfiguration>>,
    schemas: Informer<Whole<FlowSchema>>,
    updates: VecDeque<(Instant, String)>,
}

impl Controller {
    /// Begins to follow the objects that `informers` tell of; what they say now is in force when this returns.
    pub async fn start(
        flow: Arc<Flow>,
        registry: Arc<Registry>,
        informers: &Informers,
        client: Client,
        written: &bootstrap::Revisions,
    ) -> Self {
        let (levels, schemas) = (informers.get(), informers.get());
        let changed = flow.clone();
        let levels: Informer<Whole<PriorityLevelConfiguration>> = levels;
        levels.subscribe(move |_| changed.changed.notify_one());
        let changed = flow.clone();
        let schemas: Informer<Whole<FlowSchema>> = schemas;
        schemas.subscribe(move |_| changed.changed.notify_one());
        let controller = Controller { flow, registry, client, levels, schemas, updates: VecDeque::new() };
        controller.levels.reached(written.of(GROUP, "prioritylevelconfigurations").max(1)).await;
        controller.schemas.reached(written.of(GROUP, "flowschemas").max(1)).await;
        controller.digest();
        controller
    }

    fn objects(&self) -> (Vec<PriorityLevelConfiguration>, Vec<FlowSchema>) {
        let levels = self.levels.list().iter().map(|cached| cached.0.clone()).collect();
        let schemas = self.schemas.list().iter().map(|cached| cached.0.clone()).collect();
        (levels, schemas)
    }

    fn digest(&self) {
        let (levels, schemas) = self.objects();
        let flow = &self.flow;
        let before = flow.config();
        let config = before.digest(flow.total, levels, schemas, &flow.metrics, &flow.clock);
        config.adjust(flow.clock.monotonic(), flow.total, &flow.metrics);
        *flow.config.write() = Arc::new(config);
    }

    /// Goes on until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let flow = self.flow.clone();
        let mut adjust = tokio::time::interval(ADJUST);
        adjust.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At once: statuses are to be written, defaults may be old.
        let mut maintain = Some(Instant::now());
        loop {
            let at = maintain.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = flow.changed.notified() => {
                    self.digest();
                    maintain = Some(maintain.unwrap_or(Instant::now() + MAINTAIN));
                    match self.tell().await {
                        Ok(true) => {}
                        Ok(false) => maintain = Some(Instant::now() + LATER),
                        Err(error) => {
                            tracing::warn!(error, "the status of a FlowSchema cannot be written");
                            maintain = Some(Instant::now() + AGAIN);
                        }
                    }
                }
                _ = adjust.tick() => {
                    flow.config().adjust(flow.clock.monotonic(), flow.total, &flow.metrics);
                    // A level that nobody needs any more goes when its last request is over.
                    if flow.config().levels.values().any(|held| held.quiescing && held.level.is_idle()) {
                        self.digest();
                    }
                }
                () = tokio::time::sleep_until(at) => {
                    let kept = match self.maintain().await {
                        Ok(()) => self.tell().await,
                        Err(error) => Err(error),
                    };
                    maintain = match kept {
                        Ok(true) => None,
                        Ok(false) => Some(Instant::now() + LATER),
                        Err(error) => {
                            tracing::warn!(error, "the defaults of priority and fairness cannot be kept");
                            Some(Instant::now() + AGAIN)
                        }
                    };
                }
            }
        }
    }

    /// Writes the defaults that are missing or that their owner left to the server, and removes old ones.
    async fn maintain(&self) -> Result<(), String> {
        let kept = bootstrap::keep(&self.registry, defaults::objects()).await;
        kept.map_err(|status| status.message)?;
        let (levels, schemas) = self.objects();
        let unwanted = |meta: &apimachinery::meta::ObjectMeta, wanted: &[Value]| {
            let kept = meta.annotations.get(AUTO_UPDATE).and_then(|text| parse_bool(text)) == Some(true);
            kept && wanted.iter().all(|value| value["metadata"]["name"] != *meta.name)
        };
        let known = defaults::flow_schema_values();
        for schema in schemas.iter().filter(|schema| unwanted(&schema.metadata, &known)) {
            self.send("DELETE", &format!("flowschemas/{}", schema.metadata.name), "", Value::Null).await?;
        }
        let known = defaults::priority_level_values();
        for level in levels.iter().filter(|level| unwanted(&level.metadata, &known)) {
            let path = format!("prioritylevelconfigurations/{}", level.metadata.name);
            self.send("DELETE", &path, "", Value::Null).await?;
        }
        Ok(())
    }

    /// Asks the server itself; what is gone already is well.
    async fn send(&self, method: &str, path: &str, media: &str, body: Value) -> Result<(), String> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/apis/{GROUP}/v1/{path}"))
            .header(http::header::CONTENT_TYPE, if media.is_empty() { "application/json" } else { media })
            .body(body)
            .map_err(|error| error.to_string())?;
        let answer = self.client.send(request).await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() || status == http::StatusCode::NOT_FOUND => Ok(()),
            Ok(status) => Err(format!("{method} {path}: {status}")),
            Err(client::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(format!("{method} {path}: {error}")),
        }
    }

    /// Says of each schema whether its level exists, where its status does not say so yet; whether all of them could be
    /// written.
    async fn tell(&mut self) -> Result<bool, String> {
        let (levels, schemas) = self.objects();
        let mut all = true;
        let now = Instant::now();
        self.updates.retain(|(at, _)| now.duration_since(*at) < Duration::from_secs(60));
        for schema in &schemas {
            let name = &schema.metadata.name;
            let level = &schema.spec.priority_level_configuration.name;
            let mandatory = defaults::is_mandatory(level);
            let found = mandatory || levels.iter().any(|known| known.metadata.name == *level);
            let Some(condition) = dangling(schema, found, self.registry.now()) else { continue };
            if self.updates.iter().filter(|(_, of)| of == name).count() >= MOST_UPDATES_A_MINUTE {
                all = false;
                continue;
            }
            self.updates.push_back((now, name.clone()));
            let path = format!("flowschemas/{name}/status?fieldManager={FIELD_MANAGER}&force=true");
            let body = json!({
                "apiVersion": format!("{GROUP}/v1"),
                "kind": "FlowSchema",
                "metadata": {"name": name},
                "status": {"conditions": [condition]},
            });
            self.send("PATCH", &path, "application/apply-patch+yaml", body).await?;
        }
        Ok(all)
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The condition that a schema ought to have; nothing where it has it.
fn dangling(schema: &FlowSchema, found: bool, now: Time) -> Option<Value> {
    let level = &schema.spec.priority_level_configuration.name;
    let what = format!("This FlowSchema references the PriorityLevelConfiguration object named \"{level}\"");
    let (status, reason, message) = match found {
        true => ("False", "Found", format!("{what} and it exists")),
        false => ("True", "NotFound", format!("{what} but there is no such object")),
    };
    let has = |c: &FlowSchemaCondition| {
        c.type_ == "Dangling" && c.status == status && c.reason == reason && c.message == message
    };
    if schema.status.conditions.iter().any(has) {
        return None;
    }
    Some(json!({
        "type": "Dangling",
        "status": status,
        "lastTransitionTime": now.to_string(),
        "reason": reason,
        "message": message,
    }))
}

/// A default as it is to be, where it is there already; nothing where it is as it is to be. What is suggested is left to
/// its owner who says so, or who has changed it.
pub(crate) fn revise(mut current: Value, wanted: &Value) -> Value {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let said = current["metadata"]["annotations"][AUTO_UPDATE].as_str().and_then(parse_bool);
    let untouched = current["metadata"]["generation"].as_i64() == Some(1);
    let keep = defaults::is_mandatory(name) || said.unwrap_or(untouched);
    if keep {
        current["spec"] = wanted["spec"].clone();
    }
    if said != Some(keep) {
        if !current["metadata"]["annotations"].is_object() {
            current["metadata"]["annotations"] = json!({});
        }
        current["metadata"]["annotations"][AUTO_UPDATE] = keep.to_string().into();
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_a_default() {
        let wanted = |name: &str| json!({"metadata": {"name": name}, "spec": "ours"});
        let check = |name: &str, annotation: Value, generation: i64, expected: (&str, &str)| {
            let mut current = json!({"metadata": {"name": name, "generation": generation}, "spec": "theirs"});
            if !annotation.is_null() {
                current["metadata"]["annotations"] = json!({AUTO_UPDATE: annotation});
            }
            let revised = revise(current, &wanted(name));
            let kept = &revised["metadata"]["annotations"][AUTO_UPDATE];
            assert_eq!((revised["spec"].as_str(), kept.as_str()), (Some(expected.0), Some(expected.1)));
        };
        check("probes", json!("true"), 5, ("ours", "true"));
        check("probes", json!("false"), 1, ("theirs", "false"));
        check("probes", Value::Null, 1, ("ours", "true"));
        check("probes", Value::Null, 2, ("theirs", "false"));
        check("probes", json!("maybe"), 2, ("theirs", "false"));
        check("exempt", json!("false"), 2, ("ours", "true"));
    }

    #[test]
    fn conditions() {
        let mut schema = FlowSchema::default();
        schema.spec.priority_level_configuration.name = "x".into();
        let condition = dangling(&schema, false, Time::from_unix(0)).unwrap();
        assert_eq!(condition["reason"], "NotFound");
        schema.status.conditions.push(apimachinery::value::from_value(condition).unwrap());
        assert_eq!(dangling(&schema, false, Time::from_unix(9)), None);
        assert_eq!(dangling(&schema, true, Time::from_unix(9)).unwrap()["status"], "False");
    }
}
