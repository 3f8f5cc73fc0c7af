//! What is done to every request before and around the stations: it is recorded and counted, waits for its turn,
//! and has its time.

use crate::audit::event::{Level, Stage};
use crate::audit::{Asked, Audit, Completion, Record};
use crate::authn::{Connection, tokens};
use crate::authz::Attributes;
use crate::body::{self, Answer};
use crate::browsers::Browsers;
use crate::context;
use crate::flowcontrol::max_in_flight::{InFlight, MaxInFlight};
use crate::flowcontrol::{self, Admitted, Flow};
use crate::handlers::Encodings;
use crate::observed::Observed;
use crate::request::RequestInfo;
use crate::server::Server;
use crate::spans::Tracer;
use crate::user::User;
use apimachinery::status::Status;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    pub audit: Option<Arc<Audit>>,
    pub limit: Limit,
    pub timing: Timing,
    /// What objects may come and be answered in.
    pub encodings: Encodings,
    /// What browsers are told.
    pub browsers: Browsers,
    /// Makes spans of requests.
    pub tracer: Option<Arc<Tracer>>,
    /// Counts requests.
    pub observed: Option<Arc<Observed>>,
    /// This server is about to stop: load balancers are to send no more.
    pub leaving: CancellationToken,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A request that does not go on for as long as it likes.
    pub request: Duration,
    /// A watch at least, where its client says nothing.
    pub watch: Duration,
    /// How likely an HTTP/2 client is told to connect anew, and so to another server perhaps.
    pub goaway_chance: f64,
    /// Watches end one after the other within this time when the server stops.
    pub watch_grace: Duration,
    /// Who comes when the server stops is told to come again.
    pub send_retry_after: bool,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            request: Duration::from_secs(60),
            watch: Duration::from_secs(1800),
            goaway_chance: 0.0,
            watch_grace: Duration::ZERO,
            send_retry_after: false,
        }
    }
}

impl Timing {
    /// The time that the client gives a request, if it says so in a way that counts.
    pub(crate) fn asked(&self, info: &RequestInfo) -> Result<Option<Duration>, Status> {
        let Some(text) = info.query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(None) };
        if info.is_long_running() {
            return Ok(None);
        }
        let asked: apimachinery::time::Duration = text.parse().map_err(|error| {
            Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
        })?;
        Ok(asked.to_std().filter(|asked| !asked.is_zero() && *asked < self.request))
    }

    /// How long a watch goes on whose client says nothing: spread, so that clients do not all return at once.
    pub(crate) fn watch(&self) -> Duration {
        self.watch.mul_f64(1.0 + chance())
    }

    pub(crate) fn says_goaway(&self) -> bool {
        self.goaway_chance > 0.0 && chance() < self.goaway_chance
    }

    /// When a watch ends after the server was told to stop.
    pub(crate) fn last_of_watch(&self) -> Duration {
        self.watch_grace.mul_f64(chance() * 0.8)
    }
}

/// Anything from zero to one.
fn chance() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX)
}
/// How many requests from outside are served at a time.
#[derive(Debug, Default)]
pub enum Limit {
    #[default]
    None,
    Fair(Arc<Flow>),
    MaxInFlight(MaxInFlight),
}

/// What a request holds while it is served.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Fair(Admitted, Until),
    InFlight(InFlight, Until),
}

/// Until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Answered,
    /// Much of the answer is made while it is sent.
    Sent,
}

impl Until {
    fn of(info: &RequestInfo) -> Self {
        if info.verb == "list" { Until::Sent } else { Until::Answered }
    }
}

/// A request that is recorded.
pub(crate) struct Recorded {
    record: Arc<Record>,
    completion: Arc<Completion>,
    long: bool,
}

impl Gate {
    /// Waits until a request from outside may be served, or refuses it. Requests that take as long as they like are not
    /// counted, watches only until they have begun.
    pub(crate) async fn admit(
        &self,
        server: &Server,
        user: &User,
        info: &RequestInfo,
        timeout: Option<Duration>,
    ) -> Result<Held, Answer> {
        let long = info.is_long_running();
        match &self.limit {
            Limit::None => Ok(Held::Nothing),
            Limit::Fair(flow) if !long || info.verb == "watch" => {
                let admitted = flow.admit(server, user, info, timeout).await?;
                Ok(Held::Fair(admitted, Until::of(info)))
            }
            Limit::MaxInFlight(max) if !long => {
                let counted = max.begin(user, info).ok_or_else(|| flowcontrol::too_many(1))?;
                Ok(Held::InFlight(counted, Until::of(info)))
            }
            _ => Ok(Held::Nothing),
        }
    }

    /// Records a request whose credentials were bad.
    pub(crate) async fn unauthenticated(&self, parts: &Parts, info: &RequestInfo, connection: &Connection) {
        let (Some(audit), Some(record)) = (&self.audit, context::record()) else { return };
        let nobody = User::default();
        let attributes = Attributes::of(&nobody, info);
        let asked = Asked {
            parts,
            attributes: &attributes,
            known: false,
            connection: Some(connection),
            received: audit.now(),
        };
        if record.evaluate(&asked) == Level::None {
            return;
        }
        record.set_status(Status { message: attempted(parts, info, connection), ..Status::default() });
        record.code(StatusCode::UNAUTHORIZED.as_u16());
        record.stage(Stage::ResponseStarted).await;
    }

    /// Asks the policy, and tells that the request is here; nothing where nothing is recorded of it. Refused when it
    /// cannot be recorded and must be.
    pub(crate) async fn record(
        &self,
        parts: &mut Parts,
        user: &User,
        info: &RequestInfo,
        connection: Option<&Connection>,
    ) -> Result<Option<Recorded>, Answer> {
        let Some(audit) = &self.audit else { return Ok(None) };
        let Some(record) = context::record() else { return Ok(None) };
        let attributes = Attributes::of(user, info);
        let received = audit.now();
        let asked = Asked { parts, attributes: &attributes, known: true, connection, received };
        let level = record.evaluate(&asked);
        if level == Level::None {
            return Ok(None);
        }
        if !record.stage(Stage::RequestReceived).await {
            audit.refused();
            return Err(body::internal_error(&parts.uri, "failed to store audit event"));
        }
        if level == Level::RequestResponse {
            plain_json(parts);
        }
        let long = info.is_long_running();
        let completion = Arc::new(Completion::new(record.clone(), long));
        context::begin(completion.clone());
        Ok(Some(Recorded { record, completion, long }))
    }
}

impl Recorded {
    /// Records what was answered. What goes on after that, the answer's body, keeps the request from being complete.
    pub(crate) async fn answered(self, mut answer: Answer, panic: Option<Box<dyn Any + Send>>) -> Answer {
        let record = &self.record;
        if let Some(panic) = panic {
            let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            record.panicked(&text).await;
            return answer;
        }
        let is_foreign = answer.extensions().get::<body::Foreign>().is_some();
        // What streams is no object, but what a long-running request is refused with is.
        if !is_foreign && (!self.long || !answer.status().is_success()) {
            answer = record.answered(answer).await;
        }
        record.code(answer.status().as_u16());
        if self.long {
            record.stage(Stage::ResponseStarted).await;
        }
        let whole = http_body::Body::size_hint(answer.body()).exact().is_some() && !is_foreign;
        if self.long || !whole {
            return body::keeping(answer, self.completion);
        }
        record.stage(Stage::ResponseComplete).await;
        answer
    }
}

impl Held {
    /// The request is served. What of its answer is yet to be made keeps its seats.
    pub(crate) fn served(self, mut answer: Answer) -> Answer {
        match self {
            Held::InFlight(counted, Until::Sent) => body::keeping(answer, counted),
            Held::Nothing | Held::InFlight(..) => answer,
            Held::Fair(Admitted { ticket, class, watch }, until) => {
                class.tell(&mut answer);
                match (until, watch) {
                    (Until::Sent, _) => body::keeping(answer, ticket),
                    (_, Some(watch)) if answer.status().is_success() => body::keeping(answer, watch),
                    _ => answer,
                }
            }
        }
    }
}

/// Has the handlers answer with JSON, from which events are made; the edge writes it as the client wants it.
fn plain_json(parts: &mut Parts) {
    let Some(accept) = parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()) else { return };
    if accept.contains(schema::protobuf::CONTENT_TYPE)
        && let Ok(json) = HeaderValue::from_str(&accept.replace(schema::protobuf::CONTENT_TYPE, body::JSON))
    {
        parts.headers.insert(header::ACCEPT, json);
    }
}

/// Which credentials there were.
fn attempted(parts: &Parts, info: &RequestInfo, connection: &Connection) -> String {
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let basic = authorization.is_some_and(|a| a.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("basic ")));
    let token = info.query.get("access_token").is_some_and(|token| !token.trim().is_empty());
    let methods: Vec<&str> = [
        (basic, "basic"),
        (tokens::bearer(parts).is_some(), "bearer"),
        (token, "access_token"),
        (!connection.certificates.is_empty(), "x509"),
    ]
    .into_iter()
    .filter_map(|(tried, method)| tried.then_some(method))
    .collect();
    match methods.is_empty() {
        true => "Authentication failed, no credentials provided".into(),
        false => format!("Authentication failed, attempted: {}", methods.join(", ")),
    }
}
