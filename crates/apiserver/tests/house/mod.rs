//! An API server over the embedded store, driven through the in-process transport by somebody who may do everything.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod hook;

use apimachinery::clock::SystemClock;
use apimachinery::status::Status;
use apimachinery::value::Value;
use apiserver::admission::{self, Chain, Options, Plugin};
use apiserver::aggregation::{Aggregation, Redirects, controller::Controller};
use apiserver::authn::token_keys::Signer;
use apiserver::authn::tokens::Tokens;
use apiserver::authn::{Authenticator, Connection};
use apiserver::authz::{Attributes, Authorizer, Decision, rbac::Rbac};
use apiserver::cache::StoreSource;
use apiserver::custom::controller::Definitions;
use apiserver::documents::{Documents, Health, VersionInfo};
use apiserver::features::Features;
use apiserver::gate::Gate;
use apiserver::inprocess::InProcess;
use apiserver::outbound::Outbound;
use apiserver::registry::Registry;
use apiserver::resources::Resources;
use apiserver::rooms::token::EXTENDED;
use apiserver::rooms::{Issuer, Rooms};
use apiserver::server::Server;
use apiserver::services::{PortRange, Ranges, ServiceStock};
use apiserver::user::User;
use bytes::Bytes;
use client::transport::Transport as _;
use component::health::Checks;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use store::Store;

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize<'a>(&'a self, _: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow { reason: String::new() }))
    }
}

/// Believes a header. Requests of the house's client need none.
struct Named;

impl Authenticator for Named {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        _: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        let name = request.headers.get("x-test-user").and_then(|name| name.to_str().ok());
        Box::pin(std::future::ready(Ok(name.map(|name| User::new(name, &[])))))
    }
}

pub struct House {
    pub client: InProcess,
    pub server: Arc<Server>,
    pub stock: Arc<ServiceStock>,
    _directory: Option<tempfile::TempDir>,
}

/// A server, with its admission plugins.
pub async fn house() -> House {
    house_with(Arc::new(AllowAll)).await
}

/// A server with an authorizer.
pub async fn house_with(authorizer: Arc<dyn Authorizer>) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let house = authorized(store, "10.96.0.0/16", Some(directory), authorizer, Gate::default(), None).await;
    house.begin().await
}

/// A server with something at its gate.
pub async fn house_behind(gate: Gate) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let house = authorized(store, "10.96.0.0/16", Some(directory), Arc::new(AllowAll), gate, None).await;
    house.begin().await
}

/// A server as its default flags make it, and the user `tester` of the group `testers`.
pub async fn house_with_default_features() -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let features = Some(Features::default());
    let authorizer = Arc::new(apiserver::authz::always::AlwaysAllow);
    let mut house =
        authorized(store, "10.96.0.0/16", Some(directory), authorizer, Gate::default(), features).await;
    let mut user = User::new("tester", &["testers", "system:authenticated"]);
    user.uid = "tester-uid".into();
    house.client = InProcess::new(house.server.clone(), user);
    let level = apimachinery::json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}});
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    assert_eq!(house.json(Method::POST, levels, level).await.0, 201);
    let range =
        apimachinery::json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    assert_eq!(house.json(Method::POST, ranges, range).await.0, 201);
    house.begin().await
}

/// A server with default features that reaches nodes and pods in its own way.
pub async fn house_with_rooms(rooms: Rooms) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let features = Some(Features::default());
    let extras = Extras { features, rooms, ..Extras::default() };
    built(store, "10.96.0.0/16", Some(directory), Arc::new(AllowAll), extras).await.begin().await
}

/// A server in front of others.
pub async fn house_with_neighbours() -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let extras = Extras { neighbours: Neighbours::Aggregated, ..Extras::default() };
    built(store, "10.96.0.0/16", Some(directory), Arc::new(AllowAll), extras).await.begin().await
}

/// A server with these admission plugins.
pub async fn house_admitting(options: Options) -> House {
    unmade(options).await.begin().await
}

/// A server with these admission plugins, and nothing in it.
pub async fn unmade(options: Options) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let extras = Extras { options, ..Extras::default() };
    built(store, "10.96.0.0/16", Some(directory), Arc::new(AllowAll), extras).await
}

/// A server with every feature and every API.
pub async fn house_with_everything() -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    let (features, _) = Features::parse("AllAlpha=true,AllBeta=true", "api/all=true").unwrap();
    let extras = Extras {
        gate: Gate { encodings: features.encodings(), ..Gate::default() },
        features: Some(features),
        serves: Serves::Configured,
        ..Extras::default()
    };
    built(store, "10.96.0.0/16", Some(directory), Arc::new(AllowAll), extras).await
}

impl House {
    /// Makes the namespaces that tests use.
    async fn begin(self) -> Self {
        for name in ["default", "kube-system"] {
            let object = apimachinery::json!({"metadata": {"name": name}});
            assert_eq!(self.json(Method::POST, "/api/v1/namespaces", object).await.0, 201);
        }
        self
    }
}

/// A server over a store, one of several perhaps.
pub async fn over(store: Arc<dyn Store>, range: &str, directory: Option<tempfile::TempDir>) -> House {
    authorized(store, range, directory, Arc::new(AllowAll), Gate::default(), None).await
}

/// A server with more admission plugins, whose events live for a while.
pub async fn extended(store: Arc<dyn Store>, plugins: Vec<Arc<dyn Plugin>>, event_ttl: Duration) -> House {
    let extras = Extras { plugins, event_ttl, ..Extras::default() };
    built(store, "10.96.0.0/16", None, Arc::new(AllowAll), extras).await
}

/// Whether a house serves what its features say, or what is served by default.
#[derive(Clone, Copy)]
enum Serves {
    Default,
    Configured,
}

/// Whether other servers stand behind a house.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbours {
    None,
    Aggregated,
}

/// What not every house has.
struct Extras {
    gate: Gate,
    features: Option<Features>,
    serves: Serves,
    neighbours: Neighbours,
    /// Beside those that the options name.
    plugins: Vec<Arc<dyn Plugin>>,
    options: Options,
    event_ttl: Duration,
    rooms: Rooms,
}

impl Default for Extras {
    fn default() -> Self {
        let default_too = &["NodeRestriction", "OwnerReferencesPermissionEnforcement"];
        Extras {
            gate: Gate::default(),
            features: None,
            serves: Serves::Default,
            neighbours: Neighbours::None,
            plugins: Vec::new(),
            options: Options { default_too, ..Options::default() },
            event_ttl: Duration::from_secs(3600),
            rooms: Rooms::default(),
        }
    }
}

async fn authorized(
    store: Arc<dyn Store>,
    range: &str,
    directory: Option<tempfile::TempDir>,
    authorizer: Arc<dyn Authorizer>,
    gate: Gate,
    features: Option<Features>,
) -> House {
    let extras = Extras { gate, features, ..Extras::default() };
    built(store, range, directory, authorizer, extras).await
}

async fn built(
    store: Arc<dyn Store>,
    range: &str,
    directory: Option<tempfile::TempDir>,
    authorizer: Arc<dyn Authorizer>,
    Extras { gate, features, serves, neighbours, plugins: more, options, event_ttl, rooms }: Extras,
) -> House {
    let authorizers = vec![authorizer];
    let tokens = Tokens { authenticators: Vec::new(), audiences: Arc::from([]) };
    let tokens = features.is_some().then(|| Arc::new(tokens));
    let resources = match (&features, serves) {
        (Some(features), Serves::Configured) => Resources::serving(api::table(), &|row| features.serves(row)),
        _ => Resources::new(api::table(), &[]),
    };
    let resources = Arc::new(resources);
    let source = StoreSource { store: store.clone(), resources: resources.clone() };
    let informers = client::Informers::from_source(Arc::new(source), Default::default());
    let outbound = Arc::new(Outbound::new(store.clone(), &resources, None));
    let metrics = Arc::new(component::metrics::Registry::new());
    let deps = admission::Deps {
        gates: Arc::new(|_| true),
        store: store.clone(),
        resources: resources.clone(),
        rbac: Rbac::new(&informers),
        authorizers: authorizers.clone(),
        outbound: outbound.clone(),
        metrics: metrics.clone(),
    };
    let mut plugins = admission::plugins(&deps, &options).unwrap();
    plugins.extend(more);
    let aggregation = (neighbours == Neighbours::Aggregated)
        .then(|| Arc::new(Aggregation::new(outbound.clone(), Redirects::Rejected)));
    let ranges = Ranges::new(range, PortRange::default(), None).unwrap();
    let stock = ServiceStock::new(store.clone(), &resources, &ranges, &metrics).unwrap();
    let served = resources.clone();
    let checks = || Checks::new("readyz", None);
    let version = VersionInfo {
        major: "1".into(),
        minor: "36".into(),
        git_version: "v1.36.2".into(),
        git_commit: "0000000".into(),
        git_tree_state: "clean".into(),
        build_date: "2026-01-01T00:00:00Z".into(),
        go_version: "go1.26.6".into(),
        compiler: "gc".into(),
        platform: "linux/amd64".into(),
    };
    let documents = Documents::new(
        api::table(),
        &move |row| served.get(&row.group, &row.version, row.split().0).is_some(),
        gate.encodings,
        "10.99.0.1:6543",
        version,
        None,
    );
    let server = Arc::new(Server {
        registry: Arc::new(Registry {
            store,
            resources,
            admission: Chain::new(plugins),
            stocks: vec![stock.clone()],
            encryption: None,
            clock: Arc::new(SystemClock::default()),
            event_ttl,
            gates: Arc::new(move |gate| features.as_ref().is_none_or(|features| features.field(gate))),
        }),
        authenticators: vec![Arc::new(Named)],
        authorizers,
        rooms: Rooms {
            issuer: tokens.is_some().then(issuer),
            tokens,
            aggregation: aggregation.clone(),
            ..rooms
        },
        gate,
        events: Default::default(),
        documents,
        health: Health { healthz: checks(), livez: checks(), readyz: checks() },
        metrics,
        shutdown: Default::default(),
    });
    Definitions::start(server.clone(), outbound).await.unwrap();
    if let Some(aggregation) = aggregation {
        Controller::start(server.clone(), aggregation).await.unwrap();
    }
    let client = InProcess::new(server.clone(), User::new("tester", &[]));
    House { client, server, stock, _directory: directory }
}

/// Who gives out tokens of service accounts.
fn issuer() -> Arc<Issuer> {
    let name = "https://kubernetes.default.svc.cluster.local".to_owned();
    Arc::new(Issuer {
        audiences: vec![name.clone()],
        name,
        signer: Signer::Key(Arc::new(pki::jwt::Signer::new(pki::PrivateKey::generate().unwrap()))),
        longest: None,
        extends: Some(EXTENDED),
    })
}

impl House {
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> http::Response<Bytes> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send_text(method, path, headers, &body).await
    }

    pub async fn send_text(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response<Bytes> {
        let body = Bytes::from(body.to_owned());
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    /// The answer to a watch, its body yet to be read.
    pub async fn client_watch(&self, path: &str) -> http::Response<client::transport::ResponseBody> {
        self.client.send(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap()
    }

    /// A request from outside, of a user.
    pub async fn outside(
        &self,
        user: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> http::Response<Bytes> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder().method(method).uri(path).header("x-test-user", user);
        let request = request.header("content-type", "application/json");
        let request = request.body(apiserver::body::full(body)).unwrap();
        let answer = self.server.clone().serve(request, Arc::default()).await;
        let (parts, body) = answer.into_parts();
        http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub async fn call(&self, method: Method, path: &str, media: &str, body: Value) -> (u16, Value) {
        let response = self.send(method, path, &[("content-type", media)], body).await;
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or(Value::Null))
    }

    pub async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call(method, path, "application/json", body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, Value::Null).await.1
    }

    /// Follows the definitions until one satisfies the test.
    pub async fn until(&self, name: &str, done: impl Fn(Option<&Value>) -> bool) {
        let crds =
            self.server.registry.resources.get("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let crds = crds.unwrap();
        let store = &self.server.registry.store;
        let mut watch = store.watch(&crds.prefix, store.snapshot(&crds.prefix).revision).unwrap();
        loop {
            let found = self.server.registry.get(&crds, "", name).ok();
            if done(found.as_ref().map(|f| &f.value)) {
                return;
            }
            tokio::time::timeout(Duration::from_secs(10), watch.next_batch()).await.unwrap().unwrap();
        }
    }

    pub async fn define(&self, definition: Value) {
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        let (code, made) = self.json(Method::POST, CRDS, definition).await;
        assert_eq!(code, 201, "{made}");
        self.until(&name, |d| d.is_some_and(|d| condition(d, "Established") == "True")).await;
    }
}

pub fn condition<'a>(definition: &'a Value, ty: &str) -> &'a str {
    let conditions = definition["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == ty)
        .and_then(|c| c["status"].as_str())
        .unwrap_or_default()
}
