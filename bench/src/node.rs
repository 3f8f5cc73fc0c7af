//! Figures that need a node: from nothing to the first running pod, from create to Running, a Deployment, and the calm of
//! an idle server.

use crate::cluster::{Cluster, Running};
use crate::latency::{Latencies, human};
use crate::pods;
use crate::process::Pid;
use crate::target::{Call, Http, Target, message};
use crate::watching::{Watching, condition};
use anyhow::{Context as _, Result, bail};
use http::StatusCode;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench-start"}},
        "spec": sleeper(image),
    })
}

fn sleeper(image: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"],
            "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}},
        }],
    })
}

/// Creates as soon as the cluster takes it: a namespace needs its service account first.
async fn create_at_once(target: &Target, path: &str, body: &Value) -> Result<()> {
    let mut connection = target.connect().await?;
    let end = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = connection.answer(Call::post(path, body.to_string())).await?;
        match status {
            StatusCode::CREATED => return Ok(()),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            _ => bail!("POST {path}: {status}: {}", message(&answer)),
        }
    }
}

/// Starts the cluster from nothing `rounds` times and leaves the last one running.
pub(crate) async fn startup(
    cluster: &Cluster,
    archive: &Path,
    image: &str,
    rounds: usize,
    http: Http,
) -> Result<(Running, Target)> {
    // The image is brought in by a server that is then forgotten.
    let mut first = cluster.start()?;
    cluster.ready(&mut first, http).await?;
    let end = Instant::now() + PATIENCE;
    while let Err(error) = cluster.import(archive).await {
        if Instant::now() > end {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.stop().await?;
    cluster.wipe().await?;
    let (mut ready, mut node, mut running) =
        (Latencies::default(), Latencies::default(), Latencies::default());
    for round in 1.. {
        let mut server = cluster.start()?;
        let target = cluster.ready(&mut server, http).await?;
        ready.push(server.began.elapsed());
        let nodes = async {
            let mut watching = Watching::open(&target, "/api/v1/nodes", None).await?;
            watching.until(PATIENCE, |_, node| condition(node, "Ready")).await?;
            Ok::<_, anyhow::Error>(server.began.elapsed())
        };
        let first_pod = async {
            let path = pods::path("default", "");
            let mut watching = Watching::open(&target, &path, None).await?;
            create_at_once(&target, &path, &pod("first", image)).await?;
            watching.until(PATIENCE, |_, pod| pod["status"]["phase"] == "Running").await?;
            Ok::<_, anyhow::Error>(server.began.elapsed())
        };
        let (node_took, pod_took) = tokio::join!(nodes, first_pod);
        node.push(node_took.context("waiting for the node to be ready")?);
        running.push(pod_took.context("waiting for the first pod to run")?);
        if round >= rounds {
            for (name, what, took) in [
                ("readyz", "from start to /readyz", &mut ready),
                ("node", "from start to node Ready", &mut node),
                ("first pod", "from start to the first pod Running", &mut running),
            ] {
                println!(
                    "{name:<10} p50 {:>8}  max {:>8}   {what}, empty data directory, image present, {rounds} rounds",
                    human(took.percentile(50.0)),
                    human(took.percentile(100.0))
                );
            }
            remove_pods(&target, "default", &["first".to_owned()]).await?;
            return Ok((server, target));
        }
        server.stop().await?;
        cluster.wipe().await?;
    }
    unreachable!("the loop ends with its last round")
}

async fn remove_pods(target: &Target, namespace: &str, names: &[String]) -> Result<()> {
    let mut connection = target.connect().await?;
    for name in names {
        let call = Call::delete(pods::path(namespace, name), r#"{"gracePeriodSeconds":0}"#);
        connection.measure(call).await?;
    }
    Ok(())
}

/// Pods one after the other: from create until a watch shows Running.
pub(crate) async fn pod_start(target: &Target, server: Option<Pid>, image: &str, count: usize) -> Result<()> {
    let namespace = "bench-start";
    let mut connection = target.connect().await?;
    pods::namespace(&mut connection, namespace).await?;
    let path = pods::path(namespace, "");
    let mut took = Latencies::default();
    let cpu = server.map(Pid::cpu).transpose()?;
    let mut names = Vec::new();
    for _ in 0..count {
        let (_, revision) = pods::list(&mut connection, namespace).await?;
        let mut watching = Watching::open(target, &path, Some(&revision)).await?;
        let name = pods::names(1)[0].clone();
        let began = Instant::now();
        connection.json(Call::post(&path, pod(&name, image).to_string())).await?;
        let ours =
            |_: &str, pod: &Value| pod["metadata"]["name"] == *name && pod["status"]["phase"] == "Running";
        watching.until(PATIENCE, ours).await.with_context(|| format!("pod {name} Running"))?;
        took.push(began.elapsed());
        names.push(name);
    }
    let spent = match (server, cpu) {
        (Some(pid), Some(before)) => human((pid.cpu()? - before) / count.max(1) as u32),
        _ => "unknown".into(),
    };
    println!(
        "pod start  p50 {:>8}  p99 {:>8}   from create to Running, {count} pods one by one; server {spent} CPU each",
        human(took.percentile(50.0)),
        human(took.percentile(99.0))
    );
    remove_pods(target, namespace, &names).await?;
    pods::remove_namespace(&mut connection, namespace).await
}

/// A Deployment from create until it is Available with all its replicas.
pub(crate) async fn deployment(target: &Target, image: &str, replicas: u32) -> Result<()> {
    let namespace = "bench-deployment";
    let mut connection = target.connect().await?;
    pods::namespace(&mut connection, namespace).await?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": sleeper(image)},
        },
    });
    let mut watching = Watching::open(target, &path, None).await?;
    let began = Instant::now();
    connection.json(Call::post(&path, deployment.to_string())).await?;
    let all = |_: &str, d: &Value| condition(d, "Available") && d["status"]["availableReplicas"] == replicas;
    watching.until(2 * PATIENCE, all).await.context("the Deployment Available")?;
    println!(
        "deployment {:>12}   from create to {replicas} of {replicas} replicas Available",
        human(began.elapsed())
    );
    pods::remove_namespace(&mut connection, namespace).await
}

/// A server that has nothing to do: what it uses over a time.
pub(crate) async fn idle(server: Pid, time: Duration) -> Result<()> {
    let (cpu, switches, began) = (server.cpu()?, server.switches()?, Instant::now());
    tokio::time::sleep(time).await;
    let seconds = began.elapsed().as_secs_f64();
    let (rss, anon) = server.memory()?;
    println!(
        "idle       {:.2} % of a core, {:.1} context switches/s, RSS {:.1} MB ({:.1} MB anonymous), over {seconds:.0} s",
        100.0 * (server.cpu()? - cpu).as_secs_f64() / seconds,
        server.switches()?.since(&switches) as f64 / seconds,
        rss as f64 / 1e6,
        anon as f64 / 1e6,
    );
    Ok(())
}
