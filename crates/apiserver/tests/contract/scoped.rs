//! What namespaces, names and fields select, in lists and watches (upstream's RunTestNamespaceScopedList,
//! …NamespaceScopedWatch and …ClusterScopedWatch).

use crate::subject::{Subject, keys, revision, split};
use apimachinery::json;
use apimachinery::value::Value;
use expect_test::expect;

/// RunTestNamespaceScopedList: selectors over the same objects, and what they find.
pub async fn lists_by_namespace_and_fields(subject: &Subject) {
    subject.namespaces(&["ns1", "ns2", "ns3"]).await;
    for (key, member) in [
        ("ns1/foo1", ""),
        ("ns1/foo2", ""),
        ("ns2/foo1", "bar1"),
        ("ns2/foo2", "bar2"),
        ("ns3/foo1", "bar2"),
        ("ns3/foo2", "bar1"),
    ] {
        let change = if member.is_empty() { json!({}) } else { subject.assigned(member) };
        subject.ensure(key, &change).await;
    }
    let mut told = String::from("\n");
    for line in SELECTORS.lines().filter(|line| !line.is_empty()) {
        let (namespace, query) = query(subject, line);
        let found = keys(&subject.listed(namespace, &query).await);
        told += &format!("{line}: {}\n", if found.is_empty() { "none".into() } else { found.join(" ") });
    }
    expect![[r#"

        *: ns1/foo1 ns1/foo2 ns2/foo1 ns2/foo2 ns3/foo1 ns3/foo2
        * ns=ns1: ns1/foo1 ns1/foo2
        * member=bar1: ns2/foo1 ns3/foo2
        * member!=bar1: ns1/foo1 ns1/foo2 ns2/foo2 ns3/foo1
        ns1: ns1/foo1 ns1/foo2
        ns1 ns=ns1: ns1/foo1 ns1/foo2
        ns1 ns=ns2: none
        ns2 member=bar1: ns2/foo1
        ns2 member!=bar1: ns2/foo2
        * name=foo1: ns1/foo1 ns2/foo1 ns3/foo1
        * name=foo1 ns=ns2: ns2/foo1
        * name=foo1 member=bar2: ns3/foo1
        * name=foo1 member!=bar1: ns1/foo1 ns3/foo1
        ns1 name=foo1: ns1/foo1
        ns1 name=foo1 ns=ns1: ns1/foo1
        ns2 name=foo2 ns=ns2 member=bar2: ns2/foo2
        ns2 name=foo1 ns=ns2 member!=bar2: ns2/foo1
    "#]]
    .assert_eq(&told);
}

const SELECTORS: &str = r"
*
* ns=ns1
* member=bar1
* member!=bar1
ns1
ns1 ns=ns1
ns1 ns=ns2
ns2 member=bar1
ns2 member!=bar1
* name=foo1
* name=foo1 ns=ns2
* name=foo1 member=bar2
* name=foo1 member!=bar1
ns1 name=foo1
ns1 name=foo1 ns=ns1
ns2 name=foo2 ns=ns2 member=bar2
ns2 name=foo1 ns=ns2 member!=bar2
";

/// `ns1 name=foo member!=bar` as namespace and query.
fn query<'a>(subject: &Subject, line: &'a str) -> (&'a str, String) {
    let mut words = line.split_whitespace();
    let namespace = words.next().unwrap().trim_matches('*');
    let term = |word: &str| {
        let (name, value) = word.split_once('=').unwrap();
        let (name, sign) = name.strip_suffix('!').map_or((name, ""), |name| (name, "!"));
        let field = match name {
            "ns" => "metadata.namespace",
            "name" => "metadata.name",
            _ => subject.kind.field,
        };
        format!("{field}{sign}%3D{value}")
    };
    let terms: Vec<String> = words.map(term).collect();
    (namespace, format!("fieldSelector={}", terms.join(",")))
}

/// What is written, in order: `ns/name` alone is created or labelled, `ns/name=x` gets the member.
async fn play(subject: &Subject, line: &str, steps: &str) -> String {
    let (namespace, query) = query(subject, line);
    let begin = revision(&subject.listed("", "").await);
    let mut watch = subject.watch(namespace, &format!("{query}&resourceVersion={begin}")).await;
    let mut known: std::collections::HashMap<String, Value> = Default::default();
    let mut told = Vec::new();
    for (count, step) in steps.split_whitespace().enumerate() {
        let (key, change) = match step.split_once('=') {
            Some((key, member)) => (key, subject.assigned(member)),
            None => (step, json!({"metadata": {"labels": {"step": count.to_string()}}})),
        };
        let written = subject.ensure(key, &change).await;
        let before = known.insert(key.to_owned(), written.clone());
        // A write that is acknowledged is in the view: what comes of it is there.
        let Some(event) = watch.ready() else { continue };
        let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
        let expected = match kind {
            // As it last matched, with the revision of the change.
            "DELETED" => {
                let mut last = before.unwrap();
                last["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"].clone();
                last
            }
            _ => written,
        };
        assert_eq!(*object, expected, "{line}: {step}");
        assert!(watch.ready().is_none(), "{line}: {step}: one write is one event");
        told.push(format!("{step}:{kind}"));
    }
    if told.is_empty() { "nothing".into() } else { told.join(" ") }
}

/// RunTestNamespaceScopedWatch.
pub async fn watches_by_namespace_and_fields(subject: &Subject) {
    subject.namespaces(&["ns1", "ns2"]).await;
    let mut told = String::from("\n");
    for line in NAMESPACED.lines().filter(|line| !line.is_empty()) {
        let (selector, steps) = line.split_once(" < ").unwrap();
        told += &format!("{line}\n    {}\n", play(subject, selector, steps).await);
        subject.clear().await;
    }
    expect![[r#"

        * < ns1/foo1 ns2/foo2 ns1/foo1 ns2/foo2
            ns1/foo1:ADDED ns2/foo2:ADDED ns1/foo1:MODIFIED ns2/foo2:MODIFIED
        * ns=ns1 < ns1/foo1 ns2/foo1 ns1/foo1 ns2/foo1
            ns1/foo1:ADDED ns1/foo1:MODIFIED
        * member=bar1 < ns1/foo1 ns2/foo2 ns1/foo1=bar1 ns2/foo2=bar1
            ns1/foo1=bar1:ADDED ns2/foo2=bar1:ADDED
        * member!=bar1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
            ns1/foo1:ADDED ns1/foo2:ADDED ns1/foo1:MODIFIED ns1/foo1=bar1:DELETED
        ns1 < ns1/foo1 ns2/foo1 ns1/foo2 ns1/foo1 ns2/foo1
            ns1/foo1:ADDED ns1/foo2:ADDED ns1/foo1:MODIFIED
        ns1 ns=ns1 < ns1/foo1 ns2/foo1 ns1/foo1
            ns1/foo1:ADDED ns1/foo1:MODIFIED
        ns1 ns=ns2 < ns1/foo1 ns2/foo1 ns1/foo1 ns2/foo1
            nothing
        ns1 member=bar2 < ns1/foo1 ns1/foo1=bar1 ns2/foo1=bar2 ns1/foo1=bar2
            ns1/foo1=bar2:ADDED
        ns2 member!=bar1 < ns1/foo1 ns2/foo1 ns2/foo1=bar1 ns2/foo1=bar2
            ns2/foo1:ADDED ns2/foo1=bar1:DELETED ns2/foo1=bar2:ADDED
        * name=foo1 < ns1/foo1 ns2/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
            ns1/foo1:ADDED ns2/foo1:ADDED ns1/foo1:MODIFIED ns1/foo1=bar1:MODIFIED
        * name=foo1 ns=ns1 < ns1/foo1 ns1/foo2 ns2/foo1 ns1/foo1 ns1/foo1=bar1
            ns1/foo1:ADDED ns1/foo1:MODIFIED ns1/foo1=bar1:MODIFIED
        * name=foo1 member=bar1 < ns1/foo1 ns1/foo1 ns1/foo1=bar1
            ns1/foo1=bar1:ADDED
        * name=foo1 member!=bar1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1 ns1/foo1=bar2
            ns1/foo1:ADDED ns1/foo1:MODIFIED ns1/foo1=bar1:DELETED ns1/foo1=bar2:ADDED
        ns1 name=foo1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
            ns1/foo1:ADDED ns1/foo1:MODIFIED ns1/foo1=bar1:MODIFIED
        ns1 name=foo2 ns=ns1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo2=bar1
            ns1/foo2:ADDED ns1/foo2=bar1:MODIFIED
        ns1 name=foo1 ns=ns1 member=bar1 < ns1/foo1 ns1/foo2 ns2/foo1 ns1/foo1 ns1/foo1=bar1
            ns1/foo1=bar1:ADDED
        ns1 name=foo2 ns=ns1 member!=bar1 < ns1/foo1 ns2/foo2 ns1/foo2 ns1/foo2 ns1/foo2=bar1
            ns1/foo2:ADDED ns1/foo2:MODIFIED ns1/foo2=bar1:DELETED
    "#]]
    .assert_eq(&told);
}

const NAMESPACED: &str = r"
* < ns1/foo1 ns2/foo2 ns1/foo1 ns2/foo2
* ns=ns1 < ns1/foo1 ns2/foo1 ns1/foo1 ns2/foo1
* member=bar1 < ns1/foo1 ns2/foo2 ns1/foo1=bar1 ns2/foo2=bar1
* member!=bar1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
ns1 < ns1/foo1 ns2/foo1 ns1/foo2 ns1/foo1 ns2/foo1
ns1 ns=ns1 < ns1/foo1 ns2/foo1 ns1/foo1
ns1 ns=ns2 < ns1/foo1 ns2/foo1 ns1/foo1 ns2/foo1
ns1 member=bar2 < ns1/foo1 ns1/foo1=bar1 ns2/foo1=bar2 ns1/foo1=bar2
ns2 member!=bar1 < ns1/foo1 ns2/foo1 ns2/foo1=bar1 ns2/foo1=bar2
* name=foo1 < ns1/foo1 ns2/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
* name=foo1 ns=ns1 < ns1/foo1 ns1/foo2 ns2/foo1 ns1/foo1 ns1/foo1=bar1
* name=foo1 member=bar1 < ns1/foo1 ns1/foo1 ns1/foo1=bar1
* name=foo1 member!=bar1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1 ns1/foo1=bar2
ns1 name=foo1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo1=bar1
ns1 name=foo2 ns=ns1 < ns1/foo1 ns1/foo2 ns1/foo1 ns1/foo2=bar1
ns1 name=foo1 ns=ns1 member=bar1 < ns1/foo1 ns1/foo2 ns2/foo1 ns1/foo1 ns1/foo1=bar1
ns1 name=foo2 ns=ns1 member!=bar1 < ns1/foo1 ns2/foo2 ns1/foo2 ns1/foo2 ns1/foo2=bar1
";

/// RunTestClusterScopedWatch.
pub async fn watches_in_the_cluster(subject: &Subject) {
    let mut told = String::from("\n");
    for line in CLUSTER.lines().filter(|line| !line.is_empty()) {
        let (selector, steps) = line.split_once(" < ").unwrap();
        assert!(steps.split_whitespace().all(|step| split(step).0.is_empty()));
        told += &format!("{line}\n    {}\n", play(subject, selector, steps).await);
        subject.clear().await;
    }
    expect![[r#"

        * < foo1 foo1 foo2=true
            foo1:ADDED foo1:MODIFIED foo2=true:ADDED
        * member=true < foo1 foo1=true
            foo1=true:ADDED
        * member!=true < foo1 foo2 foo1 foo1=true
            foo1:ADDED foo2:ADDED foo1:MODIFIED foo1=true:DELETED
        * name=foo1 < foo1 foo2 foo1 foo2
            foo1:ADDED foo1:MODIFIED
        * name=foo1 member=true < foo1 foo2 foo1 foo2 foo1=true
            foo1=true:ADDED
        * name=foo1 member!=true < foo1 foo2 foo1 foo1=true foo2=true
            foo1:ADDED foo1:MODIFIED foo1=true:DELETED
    "#]]
    .assert_eq(&told);
}

const CLUSTER: &str = r"
* < foo1 foo1 foo2=true
* member=true < foo1 foo1=true
* member!=true < foo1 foo2 foo1 foo1=true
* name=foo1 < foo1 foo2 foo1 foo2
* name=foo1 member=true < foo1 foo2 foo1 foo2 foo1=true
* name=foo1 member!=true < foo1 foo2 foo1 foo1=true foo2=true
";
