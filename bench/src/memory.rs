//! Memory of the server: what large definitions, idle watches and large lists at a time add to it. Each figure leaves
//! nothing behind.

use crate::process::Pid;
use crate::target::{Call, Connection};
use crate::verbs::Setting;
use crate::watching::Watching;
use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DISCOVERY: &str = "/apis";
/// How long a server may take to serve what was defined.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long caches that were filled meanwhile have to be emptied again.
const REST: Duration = Duration::from_secs(5);
const FOREGROUND: &str = r#"{"gracePeriodSeconds":0}"#;

/// The server's memory without files that are mapped.
fn anonymous(setting: &Setting) -> Result<u64> {
    Ok(server(setting)?.memory()?.1)
}

fn server(setting: &Setting) -> Result<Pid> {
    setting.server.context("memory is measured of a process: --server-pid")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A schema of about so many bytes: objects in objects, each member described.
fn schema(bytes: usize) -> Value {
    let mut properties = serde_json::Map::new();
    let member = json!({"type": "object", "description": "One of many members, with as much to say of it as usual.",
        "properties": {"name": {"type": "string", "maxLength": 63, "pattern": "^[a-z]+$"}, "count": {"type": "integer", "minimum": 0}}});
    for i in 0..bytes / member.to_string().len() {
        properties.insert(format!("member{i:04}"), member.clone());
    }
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

/// `count` definitions of `bytes` each, and how long discovery takes with them.
pub(crate) async fn definitions(setting: &Setting, count: usize, bytes: usize) -> Result<()> {
    let mut connection = setting.target.connect().await?;
    connection.json(Call::get(DISCOVERY)).await?;
    let before = anonymous(setting)?;
    let schema = schema(bytes);
    for i in 0..count {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("larges{i}.bench.example.com")}, "spec": {
            "group": "bench.example.com", "scope": "Namespaced", "names": {"plural": format!("larges{i}"), "kind": format!("Large{i}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
        connection.json(Call::post(DEFINITIONS, definition.to_string())).await?;
    }
    let last = format!("/apis/bench.example.com/v1/larges{}", count.saturating_sub(1));
    let end = Instant::now() + PATIENCE;
    while !connection.answer(Call::get(&last)).await?.0.is_success() {
        ensure!(Instant::now() < end, "{last} is not served");
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        connection.measure(Call::get(DISCOVERY)).await?;
        connection.measure(Call::get("/apis/bench.example.com/v1")).await?;
        slowest = slowest.max(start.elapsed() / 2);
    }
    tokio::time::sleep(REST).await;
    let added = anonymous(setting)?.saturating_sub(before);
    println!(
        "definitions {count} of {} KB: {:.1} MiB more; discovery in {:.1} ms at most",
        schema.to_string().len() / 1000,
        mib(added),
        slowest.as_secs_f64() * 1e3
    );
    for i in 0..count {
        let path = format!("{DEFINITIONS}/larges{i}.bench.example.com");
        connection.answer(Call::delete(path, FOREGROUND)).await?;
    }
    Ok(())
}

/// `count` watches in which nothing happens, each on a connection of its own.
pub(crate) async fn idle_watches(setting: &Setting, count: usize) -> Result<()> {
    let before = anonymous(setting)?;
    let mut watches = Vec::with_capacity(count);
    for _ in 0..count {
        watches.push(Watching::open(&setting.target, "/api/v1/configmaps", Some("0")).await?);
    }
    tokio::time::sleep(REST).await;
    let added = anonymous(setting)?.saturating_sub(before);
    println!("idle watches {count}: {:.1} KiB each", added as f64 / 1024.0 / count.max(1) as f64);
    Ok(())
}

/// `clients` lists of `bytes` at a time, each read as slowly as all of them together make it.
pub(crate) async fn large_lists(setting: &Setting, clients: usize, bytes: usize) -> Result<()> {
    const EACH: usize = 512 << 10;
    let path = format!("/api/v1/namespaces/{}/configmaps", setting.namespace);
    let mut connection = setting.target.connect().await?;
    let namespace = json!({"metadata": {"name": setting.namespace}}).to_string();
    connection.answer(Call::post("/api/v1/namespaces", namespace)).await?;
    let count = bytes / EACH;
    for i in 0..count {
        let map = json!({"metadata": {"name": format!("large{i:05}")}, "data": {"text": "x".repeat(EACH)}});
        connection.json(Call::post(&path, map.to_string())).await?;
    }
    tokio::time::sleep(REST).await;
    let before = anonymous(setting)?;
    let mut reading = JoinSet::new();
    for _ in 0..clients {
        let (connection, path) = (setting.target.connect().await?, path.clone());
        reading.spawn(read(connection, path));
    }
    let (mut most, mut size) = (before, 0);
    loop {
        tokio::select! {
            done = reading.join_next() => match done {
                Some(read) => size = read??,
                None => break,
            },
            () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(anonymous(setting)?),
        }
    }
    println!(
        "lists {clients} at a time of {:.0} MiB: {:.1} MiB more in all",
        mib(size),
        mib(most.saturating_sub(before))
    );
    for i in 0..count {
        connection.answer(Call::delete(format!("{path}/large{i:05}"), FOREGROUND)).await?;
    }
    Ok(())
}

async fn read(mut connection: Connection, path: String) -> Result<u64> {
    let mut body = connection.open(Call::get(&path)).await?.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(size)
}
