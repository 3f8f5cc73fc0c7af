//! What is not to be measured, and which values labels may have: the real binary.
#![allow(clippy::unwrap_used)]

mod server;

use expect_test::expect;
use server::Cluster;

#[test]
fn a_server_measures_what_it_is_told_to() {
    let cluster = Cluster::with(&[
        "--disabled-metrics=apiserver_request_total,process_max_fds",
        "--disabled-metrics=unknown",
        r#"--allow-metric-labels="workqueue_depth,name=job","apiserver_current_inflight_requests,request_kind=mutating""#,
    ]);
    let metrics = cluster.run("1.36.4", &["get", "--raw", "/metrics"]);
    let shown = |names: &[&str]| {
        let of = |line: &&str| names.iter().any(|name| line.starts_with(name));
        metrics.lines().filter(of).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(shown(&["apiserver_request_total", "process_max_fds"]), "");
    expect![[r#"
        disabled_metrics_total 3
        hidden_metrics_total 2"#]]
    .assert_eq(&shown(&["disabled_metrics_total", "hidden_metrics_total"]));
    let names = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(&shown(&["workqueue_depth{"])),
        [r#"workqueue_depth{name="job"}"#, r#"workqueue_depth{name="unexpected"}"#]
    );
    let counted = shown(&["cardinality_enforcement_unexpected_categorizations_total"]);
    assert!(!counted.ends_with(" 0"), "{counted}");
}
