//! `pods/log`: what a container wrote, from the kubelet that runs it. Upstream: `LogREST`.

use super::backend::{node_backend_of, send, with_query};
use super::kubelet::{container, refusal};
use crate::body::{self, Answer};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::meta::query::Query;
use apimachinery::status::Status;
use apimachinery::time::Time;
use component::metrics::{Counter, CounterVec, Opts, Registry, Stability};
use http::{HeaderValue, Request, Response, StatusCode, header};
use std::sync::{Arc, OnceLock};
use streaming::messages::Framing;

/// How logs are asked for. As upstream's, the counts are there from the first time that one is.
#[derive(Clone, Default)]
pub struct Counts(Arc<OnceLock<Families>>);

struct Families {
    usage: CounterVec,
    distrusted: Counter,
}

impl Counts {
    fn families(&self, registry: &Registry) -> &Families {
        self.0.get_or_init(|| Families {
            usage: registry.counter_vec(
                Opts {
                    name: "kube_apiserver_pod_logs_insecure_backend_total",
                    help: "Total number of requests for pods/logs sliced by usage type: enforce_tls, skip_tls_allowed, skip_tls_denied",
                    stability: Stability::Alpha,
                },
                &["usage"],
            ),
            distrusted: registry.counter(Opts {
                name: "kube_apiserver_pod_logs_backend_tls_failure_total",
                help: "Total number of requests for pods/logs that failed due to kubelet server TLS verification",
                stability: Stability::Alpha,
            }),
        })
    }
}

/// What is asked of a log. Upstream: `PodLogOptions`.
struct Options {
    insecure: bool,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl Options {
    fn of(query: &Query) -> Result<Self, Status> {
        let number = |name: &str| query.optional_i64(name).map_err(|e| Status::bad_request(e.to_string()));
        let since_seconds = number("sinceSeconds")?;
        let since_time = match query.get("sinceTime") {
            // Go's first moment.
            Some("" | "null") => Some("0001-01-01T00:00:00Z".to_owned()),
            Some(text) => {
                let time: Time = text.parse().map_err(|error| Status::bad_request(format!("{error}")))?;
                Some(time.to_string())
            }
            None => None,
        };
        Ok(Options {
            insecure: query.flag("insecureSkipTLSVerifyBackend"),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds,
            since_time,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream: query.get("stream").map(str::to_owned),
        })
    }

    fn errors(&self, selects_streams: bool) -> ErrorList {
        const POSITIVE: &str = "must be greater than 0";
        const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];
        let (mut errors, nowhere, path) = (ErrorList::new(), Path::new(""), Path::new);
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            errors.push(Error::invalid(&path("tailLines"), lines, "must be greater than or equal to 0"));
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(Error::invalid(&path("limitBytes"), bytes, POSITIVE));
        }
        match self.since_seconds {
            Some(_) if self.since_time.is_some() => {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                errors.push(Error::forbidden(&nowhere, why));
            }
            Some(seconds) if seconds < 1 => {
                errors.push(Error::invalid(&path("sinceSeconds"), seconds, POSITIVE));
            }
            _ => {}
        }
        match &self.stream {
            Some(_) if !selects_streams => {
                errors.push(Error::forbidden(&path("stream"), "may not be specified"));
            }
            Some(stream) => {
                if !STREAMS.contains(&stream.as_str()) {
                    errors.push(Error::not_supported(&path("stream"), stream.as_str(), &STREAMS));
                }
                if stream != "All" && self.tail_lines.is_some() {
                    let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                    errors.push(Error::forbidden(&nowhere, why));
                }
            }
            None => {}
        }
        errors
    }

    /// As the kubelet is asked.
    fn query(&self, selects_streams: bool) -> String {
        let flag = |set: bool| set.then(|| "true".to_owned());
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let stream = || self.stream.clone().unwrap_or_else(|| "All".to_owned());
        let all = [
            ("follow", flag(self.follow)),
            ("limitBytes", number(self.limit_bytes)),
            ("previous", flag(self.previous)),
            ("sinceSeconds", number(self.since_seconds)),
            ("sinceTime", self.since_time.clone()),
            ("stream", selects_streams.then(stream)),
            ("tailLines", number(self.tail_lines)),
            ("timestamps", flag(self.timestamps)),
        ];
        let set: Vec<(&str, String)> =
            all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        client::client::uri("", &set).trim_start_matches('?').to_owned()
    }
}

/// Serves a log.
pub(super) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let options = Options::of(&call.info.query)?;
    let counts = server.rooms.log_counts.families(&server.metrics);
    counts.usage.with(&[if options.insecure { "skip_tls_allowed" } else { "enforce_tls" }]).inc();
    let selects_streams = (server.registry.gates)("PodLogsQuerySplitStreams");
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let errors = options.errors(selects_streams);
    if !errors.is_empty() {
        return Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), name, &errors));
    }
    let pod = server.registry.get(resource, namespace, name)?.value;
    let container = container(&pod, &call)?;
    let Some(mut backend) = node_backend_of(server, resource, &pod)? else {
        let nothing = Response::builder().status(StatusCode::NO_CONTENT).body(body::full(""));
        return nothing.map_err(Status::internal_error);
    };
    if options.insecure {
        backend.tls = server.rooms.kubelet_tls.as_ref().map(|tls| tls.unchecked.clone());
    }
    let path = with_query(
        &format!("/containerLogs/{namespace}/{name}/{container}"),
        &options.query(selects_streams),
    );
    let request = Request::get(&path).body(body::full("")).map_err(Status::internal_error)?;
    let log = send(&backend, request).await.map_err(|failure| {
        if failure.is_distrust() {
            counts.distrusted.inc();
        }
        Status::plain_error(format!("Get \"https://{}{path}\": {failure}", backend.address()))
    })?;
    if !log.status().is_success() {
        return Err(refusal(log, &GroupResource::new("", "pods/log"), name).await);
    }
    let mut answer = Response::new(body::stream(log.into_body()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    body::over_websocket(call.parts, answer, Framing::Chunks)
}
