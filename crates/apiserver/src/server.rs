//! The server: what it is made of, and the way a request goes.
//!
//! The way is [`Server::pass`], then [`Server::stations`], one station after the other; their order is the documentation.
//! In-process clients enter after authentication ([`Server::serve_as`]) and pass every later station.

use crate::audit::event::Level;
use crate::authn::tokens::Ignored;
use crate::authn::{Authenticator, Connection};
use crate::authz::{self, Authorizer, Decision};
use crate::body::{self, Answer};
use crate::browsers::Browsers;
use crate::cache::EncodedEvents;
use crate::call_body::CallBody;
use crate::context::{self, Context};
use crate::documents::Health;
use crate::gate::Gate;
use crate::handlers::{Encodings, Style};
use crate::observed::Running;
use crate::registry::Registry;
use crate::request::RequestInfo;
use crate::rooms::Rooms;
use crate::spans::{self, Served};
use crate::user::User;
use apimachinery::status::Status;
use apimachinery::value::Value;
use component::metrics::Registry as Metrics;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Request};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A request with its body still to be read.
pub type Incoming = Request<client::transport::ResponseBody>;

/// An API server.
pub struct Server {
    pub registry: Arc<Registry>,
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    pub rooms: Rooms,
    /// What is done to requests before and around the stations.
    pub gate: Gate,
    pub events: EncodedEvents,
    pub documents: crate::documents::Documents,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// A request past authentication.
#[derive(Debug)]
pub struct Call {
    pub user: User,
    pub info: RequestInfo,
    pub parts: http::request::Parts,
    pub body: CallBody,
    /// It came over a connection.
    pub outside: bool,
    /// The time that its client gives it.
    pub timeout: Option<Duration>,
    /// Those it may come and be answered in.
    pub encodings: Encodings,
}

/// Where a request comes from.
enum Origin {
    /// A connection: who makes it is yet to be found out.
    Outside(Arc<Connection>),
    /// This process.
    Inside(User),
}

impl Server {
    /// A request from outside.
    pub fn serve(
        self: Arc<Self>,
        request: Incoming,
        connection: Arc<Connection>,
    ) -> BoxFuture<'static, Answer> {
        Box::pin(self.pass(Origin::Outside(connection), request))
    }

    /// A request of a known user, through every station behind authentication.
    pub fn serve_as(self: Arc<Self>, user: User, request: Incoming) -> BoxFuture<'static, Answer> {
        Box::pin(self.pass(Origin::Inside(user), request))
    }

    /// Answers a request, and brings the answer into the form that its client wants.
    async fn pass(self: Arc<Self>, origin: Origin, request: Incoming) -> Answer {
        let (parts, request_body) = request.into_parts();
        if let Origin::Outside(connection) = &origin {
            let timing = &self.gate.timing;
            if timing.send_retry_after && self.shutdown.is_cancelled() && !is_still_served(&parts) {
                return again();
            }
            if parts.version == http::Version::HTTP_2 && timing.says_goaway() {
                connection.leave.cancel();
            }
        }
        let id = audit_id(&parts.headers);
        let page = match origin {
            Origin::Outside(_) => self.gate.browsers.allowed(&parts.headers),
            Origin::Inside(_) => None,
        };
        if let Some(answer) = Browsers::preflight(&parts.method, page.as_ref()) {
            return self.sign(answer, id, page);
        }
        let record =
            self.gate.audit.as_ref().map(|audit| audit.begin(&String::from_utf8_lossy(id.as_bytes())));
        let info = RequestInfo::parse(&parts.method, &parts.uri);
        let asked = (parts.headers.clone(), info.query.clone());
        // Documents about the API are made elsewhere, and are in no more than they ever were.
        let encodings = if info.is_resource { self.gate.encodings } else { Encodings::Standard };
        let observation = self.gate.observed.as_ref().map(|observed| {
            // Words from outside must not make rows.
            let resource = self.registry.resources.get(&info.group, &info.version, &info.resource);
            let known = info.is_resource && resource.is_some_and(|r| r.serves(&info.verb, &info.subresource));
            observed.begin(&parts, &info, known)
        });
        let answering = self.answer(origin, parts, info, request_body, &id);
        let (mut answer, said) = Context::new(record).around(answering).await;
        body::warn(&mut answer, &said.warnings);
        let failed =
            !answer.status().is_success() && answer.status() != http::StatusCode::SWITCHING_PROTOCOLS;
        answer = Style::of(encodings, &asked.0, &asked.1, failed).dress(answer).await;
        if crate::compress::accepts(&asked.0) {
            answer = crate::compress::compress(answer);
        }
        let answer = self.sign(answer, id, page);
        match observation.and_then(|observation| observation.answered(&answer, &said)) {
            Some(running) => body::counting(answer, running, Running::sent),
            None => answer,
        }
    }

    /// Adds what every answer says in its head.
    fn sign(&self, mut answer: Answer, id: HeaderValue, page: Option<HeaderValue>) -> Answer {
        let headers = answer.headers_mut();
        headers.insert(http::HeaderName::from_static("audit-id"), id);
        let unkept = HeaderValue::from_static("no-cache, private");
        headers.entry(http::header::CACHE_CONTROL).or_insert(unkept);
        self.gate.browsers.tell(page, &mut answer);
        answer
    }

    /// Authentication and audit, around the stations. What goes on in here is on the heap, as are the stations: a task that
    /// holds it is moved, and a request within a request stands on the same stack.
    fn answer(
        self: &Arc<Self>,
        origin: Origin,
        parts: http::request::Parts,
        info: RequestInfo,
        request_body: client::transport::ResponseBody,
        id: &HeaderValue,
    ) -> BoxFuture<'_, Answer> {
        let id = self.gate.tracer.as_ref().map(|_| String::from_utf8_lossy(id.as_bytes()).into_owned());
        Box::pin(self.around(origin, parts, info, request_body, id))
    }

    async fn around(
        self: &Arc<Self>,
        origin: Origin,
        mut parts: http::request::Parts,
        info: RequestInfo,
        request_body: client::transport::ResponseBody,
        id: Option<String>,
    ) -> Answer {
        let (user, connection) = match origin {
            Origin::Inside(user) => (user, None),
            Origin::Outside(connection) => match self.authenticate(&parts, &connection).await {
                Ok(user) => {
                    self.authenticators.iter().for_each(|a| a.strip(&mut parts));
                    (user, Some(connection))
                }
                Err(status) => {
                    self.gate.unauthenticated(&parts, &info, &connection).await;
                    return body::status(&status);
                }
            },
        };
        // What is made of it is a part of the trace of whoever may say so; others' begins here.
        let traced = spans::began(
            self.gate.tracer.as_ref(),
            (&parts, &info, &user),
            connection.as_deref(),
            id.as_deref().unwrap_or_default(),
        );
        let Some((mut served, current)) = traced else {
            return self.of_user(user, connection, parts, info, request_body).await;
        };
        let answering = Box::pin(self.of_user(user, connection, parts, info, request_body));
        let answer = current.around(answering).await;
        served.answered(answer.status(), context::has_read());
        if served.is_told() { body::counting(answer, served, Served::sent) } else { answer }
    }

    /// The way of a request whose user is known.
    async fn of_user(
        self: &Arc<Self>,
        user: User,
        connection: Option<Arc<Connection>>,
        mut parts: http::request::Parts,
        info: RequestInfo,
        request_body: client::transport::ResponseBody,
    ) -> Answer {
        let _audited = spans::station("audit");
        let recorded = match self.gate.record(&mut parts, &user, &info, connection.as_deref()).await {
            Ok(recorded) => recorded,
            Err(refused) => return refused,
        };
        let timing = &self.gate.timing;
        let outside = connection.is_some();
        let (timeout, refused) = match timing.asked(&info) {
            Ok(timeout) => (timeout, None),
            Err(status) => (None, Some(status)),
        };
        let body = CallBody::new(request_body);
        let unread = body.share();
        let closes = outside && parts.version <= http::Version::HTTP_11;
        let waits_to_send = parts.headers.contains_key(http::header::EXPECT);
        let limited = (outside && !info.is_long_running()).then(|| timeout.unwrap_or(timing.request));
        let writes = !matches!(info.verb.as_str(), "get" | "list");
        let encodings = self.gate.encodings;
        let call = Call { user, info, parts, body, outside, timeout, encodings };
        let stations = async {
            if let Some(refused) = refused {
                return Err(refused);
            }
            match limited {
                None => self.stations(call).await,
                Some(limit) => match tokio::time::timeout(limit, self.stations(call)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(late(writes)),
                },
            }
        };
        // One handler's panic is one request's 500, never the server's end.
        let (mut answer, panic) = match AssertUnwindSafe(stations).catch_unwind().await {
            Ok(Ok(answer)) => (answer, None),
            Ok(Err(status)) => (body::status(&status), None),
            Err(panic) => {
                tracing::error!("a request handler panicked");
                let status = Status::internal_error("the server encountered an unexpected condition");
                (body::status(&status), Some(panic))
            }
        };
        if closes && !unread.settle(waits_to_send).await {
            answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        match recorded {
            Some(recorded) => recorded.answered(answer, panic).await,
            None => answer,
        }
    }

    fn stations(self: &Arc<Self>, call: Call) -> BoxFuture<'_, Result<Answer, Status>> {
        Box::pin(self.pass_stations(call))
    }

    async fn pass_stations(self: &Arc<Self>, mut call: Call) -> Result<Answer, Status> {
        if call.parts.extensions.get::<Ignored>().is_some() {
            context::warn(Ignored::WARNING.into());
        }
        let _impersonating = spans::station("constrainedimpersonation");
        self.impersonate(&mut call).await?;
        if !call.outside {
            return self.serve_call(call).await;
        }
        let _waiting = spans::station("priorityandfairness");
        let came = std::time::Instant::now();
        let held = match self.gate.admit(self, &call.user, &call.info, call.timeout).await {
            Ok(held) => held,
            Err(refused) => return Ok(refused),
        };
        context::exclude(came.elapsed());
        let answer = self.serve_call(call).await.unwrap_or_else(|status| body::status(&status));
        Ok(held.served(answer))
    }

    async fn serve_call(self: &Arc<Self>, call: Call) -> Result<Answer, Status> {
        let _authorized = spans::station("authorization");
        if let Some(failed) = self.authorize(&call).await? {
            return Ok(failed);
        }
        if let Some(aggregation) = &self.rooms.aggregation
            && let Some(remote) = aggregation.concerns(&call)
        {
            return aggregation.serve(&remote, call).await;
        }
        if let Some(metrics) = self.rooms.metrics.clone().filter(|metrics| metrics.concerns(&call)) {
            return metrics.serve(self, &call).await;
        }
        if !call.info.is_resource {
            return self.document(call).await;
        }
        let _served = spans::verb(&call.parts, &call.info);
        self.resource(call).await
    }

    /// All objects of a resource that is kept here.
    pub(crate) fn objects(&self, group: &str, version: &str, resource: &str) -> Result<Vec<Value>, Status> {
        let served =
            self.registry.resources.get(group, version, resource).ok_or_else(Status::path_not_found)?;
        let snapshot = self.registry.store.snapshot(&served.prefix);
        let entries = snapshot.entries.values();
        entries.map(|entry| crate::registry::decode(&served, entry).map(|stored| stored.value)).collect()
    }

    async fn authenticate(
        &self,
        parts: &http::request::Parts,
        connection: &Connection,
    ) -> Result<User, Status> {
        let mut failed = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(parts, connection).await {
                Ok(Some(mut user)) => {
                    if user.name != crate::user::ANONYMOUS && !user.in_group(crate::user::ALL_AUTHENTICATED) {
                        user.groups.push(crate::user::ALL_AUTHENTICATED.into());
                    }
                    return Ok(user);
                }
                Ok(None) => {}
                Err(status) => failed = Some(status),
            }
        }
        match failed {
            Some(status) => Err(status),
            // Anonymous requests reach health and version, as the bootstrap roles say.
            None => Ok(User::anonymous()),
        }
    }

    async fn impersonate(&self, call: &mut Call) -> Result<(), Status> {
        if let Some(user) = crate::authn::impersonation::requested(self, call).await? {
            call.user = user;
        }
        Ok(())
    }

    /// Asks the authorizers in order.
    pub async fn decide(&self, attributes: &authz::Attributes<'_>) -> Decision {
        authz::decide(&self.authorizers, attributes).await
    }

    /// Refuses with upstream's words what no authorizer allows.
    pub async fn require(&self, attributes: &authz::Attributes<'_>) -> Result<(), Status> {
        attributes.judge(self.decide(attributes).await)
    }

    /// Refuses what is not allowed; an answer when no authorizer can say.
    async fn authorize(&self, call: &Call) -> Result<Option<Answer>, Status> {
        let attributes = authz::Attributes::of(&call.user, &call.info);
        let start = std::time::Instant::now();
        let decision = self.decide(&attributes).await;
        if let Some(metrics) = &self.rooms.authorization {
            metrics.note(&decision, start);
        }
        if let Decision::Error { error, .. } = &decision {
            context::annotate_from(Level::None, || {
                ("authorization.k8s.io/reason".into(), "internal error".into())
            });
            return Ok(Some(body::internal_error(&call.parts.uri, error)));
        }
        context::annotate_from(Level::None, || {
            let allowed = matches!(decision, Decision::Allow { .. });
            ("authorization.k8s.io/decision".into(), if allowed { "allow" } else { "forbid" }.into())
        });
        context::annotate_from(Level::None, || {
            ("authorization.k8s.io/reason".into(), decision.reason().to_owned())
        });
        attributes.judge(decision).map(|()| None)
    }
}

/// What is served to the last: probes, metrics, and what API servers ask themselves.
fn is_still_served(parts: &http::request::Parts) -> bool {
    const PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
    let agent = parts.headers.get(http::header::USER_AGENT).map(HeaderValue::as_bytes);
    PATHS.iter().any(|path| parts.uri.path().starts_with(path))
        || agent.is_some_and(|agent| agent.starts_with(b"kube-apiserver/"))
}

/// The answer to who comes too late.
fn again() -> Answer {
    let text = "The apiserver is shutting down, please try again later.\n";
    let mut answer = body::text(http::StatusCode::TOO_MANY_REQUESTS, text);
    let headers = answer.headers_mut();
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("5"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The answer to a request whose time is over. A write may have come about.
fn late(writes: bool) -> Status {
    Status::timeout(
        match writes {
            true => "request did not complete within requested timeout - context deadline exceeded",
            false => "request did not complete within the allotted timeout",
        },
        0,
    )
}

/// The request's name in audit events and logs: the client's, or a new one.
fn audit_id(headers: &http::HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get("audit-id").filter(|id| !id.is_empty()) {
        return id.clone();
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static(""))
}
