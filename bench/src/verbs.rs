//! The verbs on single objects and lists: each figure is one closed loop over the pods of a namespace.

use crate::load::{Beside, Load, Make, run};
use crate::pods::{self, NOBODY, Template};
use crate::process::Pid;
use crate::report::Figure;
use crate::target::{Call, Target};
use anyhow::{Result, ensure};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
/// Writes a second beside every read figure.
const WRITES: u32 = 100;

/// Where and with what the figures are taken.
#[derive(Clone)]
pub(crate) struct Setting {
    pub target: Target,
    pub server: Option<Pid>,
    pub namespace: String,
    /// How many pods reads and patches go over.
    pub objects: usize,
    /// Bytes of a pod as it is answered.
    pub size: usize,
}

impl Setting {
    pub(crate) fn work(&self, load: Load, what: &str) -> String {
        format!("{what}, {} clients, {}", load.clients, self.target.http)
    }
}

/// A number that no earlier run used, so that every patch changes its object.
pub(crate) fn fresh() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros())
}

/// A merge patch of one annotation, different for every `n`.
pub(crate) fn patches(namespace: &str, names: &Arc<[String]>) -> Make {
    let (namespace, names, fresh) = (namespace.to_owned(), names.clone(), fresh());
    Arc::new(move |n| {
        let name = &names[n as usize % names.len()];
        let body = json!({"metadata": {"annotations": {"bench/patch": format!("{fresh}-{n}")}}});
        Call::patch(pods::path(&namespace, name), MERGE, body.to_string())
    })
}

/// Creates pods in a namespace of their own, then deletes them: two figures, told as they are taken.
pub(crate) async fn create_and_delete(setting: &Setting, load: Load, tell: impl Fn(Figure)) -> Result<()> {
    let namespace = format!("{}-new", setting.namespace);
    let mut connection = setting.target.connect().await?;
    pods::namespace(&mut connection, &namespace).await?;
    let template = Template::sized(&mut connection, &namespace, &pods::spec(NOBODY), setting.size).await?;
    let names = pods::names(load.total.unwrap_or(1_000_000) as usize);
    let path = pods::path(&namespace, "");
    let all = names.clone();
    let make: Make = Arc::new(move |n| template.create(&path, &all[n as usize]));
    let mut created = run(&setting.target, setting.server, load, make, None).await?;
    created.name = "create".into();
    created.work = setting.work(load, &format!("durable pods of {} bytes", setting.size));
    let done = created.done;
    tell(created);

    let (there, _) = pods::list(&mut connection, &namespace).await?;
    ensure!(there.len() as u64 >= done, "{done} created, {} there", there.len());
    let total = there.len() as u64;
    let place = namespace.clone();
    let make: Make = Arc::new(move |n| {
        Call::delete(pods::path(&place, &there[n as usize]), r#"{"gracePeriodSeconds":0}"#)
    });
    let all = Load { total: Some(total), time: Duration::from_secs(600), ..load };
    let mut deleted = run(&setting.target, setting.server, all, make, None).await?;
    deleted.name = "delete".into();
    deleted.work = setting.work(load, "durable, the same pods");
    tell(deleted);
    pods::remove_namespace(&mut connection, &namespace).await
}

/// GETs single pods while others are patched.
pub(crate) async fn get(setting: &Setting, load: Load) -> Result<Figure> {
    let names = setting.names().await?;
    let beside = Beside::start(&setting.target, WRITES, patches(&setting.namespace, &names)).await?;
    let namespace = setting.namespace.clone();
    // A stride that is no divisor of the count: neighbours in time are none in the key's order.
    let make: Make = Arc::new(move |n| {
        Call::get(pods::path(&namespace, &names[(n as usize).wrapping_mul(7919) % names.len()]))
    });
    let mut figure = run(&setting.target, setting.server, load, make, None).await?;
    beside.end(&mut figure);
    figure.name = "get".into();
    figure.work = setting.work(load, &format!("pods, beside {WRITES} writes/s"));
    Ok(figure)
}

/// LISTs all pods of the namespace while they are patched.
pub(crate) async fn list(setting: &Setting, load: Load) -> Result<Figure> {
    let names = setting.names().await?;
    let path = pods::path(&setting.namespace, "");
    let (_, size) = setting.target.connect().await?.measure(Call::get(&path)).await?;
    let beside = Beside::start(&setting.target, WRITES, patches(&setting.namespace, &names)).await?;
    let make: Make = Arc::new(move |_| Call::get(&path));
    let mut figure = run(&setting.target, setting.server, load, make, None).await?;
    beside.end(&mut figure);
    figure.name = "list".into();
    let what = format!("{} pods, {:.1} MB, beside {WRITES} writes/s", names.len(), size as f64 / 1e6);
    figure.work = setting.work(load, &what);
    Ok(figure)
}

/// Merge patches, each of which changes its object.
pub(crate) async fn patch(setting: &Setting, load: Load) -> Result<Figure> {
    let names = setting.names().await?;
    let mut figure =
        run(&setting.target, setting.server, load, patches(&setting.namespace, &names), None).await?;
    figure.name = "patch".into();
    figure.work = setting.work(load, "durable merge patches of pods");
    Ok(figure)
}

/// Server-side applies, each of which changes its object.
pub(crate) async fn apply(setting: &Setting, load: Load) -> Result<Figure> {
    let names = setting.names().await?;
    let (namespace, fresh) = (setting.namespace.clone(), fresh());
    let make: Make = Arc::new(move |n| {
        let name = &names[n as usize % names.len()];
        let body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"bench-apply": format!("{fresh}-{n}")}},
            "spec": {"containers": [{"name": "app", "image": "registry.example/team/app:v1.2.3"}]},
        });
        let path = format!("{}?fieldManager=bench&force=true", pods::path(&namespace, name));
        Call::patch(path, APPLY, body.to_string())
    });
    let mut figure = run(&setting.target, setting.server, load, make, None).await?;
    figure.name = "apply".into();
    figure.work = setting.work(load, "durable server-side applies of pods");
    Ok(figure)
}

impl Setting {
    pub(crate) async fn names(&self) -> Result<Arc<[String]>> {
        pods::fill(&self.target, &self.namespace, self.objects, self.size).await
    }
}
