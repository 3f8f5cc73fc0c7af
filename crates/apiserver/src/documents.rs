//! What is no resource: health, version, discovery, OpenAPI, metrics, keys.

use crate::aggregation::{GroupVersion, Remote};
use crate::body::{self, Answer};
use crate::gate::Limit;
use crate::handlers::{self, Encodings};
use crate::openid::OpenId;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use apimachinery::value::Value;
use bytes::Bytes;
use component::health::Checks;
use component::metrics::{Opts, Registry, Stability};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::RwLock;
use schema::ResourceRow;
use schema::discovery::{self, AggregatedVersion, Group};
use schema::openapi;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};
use tokio::sync::watch;

/// The documents of what is served. They are built when they are first asked for, anew after every change of what came at
/// run time; the OpenAPI of the built-in groups is built once.
pub struct Documents {
    rows: Vec<&'static ResourceRow>,
    address: String,
    builtin: openapi::Documents,
    current: RwLock<Arc<Current>>,
    changes: watch::Sender<()>,
    pub version: VersionInfo,
    /// Of the issuer of service-account tokens, if it can be told of.
    openid: Option<OpenId>,
    /// Whether pods' resources are told of, as kube-scheduler tells of them.
    pod_resources: bool,
}

/// The documents of one state.
#[derive(Default)]
struct Current {
    installed: Vec<Arc<Served>>,
    /// What other servers serve.
    foreign: Vec<(GroupVersion, Remote)>,
    discovery: OnceLock<Discovery>,
    openapi: OnceLock<openapi::Documents>,
    /// The v2 document with what other servers say of theirs, and that as protobuf.
    merged: OnceLock<(Bytes, String)>,
    merged_protobuf: OnceLock<(Bytes, String)>,
}

impl Current {
    /// Documents of v3 that were made for others, by what they are about.
    fn converted(&self) -> impl Iterator<Item = (String, &(Bytes, String))> {
        self.foreign.iter().filter_map(|((group, version), remote)| {
            let converted = remote.published.v2.as_ref()?.converted.as_ref()?;
            Some((format!("apis/{group}/{version}"), converted))
        })
    }

    /// Whether others have something to say in the v2 document.
    fn merges(&self) -> bool {
        self.foreign.iter().any(|(_, remote)| remote.published.v2.is_some())
    }

    /// The v2 document with those of others.
    fn merge(&self, own: &openapi::Documents) -> Value {
        let mut merged = own.write_v2();
        let published = |(gv, remote): &'_ (GroupVersion, Remote)| (Reverse(remote.priority), gv.clone());
        let mut others: Vec<&(GroupVersion, Remote)> = self.foreign.iter().collect();
        others.sort_by_key(|other| published(other));
        for spec in others.into_iter().filter_map(|(_, remote)| remote.published.v2.as_ref()) {
            openapi::merge(&mut merged, spec.document.as_ref().clone());
        }
        merged
    }
}

/// A document and its hash.
fn of((bytes, hash): &(Bytes, String)) -> (Bytes, &str) {
    (bytes.clone(), hash)
}

/// Classic documents by path, and the aggregated ones by path and version with their ETags.
struct Discovery {
    classic: HashMap<String, Bytes>,
    aggregated: HashMap<(&'static str, &'static str), (Bytes, String)>,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// `/version`.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    pub major: String,
    pub minor: String,
    pub git_version: String,
    pub git_commit: String,
    pub git_tree_state: String,
    pub build_date: String,
    pub go_version: String,
    pub compiler: String,
    pub platform: String,
}

/// The document of a version: what is served, whose behaviour that is, and the oldest that may be asked for.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    major: &'a str,
    minor: &'a str,
    emulation_major: &'a str,
    emulation_minor: &'a str,
    min_compatibility_major: &'a str,
    min_compatibility_minor: String,
    git_version: &'a str,
    git_commit: &'a str,
    git_tree_state: &'a str,
    build_date: &'a str,
    go_version: &'a str,
    compiler: &'a str,
    platform: &'a str,
}

impl VersionInfo {
    fn shown(&self) -> Shown<'_> {
        let minor: Option<u32> = self.minor.parse().ok();
        Shown {
            major: &self.major,
            minor: &self.minor,
            emulation_major: &self.major,
            emulation_minor: &self.minor,
            min_compatibility_major: &self.major,
            min_compatibility_minor: minor.map_or_else(String::new, |m| m.saturating_sub(1).to_string()),
            git_version: &self.git_version,
            git_commit: &self.git_commit,
            git_tree_state: &self.git_tree_state,
            build_date: &self.build_date,
            go_version: &self.go_version,
            compiler: &self.compiler,
            platform: &self.platform,
        }
    }

    /// Says the same under `/metrics`, and how many metrics there are.
    pub fn register(&self, registry: &Registry) {
        registry.count_families();
        let opts = Opts {
            name: "kubernetes_build_info",
            help: "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
            stability: Stability::Beta,
        };
        let labels = [
            ("major", &self.major),
            ("minor", &self.minor),
            ("git_version", &self.git_version),
            ("git_commit", &self.git_commit),
            ("git_tree_state", &self.git_tree_state),
            ("build_date", &self.build_date),
            ("go_version", &self.go_version),
            ("compiler", &self.compiler),
            ("platform", &self.platform),
        ];
        let info = registry.gauge_vec(opts, &labels.map(|(name, _)| name));
        info.with(&labels.map(|(_, value)| value.as_str())).set(1.0);
        let opts = Opts {
            name: "version_info",
            help: "Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
            stability: Stability::Alpha,
        };
        let shown = self.shown();
        let emulation = format!("{}.{}", shown.emulation_major, shown.emulation_minor);
        let oldest = format!("{}.{}", shown.min_compatibility_major, shown.min_compatibility_minor);
        let versions = registry.gauge_vec(opts, &["component", "binary", "emulation", "min_compat"]);
        let binary = self.git_version.trim_start_matches('v');
        versions.with(&["kube", binary, &emulation, &oldest]).set(1.0);
    }
}

/// The checks of the three health endpoints.
#[derive(Clone)]
pub struct Health {
    pub healthz: Checks,
    pub livez: Checks,
    pub readyz: Checks,
}

impl Documents {
    /// Documents of the groups that `served` names by group and version.
    pub fn new(
        table: &'static schema::Table,
        served: &dyn Fn(&ResourceRow) -> bool,
        encodings: Encodings,
        server_address: &str,
        version: VersionInfo,
        openid: Option<OpenId>,
    ) -> Self {
        let rows: Vec<&'static ResourceRow> = table.resources().iter().filter(|r| served(r)).collect();
        let groups = discovery::groups_of(rows.iter().copied());
        let builtin = openapi::Documents::new(table, &groups, encodings.into(), api::descriptions);
        let address = server_address.to_owned();
        let (current, changes) = (RwLock::default(), watch::Sender::default());
        Documents { rows, address, builtin, current, changes, version, openid, pod_resources: false }
    }

    /// These, with what pods ask for at `/metrics/resources` beside them.
    pub fn with_pod_resources(self, pod_resources: bool) -> Self {
        Documents { pod_resources, ..self }
    }

    /// From now on the documents tell of these resources beside the built-in ones.
    pub fn publish(&self, installed: Vec<Arc<Served>>) {
        let mut current = self.current.write();
        *current = Arc::new(Current { installed, foreign: current.foreign.clone(), ..Current::default() });
        drop(current);
        self.changes.send_replace(());
    }

    /// From now on the documents tell of what other servers serve.
    pub(crate) fn publish_foreign(&self, foreign: Vec<(GroupVersion, Remote)>) {
        let mut current = self.current.write();
        if current.foreign != foreign {
            *current =
                Arc::new(Current { installed: current.installed.clone(), foreign, ..Current::default() });
        }
    }

    /// Tells of every change of what this server serves.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    fn build_discovery(&self, current: &Current) -> Discovery {
        let customs = current.installed.iter().filter_map(|s| s.custom.as_ref()).flat_map(|c| &c.listed);
        let mut groups = discovery::groups_of(self.rows.iter().copied().chain(customs));
        static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Array(Vec::new()));
        for ((name, version), remote) in &current.foreign {
            let resources = if remote.resources.is_array() { &remote.resources } else { &*NOTHING };
            let resources = discovery::Resources::Foreign(resources);
            let version = discovery::Version { version, resources, stale: !remote.available };
            match groups.iter_mut().find(|g| g.name == name) {
                Some(group) => {
                    group.versions.push(version);
                    group.versions.sort_by(|a, b| discovery::compare_versions(b.version, a.version));
                }
                None => groups.push(Group { name, versions: vec![version] }),
            }
        }
        let mut classic = HashMap::new();
        let (core, named): (Vec<Group<'_>>, Vec<Group<'_>>) =
            groups.into_iter().partition(|g| g.name.is_empty());
        classic.insert("/apis".to_owned(), discovery::group_list(&named).into());
        for group in core.iter().chain(&named) {
            let base = if group.name.is_empty() {
                classic.insert("/api".to_owned(), discovery::api_versions(group, &self.address).into());
                "/api".to_owned()
            } else {
                classic.insert(format!("/apis/{}", group.name), discovery::group(group).into());
                format!("/apis/{}", group.name)
            };
            for version in &group.versions {
                if let Some(list) = discovery::resource_list(group.name, version) {
                    classic.insert(format!("{base}/{}", version.version), list.into());
                }
            }
        }
        let mut aggregated = HashMap::new();
        for (name, version) in [("v2", AggregatedVersion::V2), ("v2beta1", AggregatedVersion::V2Beta1)] {
            for (path, groups) in [("/api", &core), ("/apis", &named)] {
                let bytes = discovery::aggregated(groups, version);
                let etag = discovery::etag(&bytes);
                aggregated.insert((path, name), (bytes.into(), etag));
            }
        }
        Discovery { classic, aggregated }
    }

    fn build_openapi(&self, current: &Current) -> openapi::Documents {
        let customs = || current.installed.iter().filter_map(|s| s.custom.as_ref());
        let groups = discovery::groups_of(customs().flat_map(|c| &c.listed));
        let kind = |c: &crate::resources::Custom| {
            let source = c.source.clone();
            openapi::CustomKind {
                group: source.group.clone(),
                version: source.version.clone(),
                kind: source.kind.clone(),
                list_kind: source.list_kind.clone(),
                stamp: source.stamp().as_bytes().to_vec(),
                schema: Arc::new(move || source.schema()),
            }
        };
        self.builtin.with(&groups, customs().map(kind).collect())
    }

    fn discovery(&self, path: &str, headers: &HeaderMap) -> Result<Option<Answer>, Status> {
        let path = path.trim_end_matches('/');
        if path != "/api" && path != "/apis" && !path.starts_with("/api/") && !path.starts_with("/apis/") {
            return Ok(None);
        }
        let current = self.current();
        let documents = current.discovery.get_or_init(|| self.build_discovery(&current));
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        for alternative in accept.split(',') {
            let wanted = ["v2", "v2beta1"].into_iter().find(|v| {
                alternative.contains("g=apidiscovery.k8s.io")
                    && alternative.split(';').any(|p| p.trim() == format!("v={v}"))
            });
            let known = ["/api", "/apis"].into_iter().find(|p| *p == path);
            if let (Some(version), Some(known)) = (wanted, known)
                && let Some((bytes, etag)) = documents.aggregated.get(&(known, version))
            {
                let media = if version == "v2" { AggregatedVersion::V2 } else { AggregatedVersion::V2Beta1 }
                    .content_type();
                return Ok(Some(cached(bytes.clone(), media, etag, headers)));
            }
        }
        let Some(bytes) = documents.classic.get(path) else { return Ok(None) };
        handlers::accepts_discovery(headers)?;
        Ok(Some(body::json(StatusCode::OK, bytes.clone())))
    }

    fn openapi(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let current = self.current();
        let documents = current.openapi.get_or_init(|| self.build_openapi(&current));
        let quoted = |hash: &str| format!("\"{hash}\"");
        if path == "/openapi/v3" {
            let handed_on = current.foreign.iter().flat_map(|(_, remote)| &remote.published.v3);
            let made = current.converted().map(|(key, (_, hash))| {
                let url = format!("/openapi/v3/{key}?hash={hash}");
                (key, url)
            });
            let foreign = handed_on.map(|(key, url)| (key.clone(), url.clone())).chain(made).collect();
            return Some(body::json(StatusCode::OK, documents.index(foreign)));
        }
        if let Some(key) = path.strip_prefix("/openapi/v3/") {
            if let Some((bytes, hash)) = documents.v3(key) {
                return Some(cached(bytes, body::JSON, &quoted(hash), headers));
            }
            let (_, (bytes, hash)) = current.converted().find(|(made, _)| made == key)?;
            return Some(cached(bytes.clone(), body::JSON, &quoted(hash), headers));
        }
        if path != "/openapi/v2" {
            return None;
        }
        match handlers::preferred(headers, &[body::JSON, V2_PROTOBUF_OF_OLD, openapi::V2_PROTOBUF]) {
            Some(0) => {
                let merged = || openapi::finish(&current.merge(documents));
                let (bytes, hash) = match current.merges() {
                    true => of(current.merged.get_or_init(merged)),
                    false => documents.v2(),
                };
                Some(cached(bytes, body::JSON, &quoted(hash), headers))
            }
            Some(_) => {
                let merged = || openapi::protobuf(&current.merge(documents));
                let (bytes, hash) = match current.merges() {
                    true => of(current.merged_protobuf.get_or_init(merged)),
                    false => documents.v2_protobuf(),
                };
                Some(cached(bytes, openapi::V2_PROTOBUF, &quoted(hash), headers))
            }
            None => Some(empty(StatusCode::NOT_ACCEPTABLE)),
        }
    }
}

/// What is served beside discovery.
const PATHS: [&str; 9] = [
    "/apis/",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/readyz",
    "/version",
];

/// And where the issuer can be told of.
const OPENID_PATHS: [&str; 2] = ["/.well-known/openid-configuration", "/openid/v1/jwks"];

/// Where priority and fairness shows its queues.
const FLOW_DEBUG: &str = "/debug/api_priority_and_fairness/";

/// How clients still ask for the protobuf document.
const V2_PROTOBUF_OF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A code and nothing else.
fn empty(code: StatusCode) -> Answer {
    let mut answer = Answer::new(body::full(""));
    *answer.status_mut() = code;
    answer
}

/// An answer with an ETag: 304 when the client has it.
fn cached(bytes: Bytes, media: &str, etag: &str, headers: &HeaderMap) -> Answer {
    let same = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v == etag);
    let mut answer = if same {
        body::json(StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        body::json(StatusCode::OK, bytes)
    };
    if let Ok(value) = HeaderValue::from_str(etag) {
        answer.headers_mut().insert(header::ETAG, value);
    }
    if let Ok(value) = HeaderValue::from_str(media) {
        answer.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}

/// A document as upstream shows it to whoever asks.
fn indented(document: &impl serde::Serialize) -> Answer {
    let bytes = apimachinery::value::to_json_vec(document).unwrap_or_default();
    body::json(StatusCode::OK, schema::encode::indent(&bytes))
}

/// An answer without anything in it.
fn nothing(code: StatusCode) -> Answer {
    let mut answer = Answer::new(body::full(Bytes::new()));
    *answer.status_mut() = code;
    answer
}

impl Server {
    /// Answers a request that names no resource.
    pub(crate) async fn document(self: &Arc<Self>, call: Call) -> Result<Answer, Status> {
        let (path, headers) = (call.info.path.as_str(), &call.parts.headers);
        let reads = matches!(call.info.verb.as_str(), "get" | "head");
        let answer = match path {
            "/version" | "/version/" => {
                handlers::accepts(headers, &[body::JSON])?;
                Some(indented(&self.documents.version.shown()))
            }
            "/metrics" => Some(body::text(StatusCode::OK, self.metrics.render())),
            "/metrics/resources" if self.documents.pod_resources => {
                let server = self.clone();
                let rendered = tokio::task::spawn_blocking(move || crate::pod_resources::render(&server));
                Some(body::text(StatusCode::OK, rendered.await.map_err(Status::internal_error)??))
            }
            "/openid/v1/jwks" | "/openid/v1/jwks/" => {
                self.documents.openid.as_ref().map(|openid| openid.key_set(headers)).transpose()?
            }
            "/.well-known/openid-configuration" | "/.well-known/openid-configuration/" => {
                self.documents.openid.as_ref().map(|openid| openid.configuration(headers)).transpose()?
            }
            "/" => Some(indented(&apimachinery::json!({"paths": self.paths()}))),
            _ if path.starts_with(FLOW_DEBUG) => {
                let name = path.strip_prefix(FLOW_DEBUG).unwrap_or_default();
                let table = match &self.gate.limit {
                    Limit::Fair(flow) => flow.dump(name, &call.info.query),
                    _ => None,
                };
                table.map(|table| body::text(StatusCode::OK, table))
            }
            _ if path.starts_with("/openapi/") => self.documents.openapi(path, headers),
            _ => match self.health(path, &call) {
                Some(answer) => Some(answer),
                None => self.documents.discovery(path, headers)?,
            },
        };
        match answer {
            // These answer every method, as upstream's do.
            Some(_) if !reads && !matches!(path, "/" | "/openapi/v2") => Err(handlers::not_allowed()),
            Some(answer) => Ok(answer),
            None if path.starts_with("/openapi/v3/") => Ok(nothing(StatusCode::NOT_FOUND)),
            None if path.starts_with("/apis/") && path.matches('/').count() > 2 => {
                Err(Status::path_not_found())
            }
            None if path.starts_with("/api/") => Err(Status::path_not_found()),
            None => Ok(body::text(StatusCode::NOT_FOUND, "404 page not found\n")),
        }
    }

    fn paths(&self) -> Vec<String> {
        let documents = &self.documents;
        let current = documents.current();
        let discovery = current.discovery.get_or_init(|| documents.build_discovery(&current));
        let mut paths: Vec<String> = discovery.classic.keys().cloned().collect();
        paths.extend(PATHS.map(Into::into));
        if documents.openid.is_some() {
            paths.extend(OPENID_PATHS.map(Into::into));
        }
        paths.sort();
        paths
    }

    fn health(&self, path: &str, call: &Call) -> Option<Answer> {
        let rest = path.trim_start_matches('/');
        let (endpoint, one) = rest.split_once('/').unwrap_or((rest, ""));
        let checks = match endpoint {
            "healthz" => &self.health.healthz,
            "livez" => &self.health.livez,
            "readyz" => &self.health.readyz,
            _ => return None,
        };
        let answer = if one.is_empty() {
            let excluded: Vec<&str> = call.info.query.all("exclude").collect();
            checks.answer(call.info.query.flag("verbose"), &excluded)
        } else {
            checks.answer_one(one)?
        };
        if !answer.reasons.is_empty() {
            tracing::info!(endpoint, reasons = ?answer.reasons, "health check failed");
        }
        let code = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Some(body::text(code, answer.body))
    }
}
