//! Scheduling: pods created by many clients until the scheduler has bound all of them to simulated nodes.

use crate::latency::Latencies;
use crate::load::{Load, Make, run};
use crate::pods::{self, Template};
use crate::process::Meter;
use crate::report::{Errors, Figure};
use crate::simulated::{KEY, Nodes, VALUE};
use crate::verbs::Setting;
use crate::watching::Watching;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the last pod may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How far pods have to come to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Bound,
    Running,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Phase<'a>,
}

#[derive(Deserialize, Default)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    node_name: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Phase<'a> {
    #[default]
    None,
    Of {
        #[serde(borrow, default)]
        phase: Cow<'a, str>,
    },
    /// An error event's status is a word.
    Other(serde::de::IgnoredAny),
}

/// Creates `load.total` pods with `load.clients` clients; done when all are bound (or run).
pub(crate) async fn schedule(setting: &Setting, nodes: &Nodes, load: Load, until: Until) -> Result<Figure> {
    let namespace = format!("{}-schedule", setting.namespace);
    let mut connection = setting.target.connect().await?;
    pods::namespace(&mut connection, &namespace).await?;
    let mut spec = pods::spec("default-scheduler");
    spec["nodeSelector"] = json!({KEY: VALUE});
    spec["tolerations"] = json!([{"key": KEY, "value": VALUE, "effect": "NoSchedule"}]);
    let template = Template::sized(&mut connection, &namespace, &spec, setting.size).await?;
    let total = load.total.context("a number of pods")? as usize;
    let names = pods::names(total);
    let path = pods::path(&namespace, "");
    let (_, revision) = pods::list(&mut connection, &namespace).await?;
    let watching = Watching::open(&setting.target, &path, Some(&revision)).await?;

    let begun: Arc<[Mutex<Option<Instant>>]> = (0..total).map(|_| Mutex::new(None)).collect();
    let (all, times) = (names.clone(), begun.clone());
    let make: Make = Arc::new(move |n| {
        if let Ok(mut at) = times[n as usize].lock() {
            at.get_or_insert_with(Instant::now);
        }
        template.create(&path, &all[n as usize])
    });
    let meter = Meter::start(setting.server)?;
    let began = Instant::now();
    let seen = tokio::spawn(follow(watching, names, begun, until));
    let created = run(&setting.target, None, load, make, None).await?;
    let mut errors: Errors = created.errors.clone();
    // What was not created cannot be awaited.
    let patience = if created.done == total as u64 { PATIENCE } else { Duration::from_secs(5) };
    let (done, last, latencies) = match tokio::time::timeout(patience, seen).await {
        Ok(seen) => seen??,
        Err(_) => bail!(
            "not all of {total} pods came so far; {} were created{}",
            created.done,
            crate::report::errors(&errors)
        ),
    };
    let used = meter.stop()?;
    if done < total {
        errors.insert("pods were not bound".into(), (total - done) as u64);
    }
    pods::remove_namespace(&mut connection, &namespace).await?;
    Ok(Figure {
        name: match until {
            Until::Bound => "bound".into(),
            Until::Running => "running".into(),
        },
        work: format!(
            "{total} pods on {} simulated nodes by {} clients; created at {:.0}/s, {}",
            nodes.count(),
            load.clients,
            created.rate(),
            setting.target.http
        ),
        done: done as u64,
        elapsed: last - began,
        latencies,
        used,
        errors,
    })
}

/// Reads the watch until all pods have come so far.
async fn follow(
    mut watching: Watching,
    names: Arc<[String]>,
    begun: Arc<[Mutex<Option<Instant>>]>,
    until: Until,
) -> Result<(usize, Instant, Latencies)> {
    let mut waiting: HashMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let mut latencies = Latencies::default();
    let mut last = Instant::now();
    while !waiting.is_empty() {
        let line = watching.line().await?;
        let event: Event = serde_json::from_slice(&line)?;
        if event.kind == "ERROR" {
            bail!("the watch failed: {}", String::from_utf8_lossy(&line));
        }
        let object = &event.object;
        let come = match until {
            Until::Bound => !object.spec.node_name.is_empty(),
            Until::Running => matches!(&object.status, Phase::Of { phase } if phase == "Running"),
        };
        if come && let Some(i) = waiting.remove(&*object.metadata.name) {
            last = Instant::now();
            let at = begun[i].lock().ok().and_then(|at| *at);
            latencies.push(at.map_or(Duration::ZERO, |at| last - at));
        }
    }
    Ok((latencies.len(), last, latencies))
}
