//! Webhooks that authorize: what they are asked, what is remembered of their answers, what happens when they fail.
#![allow(clippy::unwrap_used)]

#[path = "house/provider.rs"]
mod provider;

use apimachinery::clock::FakeClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::authz::chain::{AuthorizerChain, Parts};
use apiserver::authz::validation::load;
use apiserver::authz::{Attributes, Authorizer as _, Decision, always};
use apiserver::egress::Way;
use apiserver::review_hook::Backoff;
use apiserver::user::User;
use component::metrics::Registry;
use expect_test::expect;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn attributes<'a>(user: &'a User, verb: &'a str, resource: &'a str) -> Attributes<'a> {
    Attributes {
        user,
        verb,
        is_resource: true,
        group: "",
        version: "v1",
        resource,
        subresource: "",
        namespace: "n",
        name: "",
        path: "",
        label_selector: "a in (b, c),!d",
        field_selector: "spec.nodeName=m,metadata.name!=x",
    }
}

#[tokio::test]
async fn webhooks_decide_and_are_remembered() {
    let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
    let noted = heard.clone();
    let program = provider::serve(move |request| {
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let resource = review["spec"]["resourceAttributes"]["resource"].as_str().unwrap().to_owned();
        noted.lock().unwrap().push(review);
        let (code, status) = match resource.as_str() {
            "allowed" => (200, json!({"allowed": true, "reason": "of the house"})),
            "denied" => (200, json!({"allowed": false, "denied": true, "reason": "never"})),
            "both" => (200, json!({"allowed": true, "denied": true})),
            "broken" => (500, Value::Null),
            "gone" => (404, Value::Null),
            _ => (200, json!({"allowed": false, "reason": "who knows"})),
        };
        let answer =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status});
        http::Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(answer.to_string().into())
            .unwrap()
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    program.kubeconfig(&file, "/authorize");
    let clock = Arc::new(FakeClock::new(apimachinery::time::Timestamp::now()));
    let text = |policy: &str, conditions: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  name: hook\n  webhook:\n    authorizedTTL: 5m\n    unauthorizedTTL: 30s\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: {policy}\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n{conditions}- {{type: AlwaysAllow, name: alwaysallow}}\n",
            file.display()
        )
    };
    let metrics = Registry::new();
    let backoff = Backoff { first: Duration::from_millis(1), factor: 1.0, jitter: 0.0, steps: 3 };
    let always: Arc<dyn apiserver::authz::Authorizer> = Arc::new(always::AlwaysDeny);
    let parts =
        Parts { rbac: always, node: None, abac: None, clock: clock.clone(), backoff, way: Way::default() };
    let plain = text("NoOpinion", "");
    let chain = AuthorizerChain::new(load(&plain, &BTreeSet::new()).unwrap(), None, parts, &metrics).unwrap();
    let mut user = User::new("jane", &["g"]);
    user.uid = "7".into();
    user.extra.insert("k".into(), vec!["v".into()]);
    let ask = async |resource: &str| {
        let decision = chain.authorize(&attributes(&user, "list", resource)).await;
        let said = match decision {
            Decision::Allow { reason } => format!("allow {reason}"),
            Decision::Deny { reason } => format!("deny {reason}"),
            Decision::NoOpinion { reason } => format!("no opinion {reason}"),
            Decision::Error { denies, error, .. } => format!("error {denies} {error}"),
        };
        let asked = std::mem::take(&mut *heard.lock().unwrap()).len();
        format!("{resource}: {said}, asked {asked}\n").replace(&program.url, "https://hook")
    };

    let first = attributes(&user, "list", "allowed");
    assert!(matches!(chain.authorize(&first).await, Decision::Allow { .. }));
    let review = std::mem::take(&mut *heard.lock().unwrap());
    expect![[r#"
        [
          {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
              "extra": {
                "k": [
                  "v"
                ]
              },
              "groups": [
                "g"
              ],
              "resourceAttributes": {
                "fieldSelector": {
                  "requirements": [
                    {
                      "key": "metadata.name",
                      "operator": "NotIn",
                      "values": [
                        "x"
                      ]
                    },
                    {
                      "key": "spec.nodeName",
                      "operator": "In",
                      "values": [
                        "m"
                      ]
                    }
                  ]
                },
                "labelSelector": {
                  "requirements": [
                    {
                      "key": "a",
                      "operator": "In",
                      "values": [
                        "b",
                        "c"
                      ]
                    },
                    {
                      "key": "d",
                      "operator": "DoesNotExist"
                    }
                  ]
                },
                "namespace": "n",
                "resource": "allowed",
                "verb": "list",
                "version": "v1"
              },
              "uid": "7",
              "user": "jane"
            },
            "status": {
              "allowed": false
            }
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&review).unwrap());

    let mut said = String::new();
    for resource in ["allowed", "denied", "denied", "both", "unknown", "unknown", "broken", "gone"] {
        said += &ask(resource).await;
    }
    clock.advance(Duration::from_secs(31));
    for resource in ["allowed", "denied"] {
        write!(said, "later {}", ask(resource).await).unwrap();
    }
    clock.advance(Duration::from_secs(300));
    write!(said, "much later {}", ask("allowed").await).unwrap();

    // The order of conditions does not matter: one that is false excludes, then one that fails counts.
    let conditions = "    matchConditions:\n    - expression: request.user == 'jane'\n    - expression: has(request.resourceAttributes)\n    - expression: request.resourceAttributes.resource != 'free'\n";
    assert!(chain.reload(&text("Deny", conditions)).unwrap());
    assert!(!chain.reload(&text("Deny", conditions)).unwrap());
    for resource in ["free", "broken", "both"] {
        write!(said, "denying {}", ask(resource).await).unwrap();
    }
    let failing = "    matchConditions:\n    - expression: request.extra['absent'][0] == 'x'\n";
    for policy in ["Deny", "NoOpinion"] {
        assert!(chain.reload(&text(policy, failing)).unwrap());
        write!(said, "{policy} {}", ask("free").await).unwrap();
    }
    let more = plain.replace("AlwaysAllow", "RBAC");
    writeln!(said, "{}", chain.reload(&more).unwrap_err()).unwrap();
    expect![[r#"
        allowed: allow of the house, asked 0
        denied: deny never, asked 1
        denied: deny never, asked 0
        both: error true webhook subject access review returned both allow and deny response, asked 1
        unknown: allow , asked 1
        unknown: allow , asked 0
        broken: allow , asked 3
        gone: allow , asked 1
        later allowed: allow of the house, asked 0
        later denied: deny never, asked 1
        much later allowed: allow of the house, asked 1
        denying free: allow , asked 0
        denying broken: error true an error on the server ("unknown") has prevented the request from succeeding, asked 3
        denying both: error true webhook subject access review returned both allow and deny response, asked 1
        Deny free: error true cel evaluation error: expression 'request.extra['absent'][0] == 'x'' resulted in error: no such key: absent, asked 0
        NoOpinion free: allow , asked 0
        [expected name rbac for authorizer RBAC instead of alwaysallow, missing required types: [AlwaysAllow]]
    "#]].assert_eq(&said);

    let counted: Vec<String> = metrics
        .render()
        .lines()
        .filter(|l| !l.starts_with('#') && l.contains("total"))
        .map(|l| format!("{l}\n"))
        .collect();
    expect![[r#"
        apiserver_authorization_decisions_total{decision="allowed",name="alwaysallow",type="AlwaysAllow"} 6
        apiserver_authorization_decisions_total{decision="allowed",name="hook",type="Webhook"} 4
        apiserver_authorization_decisions_total{decision="denied",name="hook",type="Webhook"} 7
        apiserver_authorization_match_condition_evaluation_errors_total{name="hook",type="Webhook"} 2
        apiserver_authorization_match_condition_exclusions_total{name="hook",type="Webhook"} 1
        apiserver_authorization_webhook_evaluations_fail_open_total{name="hook",result="error"} 2
        apiserver_authorization_webhook_evaluations_total{name="hook",result="error"} 7
        apiserver_authorization_webhook_evaluations_total{name="hook",result="success"} 7
    "#]]
    .assert_eq(&counted.concat());
}
