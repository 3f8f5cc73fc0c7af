//! The objects of the load: pods of a given size with random names, in a namespace of their own.

use crate::load::{Load, run};
use crate::target::{Call, Connection, Target};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No scheduler has this name: pods that name it stay as they are.
pub(crate) const NOBODY: &str = "bench-nobody";
const PATIENCE: Duration = Duration::from_secs(60);

/// `/api/v1/namespaces/NS/pods`, with a name behind it unless that is empty.
pub(crate) fn path(namespace: &str, name: &str) -> String {
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/api/v1/namespaces/{namespace}/pods{slash}{name}")
}

/// Random names, so that nothing is written in the order of its key.
pub(crate) fn names(count: usize) -> Arc<[String]> {
    (0..count).map(|_| format!("bench-{}", apimachinery::rand_name::random_string(12))).collect()
}

/// A pod's JSON around its name.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    before: Bytes,
    after: Bytes,
}

/// Stands for the name while the JSON is made.
const NAME: &str = "@name@";

impl Template {
    fn new(spec: &Value, padding: usize) -> Self {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": NAME, "labels": {"app": "bench", "tier": "backend"}},
            "spec": spec,
        });
        if padding > 0 {
            pod["metadata"]["annotations"] = json!({"bench/padding": "x".repeat(padding)});
        }
        let text = pod.to_string();
        let (before, after) = text.split_once(NAME).unwrap_or((&text, ""));
        Template { before: before.to_owned().into(), after: after.to_owned().into() }
    }

    /// Pods with this spec that the server answers with `size` bytes, padded by an annotation. The server says (in a
    /// dry run) how much it adds.
    pub(crate) async fn sized(
        connection: &mut Connection,
        namespace: &str,
        spec: &Value,
        size: usize,
    ) -> Result<Self> {
        let bare = Template::new(spec, 1);
        let call = bare.create(&format!("{}?dryRun=All", path(namespace, "")), "bench-abcdefghijkl");
        let (status, body) = connection.answer(call).await?;
        ensure!(status == StatusCode::CREATED, "a dry run: {status}: {}", crate::target::message(&body));
        Ok(Template::new(spec, 1 + size.saturating_sub(body.len())))
    }

    pub(crate) fn create(&self, path: &str, name: &str) -> Call {
        let mut body = Vec::with_capacity(self.before.len() + name.len() + self.after.len());
        body.extend_from_slice(&self.before);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&self.after);
        Call::post(path, body)
    }
}

/// A container as applications have them.
pub(crate) fn spec(scheduler: &str) -> Value {
    json!({
        "schedulerName": scheduler,
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "app", "image": "registry.example/team/app:v1.2.3", "args": ["--port=8080", "--verbose"],
            "env": [
                {"name": "MODE", "value": "production"},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        }],
    })
}

/// Makes a namespace unless it is there, and waits until pods may be created in it.
pub(crate) async fn namespace(connection: &mut Connection, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
    let (status, answer) = connection.answer(Call::post("/api/v1/namespaces", body)).await?;
    let done = status == StatusCode::CREATED || status == StatusCode::CONFLICT;
    ensure!(done, "making namespace {name}: {status}: {}", crate::target::message(&answer));
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    let end = Instant::now() + PATIENCE;
    while connection.measure(Call::get(&account)).await?.0 != StatusCode::OK {
        ensure!(Instant::now() < end, "namespace {name} got no default service account");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Deletes a namespace and waits until it is gone.
pub(crate) async fn remove_namespace(connection: &mut Connection, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{name}");
    connection.measure(Call::delete(&path, "")).await?;
    let end = Instant::now() + 3 * PATIENCE;
    while connection.measure(Call::get(&path)).await?.0 != StatusCode::NOT_FOUND {
        ensure!(Instant::now() < end, "namespace {name} did not go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The pods of a namespace, and the revision at which there were these.
pub(crate) async fn list(connection: &mut Connection, namespace: &str) -> Result<(Arc<[String]>, String)> {
    let list = connection.json(Call::get(path(namespace, ""))).await?;
    let items = list["items"].as_array().context("a list without items")?;
    let names = items.iter().filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect();
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list without a revision")?;
    Ok((names, revision.to_owned()))
}

/// Sees to it that a namespace has at least this many pods that nobody schedules; their names.
pub(crate) async fn fill(
    target: &Target,
    namespace: &str,
    count: usize,
    size: usize,
) -> Result<Arc<[String]>> {
    let mut connection = target.connect().await?;
    self::namespace(&mut connection, namespace).await?;
    let (known, _) = list(&mut connection, namespace).await?;
    if known.len() >= count {
        return Ok(known[..count].into());
    }
    let template = Template::sized(&mut connection, namespace, &spec(NOBODY), size).await?;
    let new = names(count - known.len());
    let (path, total) = (path(namespace, ""), new.len() as u64);
    let load = Load { clients: 16, total: Some(total), time: PATIENCE * 10 };
    let make = Arc::new(move |n: u64| template.create(&path, &new[n as usize]));
    let figure = run(target, None, load, make, None).await?;
    ensure!(figure.errors.is_empty(), "making pods:{}", crate::report::errors(&figure.errors));
    Ok(list(&mut connection, namespace).await?.0)
}
