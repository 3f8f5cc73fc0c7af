//! The generic path, driven through the in-process transport over the embedded store: every stored kind of the table is
//! created, read, listed, changed in every way, watched and deleted, by schema alone.
#![allow(clippy::unwrap_used)]

use apimachinery::clock::SystemClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::admission::Chain;
use apiserver::authz::{Attributes, Authorizer, Decision};
use apiserver::documents::{Documents, Health, VersionInfo};
use apiserver::inprocess::InProcess;
use apiserver::registry::Registry;
use apiserver::resources::{Resources, Served};
use apiserver::rooms::Rooms;
use apiserver::server::Server;
use apiserver::user::User;
use bytes::Bytes;
use client::transport::Transport as _;
use component::health::Checks;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;

/// The test's user may do everything: authorization is tested in its own room.
struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize<'a>(&'a self, _: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow { reason: String::new() }))
    }
}

struct House {
    client: InProcess,
    server: Arc<Server>,
    _directory: tempfile::TempDir,
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let resources = Arc::new(Resources::new(api::table(), &[]));
    let served = resources.clone();
    let checks = || Checks::new("readyz", None);
    let version = VersionInfo {
        major: "1".into(),
        minor: "36".into(),
        git_version: "v1.36.2".into(),
        git_commit: String::new(),
        git_tree_state: String::new(),
        build_date: String::new(),
        go_version: String::new(),
        compiler: String::new(),
        platform: String::new(),
    };
    let documents = Documents::new(
        api::table(),
        &move |row| served.get(&row.group, &row.version, row.split().0).is_some(),
        Default::default(),
        "127.0.0.1:6443",
        version,
        None,
    );
    let server = Arc::new(Server {
        registry: Arc::new(Registry {
            store,
            resources,
            admission: Chain::default(),
            stocks: Vec::new(),
            encryption: None,
            clock: Arc::new(SystemClock::default()),
            event_ttl: Duration::from_secs(3600),
            gates: Arc::new(|_| true),
        }),
        authenticators: Vec::new(),
        authorizers: vec![Arc::new(AllowAll)],
        rooms: Rooms::default(),
        gate: Default::default(),
        events: Default::default(),
        documents,
        health: Health { healthz: checks(), livez: checks(), readyz: checks() },
        metrics: Default::default(),
        shutdown: Default::default(),
    });
    House { client: InProcess::new(server.clone(), User::new("tester", &[])), server, _directory: directory }
}

impl House {
    async fn call(&self, method: Method, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(body)
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call(method, path, "application/json", body).await
    }
}

fn base(resource: &Served) -> String {
    let root = if resource.row.group.is_empty() {
        "/api".to_owned()
    } else {
        format!("/apis/{}", resource.row.group)
    };
    let namespace = if resource.row.namespaced { "namespaces/default/" } else { "" };
    format!("{root}/{}/{namespace}{}", resource.row.version, resource.row.resource)
}

/// Kinds of which an object may say nothing.
const PLAIN: [&str; 6] = ["ClusterRole", "ConfigMap", "Lease", "LimitRange", "NetworkPolicy", "Role"];

#[tokio::test]
async fn plain_kinds_live_their_life() {
    let house = house();
    let all: Vec<Arc<Served>> = house.server.registry.resources.all();
    let mut kinds = 0;
    // What is served in other words than it is kept in keeps its hub's rules.
    let plain = |r: &&Arc<Served>| {
        !r.prefix.is_empty() && r.api_version == r.hub_api_version && PLAIN.contains(&r.row.kind.as_ref())
    };
    for resource in all.iter().filter(plain) {
        let at = base(resource);
        let what = format!("{resource:?}");
        let name = "a-name";
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.row.kind,
            "metadata": {"name": name, "labels": {"app": "x"}},
        });
        let (code, made) = house.json(Method::POST, &at, object.clone()).await;
        assert_eq!(code, 201, "{what}: {made}");
        assert!(
            made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_string(),
            "{what}: {made}"
        );
        let (code, again) = house.json(Method::POST, &at, object).await;
        assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")), "{what}: {again}");

        let (code, got) = house.json(Method::GET, &format!("{at}/{name}"), Value::Null).await;
        assert_eq!((code, &got), (200, &made), "{what}");

        let (code, list) = house.json(Method::GET, &format!("{at}?labelSelector=app%3Dx"), Value::Null).await;
        assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(1)), "{what}: {list}");
        let (_, none) = house.json(Method::GET, &format!("{at}?labelSelector=app!%3Dx"), Value::Null).await;
        assert_eq!(none["items"], json!([]), "{what}");

        let patches = [
            ("application/merge-patch+json", json!({"metadata": {"labels": {"merge": "1"}}})),
            ("application/strategic-merge-patch+json", json!({"metadata": {"labels": {"strategic": "1"}}})),
            (
                "application/json-patch+json",
                json!([{"op": "add", "path": "/metadata/labels/json", "value": "1"}]),
            ),
        ];
        for (media, patch) in patches {
            let (code, patched) = house.call(Method::PATCH, &format!("{at}/{name}"), media, patch).await;
            assert_eq!(code, 200, "{what} {media}: {patched}");
        }
        let (_, mut changed) = house.json(Method::GET, &format!("{at}/{name}"), Value::Null).await;
        assert_eq!(
            changed["metadata"]["labels"],
            json!({"app": "x", "merge": "1", "strategic": "1", "json": "1"}),
            "{what}"
        );

        let mut stale = changed.clone();
        stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        let (code, conflict) = house.json(Method::PUT, &format!("{at}/{name}"), stale).await;
        assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")), "{what}: {conflict}");

        let (code, same) = house.json(Method::PUT, &format!("{at}/{name}"), changed.clone()).await;
        assert_eq!(code, 200, "{what}: {same}");
        assert_eq!(
            same["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"],
            "{what}: nothing changed"
        );
        changed["metadata"]["annotations"] = json!({"a": "b"});
        changed["metadata"]["finalizers"] = json!(["example.com/hold"]);
        let (code, updated) = house.json(Method::PUT, &format!("{at}/{name}"), changed).await;
        assert_eq!(code, 200, "{what}: {updated}");

        let (code, held) = house.json(Method::DELETE, &format!("{at}/{name}"), Value::Null).await;
        assert_eq!(code, 200, "{what}: {held}");
        assert!(held["metadata"]["deletionTimestamp"].is_string(), "{what}: {held}");
        let free = json!({"metadata": {"finalizers": null}});
        let (code, gone) =
            house.call(Method::PATCH, &format!("{at}/{name}"), "application/merge-patch+json", free).await;
        assert_eq!(code, 200, "{what}: {gone}");
        let (code, _) = house.json(Method::GET, &format!("{at}/{name}"), Value::Null).await;
        assert_eq!(code, 404, "{what}");
        kinds += 1;
    }
    assert_eq!(kinds, PLAIN.len());
}

#[tokio::test]
async fn pages_are_one_snapshot() {
    let house = house();
    let at = "/api/v1/namespaces/default/limitranges";
    for i in 0..5 {
        let object = json!({"metadata": {"name": format!("l{i}")}});
        assert_eq!(house.json(Method::POST, at, object).await.0, 201);
    }
    let (_, first) = house.json(Method::GET, &format!("{at}?limit=2"), Value::Null).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    assert_eq!(house.json(Method::DELETE, &format!("{at}/l3"), Value::Null).await.0, 200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = house.json(Method::GET, &format!("{at}?limit=10&continue={token}"), Value::Null).await;
    let names: Vec<&str> =
        rest["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["l2", "l3", "l4"], "a continued list shows the first page's revision");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let count = async |query: &str| {
        let (_, list) = house.json(Method::GET, &format!("{at}?{query}"), Value::Null).await;
        list["items"].as_array().map(Vec::len)
    };
    assert_eq!(count(&format!("limit=9&resourceVersion={revision}")).await, Some(5), "a page is exact");
    assert_eq!(count(&format!("resourceVersion={revision}")).await, Some(4), "a whole list is not older");
    assert_eq!(count("limit=2&resourceVersion=0").await, Some(4), "any revision, all at once");
    let both = format!("{at}?limit=2&continue={token}&resourceVersion={revision}");
    let (code, refused) = house.json(Method::GET, &both, Value::Null).await;
    let why = "specifying resource version is not allowed when using continue";
    assert_eq!((code, refused["message"].as_str()), (400, Some(why)));
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_leave_what_they_do_not_name() {
    let house = house();
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({
        "metadata": {"name": "one", "labels": {"l": "1"}, "annotations": {"a": "1", "b": "2"}},
        "data": {"a": "1", "b": "2"},
    });
    assert_eq!(house.json(Method::POST, path, object).await.0, 201);
    let path = format!("{path}/one");
    let mut data = json!({"b": "2"});
    for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let patch = json!({"data": {"a": null}, "metadata": {"annotations": {"a": null}}});
        let (code, patched) = house.call(Method::PATCH, &path, media, patch).await;
        assert_eq!(code, 200, "{patched}");
        assert_eq!(patched["data"], data);
        assert_eq!(patched["metadata"]["annotations"], json!({"b": "2"}));
        assert_eq!(patched["metadata"]["labels"], json!({"l": "1"}));
        assert!(!patched["metadata"]["managedFields"].as_array().unwrap().is_empty(), "{patched}");
        // The next finds nothing to take away, and adds.
        let patch = json!({"data": {"c": "3"}, "metadata": {"labels": null}});
        let (code, patched) = house.call(Method::PATCH, &path, media, patch).await;
        assert_eq!(code, 200, "{patched}");
        data["c"] = "3".into();
        assert_eq!(patched["data"], data);
        assert_eq!(patched["metadata"].get("labels"), None);
        let patch = json!({"metadata": {"labels": {"l": "1"}}});
        assert_eq!(house.call(Method::PATCH, &path, media, patch).await.0, 200);
        // What does not fit is told with its place, whatever else the object has.
        let (code, refused) = house.call(Method::PATCH, &path, media, json!({"data": {"d": 4}})).await;
        assert_eq!(code, 422, "{refused}");
    }
    // A directive in what a patch names is for all of it.
    let patch = json!({"data": {"$patch": "replace", "z": "26"}});
    let (_, patched) =
        house.call(Method::PATCH, &path, "application/strategic-merge-patch+json", patch).await;
    assert_eq!(patched["data"], json!({"z": "26"}), "{patched}");
}

#[tokio::test]
async fn bad_requests_get_upstreams_words() {
    let house = house();
    let pods = "/api/v1/namespaces/default/limitranges";
    async fn check(
        house: &House,
        method: Method,
        path: &str,
        media: &str,
        body: Value,
        expected: (u16, &str, &str),
    ) {
        let (code, status) = house.call(method, path, media, body).await;
        let got = (
            code,
            status["reason"].as_str().unwrap_or_default(),
            status["message"].as_str().unwrap_or_default(),
        );
        assert_eq!(got, expected, "{path}");
    }
    let json = "application/json";
    check(
        &house,
        Method::GET,
        "/api/v1/nothings",
        json,
        Value::Null,
        (404, "NotFound", "the server could not find the requested resource"),
    )
    .await;
    check(
        &house,
        Method::GET,
        &format!("{pods}/x"),
        json,
        Value::Null,
        (404, "NotFound", "limitranges \"x\" not found"),
    )
    .await;
    check(&house, Method::POST, pods, "text/html", json!({}), (
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
    .await;
    check(
        &house,
        Method::POST,
        pods,
        json,
        json!({"metadata": {"name": "x", "resourceVersion": "1"}}),
        (400, "BadRequest", "resourceVersion should not be set on objects to be created"),
    )
    .await;
    check(
        &house,
        Method::POST,
        pods,
        json,
        json!({"metadata": {"name": "x", "namespace": "other"}}),
        (
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    )
    .await;
    check(&house, Method::POST, pods, json, json!({"metadata": {"name": "Bad_Name"}}), (
        422,
        "Invalid",
        "LimitRange \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ))
    .await;
    check(&house, Method::POST, &format!("{pods}?fieldValidation=Strict"), json, json!({"metadata": {"name": "x"}, "spek": 1}), (
        400,
        "BadRequest",
        "LimitRange in version \"v1\" cannot be handled as a LimitRange: strict decoding error: unknown field \"spek\"",
    ))
    .await;
    check(
        &house,
        Method::GET,
        &format!("{pods}?labelSelector=a%3D%3D%3Db"),
        json,
        Value::Null,
        (400, "BadRequest", "unable to parse requirement: found '=', expected: identifier"),
    )
    .await;
    // Proxies hand on every verb, whatever its body is, and of the methods that are no verbs one.
    let nobody = "/api/v1/namespaces/default/pods/nobody";
    let not_found = (404, "NotFound", "pods \"nobody\" not found");
    let verbs = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    for method in verbs.into_iter().chain([Method::OPTIONS]) {
        check(&house, method, &format!("{nobody}/proxy/x"), json, Value::Null, not_found).await;
    }
    let no_method =
        (405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    check(&house, Method::OPTIONS, nobody, json, Value::Null, no_method).await;
    check(&house, Method::TRACE, &format!("{nobody}/proxy/x"), json, Value::Null, no_method).await;
}
