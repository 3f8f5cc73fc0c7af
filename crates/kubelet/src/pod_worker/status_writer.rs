//! Writes a pod's status to the API, the newest only, again until it is there. Patches say just what changed, so that
//! conditions of others are left alone. Upstream: the status manager.

use super::Letter;
use api::core::v1::{Pod, PodStatus};
use apimachinery::json;
use apimachinery::value::{Map, Value};
use client::{Client, Patch, PatchParams};
use component::metrics::Histogram;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What to write, and to which object.
#[derive(Debug, Clone)]
struct Wanted {
    number: u64,
    uid: String,
    status: PodStatus,
    /// When it changed from what was written last.
    since: Instant,
}

/// The writing end; the task ends with it.
pub(super) struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<u64>,
}

impl StatusWriter {
    pub(super) fn new(client: Client, letter: &Letter, took: Histogram) -> Self {
        let pod = &letter.pod;
        let status = pod.status.clone();
        let (wanted, inbox) = watch::channel(Wanted {
            number: 0,
            uid: pod.metadata.uid.clone(),
            status: status.clone(),
            since: Instant::now(),
        });
        let (done, written) = watch::channel(0);
        let writing = Writing {
            client,
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            // What a static pod's image in the API says is not known yet.
            took,
            known: if crate::labels::is_static_pod(pod) { PodStatus::default() } else { status },
        };
        tokio::spawn(writing.run(inbox, done));
        StatusWriter { wanted, written }
    }

    /// Wants this status to be in the API.
    pub(super) fn set(&self, letter: &Letter, status: PodStatus) {
        let uid = match (&letter.mirror_uid, crate::labels::is_static_pod(&letter.pod)) {
            (Some(uid), _) => uid.clone(),
            (None, false) => letter.pod.metadata.uid.clone(),
            // Not shown anywhere yet; the mirror's arrival brings the next status.
            (None, true) => return,
        };
        self.wanted.send_if_modified(|wanted| {
            if wanted.uid == uid && wanted.status == status {
                return false;
            }
            let since = Instant::now();
            *wanted = Wanted { number: wanted.number + 1, uid, status, since };
            true
        });
    }

    /// Waits until the newest status was written, or cannot be.
    pub(super) async fn written(&mut self) {
        let number = self.wanted.borrow().number;
        let _ = self.written.wait_for(|done| *done >= number).await;
    }
}

struct Writing {
    client: Client,
    namespace: String,
    name: String,
    /// Whose status is known.
    uid: String,
    known: PodStatus,
    took: Histogram,
}

impl Writing {
    async fn run(mut self, mut inbox: watch::Receiver<Wanted>, done: watch::Sender<u64>) {
        let mut failures = 0u32;
        while failures > 0 || inbox.changed().await.is_ok() {
            let wanted = inbox.borrow_and_update().clone();
            match self.write(&wanted).await {
                Ok(()) => {
                    failures = 0;
                    self.took.observe_since(wanted.since);
                    done.send_replace(wanted.number);
                }
                Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => {
                    if error.is_invalid() {
                        tracing::error!(pod = %self.name, namespace = %self.namespace, %error, "a status was refused");
                    }
                    failures = 0;
                    done.send_replace(wanted.number);
                }
                Err(error) => {
                    tracing::warn!(pod = %self.name, namespace = %self.namespace, %error, "a status was not written");
                    failures += 1;
                    let pause = Duration::from_millis(100 << failures.min(7));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // The worker is gone: so is the pod, or the kubelet is shutting down.
                        () = closed(&done) => return,
                    }
                }
            }
        }
    }

    async fn write(&mut self, wanted: &Wanted) -> client::Result<()> {
        if self.uid != wanted.uid {
            // A static pod's image in the API was made anew, and shows nothing.
            self.known = PodStatus::default();
            self.uid.clone_from(&wanted.uid);
        }
        let Some(status) = patch(&self.known, &wanted.status) else { return Ok(()) };
        let patch = Patch::Strategic(json!({ "metadata": { "uid": wanted.uid }, "status": status }));
        let pods = self.client.namespaced::<Pod>(&self.namespace);
        let answer = pods.patch_status(&self.name, &patch, &PatchParams::default()).await?;
        // Foreign conditions and what the server filled in are known from now on.
        self.known = PodStatus { conditions: answer.status.conditions, ..wanted.status.clone() };
        Ok(())
    }
}

async fn closed(done: &watch::Sender<u64>) {
    done.closed().await;
}

/// The strategic merge patch from one status to another; `None` when they are the same. Pure.
fn patch(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
        (apimachinery::value::to_value(old), apimachinery::value::to_value(new))
    else {
        return None;
    };
    let mut out = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let changed = match key.as_str() {
            "conditions" => merged(before, value, "type"),
            "podIPs" | "hostIPs" => merged(before, value, "ip"),
            _ => Some(value.clone()),
        };
        out.extend(changed.map(|changed| (key.clone(), changed)));
    }
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        out.insert(key.clone(), Value::Null);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Items that are new or changed, and deletions of addresses that are gone. Conditions are never deleted: those that are
/// missing belong to others.
fn merged(old: Option<&Value>, new: &Value, key: &str) -> Option<Value> {
    let empty = Vec::new();
    let items = |value: Option<&Value>| value.and_then(Value::as_array).unwrap_or(&empty).clone();
    let (old, new) = (items(old), items(Some(new)));
    let mut out: Vec<Value> = new
        .iter()
        .filter(|item| !old.contains(item))
        .map(|item| {
            // What the condition no longer says must be taken away.
            let mut item = item.clone();
            let before = old.iter().find(|o| o[key] == item[key]).and_then(Value::as_object);
            if let (Some(before), Some(fields)) = (before, item.as_object_mut()) {
                for name in before.keys() {
                    fields.entry(name.clone()).or_insert(Value::Null);
                }
            }
            item
        })
        .collect();
    if key == "ip" {
        for gone in old.iter().filter(|o| !new.iter().any(|n| n[key] == o[key])) {
            out.push(json!({ "$patch": "delete", "ip": gone["ip"] }));
        }
    }
    if key == "type" {
        // Those of resizing are the kubelet's alone, and go when it is done.
        let own = |o: &&Value| o[key].as_str().is_some_and(crate::resize::is_condition);
        for gone in old.iter().filter(own).filter(|o| !new.iter().any(|n| n[key] == o[key])) {
            out.push(json!({ "$patch": "delete", "type": gone["type"] }));
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
