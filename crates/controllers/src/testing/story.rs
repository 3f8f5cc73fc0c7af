//! The words of a story, and how they are played.

use super::Api;
use super::kubelet::{self, Pace};
use crate::{Cluster, Context, Controller};
use apimachinery::clock::{Clock, Sleep};
use apimachinery::json;
use apimachinery::time::{Time, Timestamp};
use apimachinery::value::Value;
use client::{Client, Informers};
use component::gates::{FeatureGates, Gate};
use component::metrics::Registry;
use http::Method;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// When stories begin.
const BEGIN: &str = "2026-01-01T00:00:00Z";

/// The day's time by tokio's clock, which stands still unless a story moves it.
struct StoryClock(tokio::time::Instant);

impl Clock for StoryClock {
    fn now(&self) -> Timestamp {
        let begin: Timestamp = BEGIN.parse().expect("a time");
        begin + self.0.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct Stage {
    api: Api,
    clock: Arc<dyn Clock>,
    pace: watch::Sender<Pace>,
    metrics: Registry,
}

const fn beta(name: &'static str, default: bool) -> Gate {
    Gate { name, default, stage: component::gates::Stage::Beta, locked: false }
}

/// The gates that stories are about, as v1.36 has them.
const GATES: &[Gate] = &[
    beta("DRADeviceTaintRules", false),
    beta("DRADeviceTaints", true),
    beta("DRAExtendedResource", true),
    beta("DRAPrioritizedList", true),
];

/// Plays `testdata/NAME.txt` with these controllers.
pub(crate) fn play(name: &str, controllers: &[Controller]) {
    play_with(name, "", controllers);
}

/// The same, with gates set as `--feature-gates` sets them.
pub(crate) fn play_with(name: &str, gates: &str, controllers: &[Controller]) {
    let mut features = FeatureGates::new(GATES);
    features.parse(gates).expect("gates");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.txt"));
    let script = std::fs::read_to_string(&path).expect("a story");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let told = runtime.block_on(perform(&script, Arc::new(features), controllers));
    expect_test::expect_file![path].assert_eq(&told);
}

async fn perform(script: &str, gates: Arc<FeatureGates>, controllers: &[Controller]) -> String {
    let clock: Arc<dyn Clock> = Arc::new(StoryClock(tokio::time::Instant::now()));
    let api = Api::new(clock.clone());
    let slow = Pace { start: Duration::from_secs(1), stop: Duration::from_secs(1), starts: false };
    let (pace, paces) = watch::channel(slow);
    tokio::spawn(kubelet::run(api.clone(), clock.clone(), paces));
    let shutdown = CancellationToken::new();
    let informers = Informers::from_source(Arc::new(api.clone()), shutdown.clone());
    let metrics = Registry::default();
    for controller in controllers {
        tokio::spawn(controller(Context {
            client: Client::new(Arc::new(api.clone()), "test"),
            informers: informers.clone(),
            cluster: Arc::new(Cluster {
                root_ca: String::new(),
                pod_cidrs: Vec::new(),
                node_mask: 24,
                domain: "cluster.local".into(),
                dns_port: 53,
                signing: None,
            }),
            metrics: metrics.clone(),
            clock: crate::WallClock::new(clock.clone()),
            gates: gates.clone(),
            shutdown: shutdown.clone(),
        }));
    }
    let stage = Stage { api, clock, pace, metrics };
    stage.advance(Duration::ZERO).await;
    let mut told = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(command) = line.strip_prefix("> ") {
            told += line;
            told.push('\n');
            let mut input = String::new();
            while let Some(more) = lines.next_if(|more| more.starts_with('|')) {
                told += more;
                told.push('\n');
                input += more.strip_prefix("| ").unwrap_or_default();
                input.push('\n');
            }
            told += &stage.command(command, &input).await;
        } else if line.is_empty() || line.starts_with('#') {
            told += line;
            told.push('\n');
        }
    }
    told
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).expect("a unit"));
    let number: f64 = number.parse().expect("a number");
    Duration::from_secs_f64(
        number
            * match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => 86400.0,
            },
    )
}

fn path(resource: &str, name: Option<&str>) -> String {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let rows = ::api::table().resources();
    let found = |row: &&schema::row::ResourceRow| {
        row.resource == resource && row.version.starts_with('v') && row.group != "events.k8s.io"
    };
    let mut rows: Vec<_> = rows.iter().filter(found).collect();
    // Stable versions first, and betas before alphas.
    let early = |version: &str| version.contains("alpha") || version.contains("beta");
    rows.sort_by_key(|row| (early(&row.version), std::cmp::Reverse(row.version.clone())));
    let row = rows.first().unwrap_or_else(|| panic!("no resource {resource}"));
    let of = client::Resource::new(&row.group, &row.version, resource);
    let subresource = Some(subresource).filter(|s| !s.is_empty());
    of.path(row.namespaced.then_some("default"), name, subresource)
}

impl Stage {
    /// Lets everybody do what is due within `by`.
    async fn advance(&self, by: Duration) {
        // Tokio moves its clock when all are idle; a millisecond lets those who are due finish.
        tokio::time::sleep(by + Duration::from_millis(1)).await;
    }

    async fn command(&self, command: &str, input: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let out = match words.as_slice() {
            ["advance", by] => {
                self.advance(duration(by)).await;
                return String::new();
            }
            ["nodes", names @ ..] => {
                for name in names {
                    let (name, labels) = name.split_once(':').unwrap_or((name, ""));
                    let labels: Value = labels
                        .split(',')
                        .filter_map(|l| l.split_once('='))
                        .map(|(k, v)| (k.to_owned(), json!(v)))
                        .collect::<apimachinery::value::Map>()
                        .into();
                    let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
                    self.send(&Method::POST, &path("nodes", None), "", &node);
                }
                String::new()
            }
            ["kubelet", "off"] => {
                self.pace.send_modify(|pace| pace.starts = false);
                String::new()
            }
            ["kubelet", options @ ..] => {
                let mut pace = *self.pace.borrow();
                pace.starts = true;
                for (key, value) in options.iter().filter_map(|option| option.split_once('=')) {
                    match key {
                        "start" => pace.start = duration(value),
                        _ => pace.stop = duration(value),
                    }
                }
                self.pace.send_replace(pace);
                String::new()
            }
            ["create", resource] => {
                let object = yaml(input);
                self.send(&Method::POST, &path(resource, None), "", &object)
            }
            ["patch", resource, name] => self.send(
                &Method::PATCH,
                &path(resource, Some(name)),
                "application/merge-patch+json",
                &yaml(input),
            ),
            ["patch", resource, name, ..] => {
                let patch = command.split_once('{').map(|(_, rest)| format!("{{{rest}")).expect("a patch");
                self.send(
                    &Method::PATCH,
                    &path(resource, Some(name)),
                    "application/merge-patch+json",
                    &yaml(&patch),
                )
            }
            ["delete", resource, name] => {
                self.send(&Method::DELETE, &path(resource, Some(name)), "", &json!({}))
            }
            ["gone", resource, name] => {
                self.api.remove(resource, name);
                String::new()
            }
            ["status", resource, name, ..] => {
                let change = command.split_once('{').map(|(_, rest)| format!("{{{rest}")).expect("a status");
                let change = change.replace("NOW", &self.now().to_string());
                self.api.edit(resource, name, |object| {
                    schema::patch::merge(&mut object["status"], &yaml(&change))
                });
                String::new()
            }
            ["edit", resource, name, ..] => {
                let change = command.split_once('{').map(|(_, rest)| format!("{{{rest}")).expect("a change");
                let change = change.replace("NOW", &self.now().to_string());
                self.api.edit(resource, name, |object| schema::patch::merge(object, &yaml(&change)));
                String::new()
            }
            ["fail" | "succeed", name, ..] => {
                let failed = words[0] == "fail";
                let code = words.get(2).map_or(i32::from(failed), |code| code.parse().expect("a code"));
                let now = self.now().to_string();
                self.api.edit("pods", name, |pod| {
                    let container = pod["spec"]["containers"][0]["name"].clone();
                    pod["status"] = json!({
                        "phase": if failed { "Failed" } else { "Succeeded" },
                        "containerStatuses": [{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                            "state": {"terminated": {"exitCode": code, "finishedAt": now}}}],
                    });
                });
                String::new()
            }
            ["refuse", method, resource, ..] => {
                let words = command.splitn(4, ' ').nth(3).unwrap_or("no");
                self.api.refuse(method, resource, words);
                String::new()
            }
            ["answer", path, ..] => {
                let document = command.splitn(3, ' ').nth(2).expect("a document");
                self.api.answer(path, yaml(&document.replace("NOW", &self.now().to_string())));
                String::new()
            }
            ["allow"] => {
                self.api.allow();
                String::new()
            }
            ["show", "metrics", prefix] => {
                // But for what is a matter of time.
                let told = |line: &&str| {
                    line.starts_with(prefix)
                        && !line.contains("_bucket")
                        && !line.contains("_duration_seconds_sum")
                };
                self.metrics.render().lines().filter(told).map(|line| format!("  {line}\n")).collect()
            }
            ["show", "events"] => {
                let mut events: Vec<String> = Vec::new();
                for event in self.api.events() {
                    if !events.contains(&event) {
                        events.push(event);
                    }
                }
                events.iter().map(|event| format!("  {event}\n")).collect()
            }
            ["show", "pods"] => self.api.list("pods").iter().map(pod_line).collect(),
            ["show", "replicasets"] => self.api.list("replicasets").iter().map(set_line).collect(),
            ["show", resource] => {
                let objects = self.api.list(resource);
                objects.iter().map(|object| format!("  {}\n", text(&object["metadata"]["name"]))).collect()
            }
            ["get", resource, name, pointers @ ..] => {
                let object = self.api.list(resource).into_iter().find(|o| o["metadata"]["name"] == *name);
                let object = object.unwrap_or(Value::Null);
                let mut out = String::new();
                for pointer in pointers {
                    let _ = writeln!(out, "  {pointer}: {}", object.pointer(pointer).unwrap_or(&Value::Null));
                }
                out
            }
            _ => panic!("unknown command: {command}"),
        };
        self.advance(Duration::ZERO).await;
        out
    }

    fn now(&self) -> Time {
        self.clock.now().into()
    }

    fn send(&self, method: &Method, path: &str, kind: &str, body: &Value) -> String {
        let body = serde_json::to_vec(body).expect("JSON");
        match self.api.call(method, path, kind, &body) {
            Ok(_) => String::new(),
            Err(status) => format!("  error: {}\n", status.message),
        }
    }
}

fn yaml(input: &str) -> Value {
    schema::decode::free_yaml(input, schema::decode::FieldValidation::Strict).expect("YAML").value
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn pod_line(pod: &Value) -> String {
    let meta = &pod["metadata"];
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    let mut line =
        format!("  {} {}", text(&meta["name"]), pod["status"]["phase"].as_str().unwrap_or("Pending"));
    for (shown, word) in [
        (ready, "ready"),
        (!meta["deletionTimestamp"].is_null(), "terminating"),
        (meta["finalizers"].is_array(), "held"),
    ] {
        if shown {
            line = line + " " + word;
        }
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str() {
        line = line + " on " + node;
    }
    for label in ["controller-revision-hash"] {
        if let Some(value) = meta["labels"][label].as_str() {
            line = line + " of " + value;
        }
    }
    line + "\n"
}

fn set_line(set: &Value) -> String {
    let status = &set["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    format!(
        "  {} wants {} has {} ready {} available {} revision {}\n",
        text(&set["metadata"]["name"]),
        set["spec"]["replicas"],
        number("replicas"),
        number("readyReplicas"),
        number("availableReplicas"),
        text(&set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]),
    )
}
