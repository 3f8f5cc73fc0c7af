//! Renewals of leases, as kubelets send them: every node has one, and puts back what the last answer said, with a new time.

use crate::load::{Load, Make, Seen, run};
use crate::pods;
use crate::report::Figure;
use crate::target::Call;
use crate::verbs::Setting;
use anyhow::{Result, ensure};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::MicroTime;
use serde_json::json;
use std::sync::Arc;

/// How many nodes send heartbeats: far more than clients, so that no lease is renewed twice at a time.
const NODES: usize = 5000;

/// `/apis/coordination.k8s.io/v1/namespaces/NS/leases`, with a name behind it unless that is empty.
fn path(namespace: &str, name: &str) -> String {
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases{slash}{name}")
}

/// A lease of a node, renewed now; unwritten so far when it has no version.
fn lease(name: &str, version: &str) -> String {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": MicroTime::from(SystemClock::default().now()).to_string(),
        },
    });
    if !version.is_empty() {
        lease["metadata"]["resourceVersion"] = version.into();
    }
    lease.to_string()
}

/// Renewals that change their leases, each by PUT at the version that the last one came to.
pub(crate) async fn renew(setting: &Setting, load: Load) -> Result<Figure> {
    let mut connection = setting.target.connect().await?;
    let namespace = format!("{}-leases", setting.namespace);
    pods::namespace(&mut connection, &namespace).await?;
    let names = pods::names(NODES);
    let versions: Arc<[parking_lot::Mutex<String>]> = names.iter().map(|_| Default::default()).collect();

    let noted = versions.clone();
    let seen: Seen = Arc::new(move |n, body| {
        if let Some(version) = version(body) {
            *noted[n as usize % NODES].lock() = version;
        }
    });
    let (place, all) = (namespace.clone(), names.clone());
    let make: Make = Arc::new(move |n| Call::post(path(&place, ""), lease(&all[n as usize], "")));
    let every = Load { total: Some(NODES as u64), ..load };
    let made = run(&setting.target, None, every, make, Some(seen.clone())).await?;
    ensure!(made.errors.is_empty(), "making leases:{}", crate::report::errors(&made.errors));

    let place = namespace.clone();
    let make: Make = Arc::new(move |n| {
        let at = n as usize % NODES;
        let version = versions[at].lock().clone();
        Call::put(path(&place, &names[at]), lease(&names[at], &version))
    });
    let mut figure = run(&setting.target, setting.server, load, make, Some(seen)).await?;
    figure.name = "renew".into();
    figure.work = setting.work(load, &format!("durable renewals of {NODES} leases"));
    pods::remove_namespace(&mut connection, &namespace).await?;
    Ok(figure)
}

/// What an answer says of the version, read without the rest: the load is the server's, not ours.
fn version(body: &[u8]) -> Option<String> {
    const KEY: &str = r#""resourceVersion":""#;
    let text = std::str::from_utf8(body).ok()?;
    let rest = &text[text.find(KEY)? + KEY.len()..];
    rest.split_once('"').map(|(version, _)| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn versions() {
        let check = |body: &str, expected: expect_test::Expect| {
            expected.assert_eq(&format!("{:?}", version(body.as_bytes())));
        };
        check(r#"{"metadata":{"name":"a","resourceVersion":"17","uid":"x"}}"#, expect![[r#"Some("17")"#]]);
        check("{}", expect!["None"]);
        check(r#"{"metadata":{"resourceVersion":"17"#, expect!["None"]);
    }
}
