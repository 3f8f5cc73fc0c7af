use cluster_tests::{Room, patience};
use serde_json::Value;

/// A release, as helm of a version sees it.
struct Helm<'a> {
    room: &'a Room,
    program: String,
}

impl Helm<'_> {
    /// What a command prints. It must succeed.
    #[track_caller]
    fn run(&self, arguments: &str) -> String {
        self.room.kubectl.sh(&format!("exec {} -n $NS {arguments}", self.program))
    }

    #[track_caller]
    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{arguments} -o json"))).unwrap()
    }

    /// Installs, upgrades or rolls back and waits for all of it.
    #[track_caller]
    fn apply(&self, arguments: &str) -> String {
        self.run(&format!("{arguments} --wait --timeout {}s", patience().as_secs()))
    }
}

/// A chart's whole life under one version of helm.
pub(crate) fn from_install_to_uninstall(room: &Room, version: &str) {
    let k = &room.kubectl;
    let chart = cluster_tests::root().join("tests/tests/clients/chart");
    let chart = chart.display();
    let program = cluster_tests::client("helm", &[version]).display().to_string();
    let helm = Helm { room, program };

    let notes = helm.apply(&format!("install ship {chart}"));
    assert!(notes.contains("STATUS: deployed") && notes.contains("ship says ahoy."), "{notes}");
    assert_eq!(k.field("deployment/ship", ".status.readyReplicas"), "1");
    // The definition came before the object that needs it, and defaults it.
    assert_eq!(k.field("sail/ship", ".spec"), r#"{"area":10,"reefs":0}"#);
    assert_eq!(k.field("hpa/ship", ".spec.maxReplicas"), "4");
    // Of the hooks one was to go when it had succeeded, and one to stay.
    k.refused("get job/ship-before");
    assert_eq!(k.run("logs job/ship-after"), "all aboard");
    let password = k.field("secret/ship", ".data.password");
    let owner = r#"{.metadata.labels.app\.kubernetes\.io/managed-by}"#;
    assert_eq!(k.run(&format!("get deployment ship -o jsonpath='{owner}'")), "Helm");

    let tested = helm.apply_test();
    assert!(tested.contains("ahoy") && tested.contains("Succeeded"), "{tested}");

    let planned = helm.run(&format!("upgrade ship {chart} --set greeting=later --dry-run=server"));
    assert!(planned.contains("later") && planned.contains(&password), "{planned}");
    helm.apply(&format!("upgrade ship {chart} --set greeting=hello,replicas=2"));
    assert_eq!(k.field("configmap/ship", r".data.index\.html"), "hello");
    assert_eq!(k.field("deployment/ship", ".status.readyReplicas"), "2");
    assert_eq!(k.field("sail/ship", ".spec.area"), "20");
    assert_eq!(k.field("secret/ship", ".data.password"), password);
    assert!(helm.apply_test().contains("hello"));

    let failed = k.script(&format!("{} -n $NS upgrade ship {chart} --set leak=true", helm.program), "");
    let why = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && why.contains("pre-upgrade hooks failed"), "{why}");
    helm.apply("rollback ship 1");
    assert_eq!(k.field("configmap/ship", r".data.index\.html"), "ahoy");
    let history = helm.json("history ship");
    let states: Vec<&str> =
        history.as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["superseded", "superseded", "failed", "deployed"]);
    let listed = helm.json("list");
    assert_eq!((listed[0]["revision"].as_str(), listed[0]["status"].as_str()), (Some("4"), Some("deployed")));

    helm.apply("uninstall ship");
    assert_eq!(
        k.run(
            "get deployment,service,configmap,secret,hpa,sail -l app.kubernetes.io/managed-by=Helm -o name"
        ),
        ""
    );
    assert_eq!(helm.json("list"), serde_json::json!([]));
    // Definitions outlive their charts.
    k.run("get crd sails.clients.test");
}

impl Helm<'_> {
    /// The chart's tests, with what they say.
    #[track_caller]
    fn apply_test(&self) -> String {
        self.run(&format!("test ship --logs --timeout {}s", patience().as_secs()))
    }
}
