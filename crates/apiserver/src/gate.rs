//! What is done to every request before and around the stations: it is recorded.

use crate::audit::event::{Level, Stage};
use crate::audit::{Asked, Audit, Completion, Record};
use crate::authn::{Connection, service_account};
use crate::authz::Attributes;
use crate::body::{self, Answer};
use crate::context;
use crate::request::RequestInfo;
use crate::user::User;
use apimachinery::status::Status;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use std::any::Any;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    pub audit: Option<Arc<Audit>>,
}

/// A request that is recorded.
pub(crate) struct Recorded {
    record: Arc<Record>,
    completion: Arc<Completion>,
    long: bool,
}

impl Gate {
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
            let uri = parts.uri.path_and_query().map_or("/", |p| p.as_str());
            return Err(body::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Internal Server Error: {uri:?}: failed to store audit event\n"),
            ));
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
        (service_account::bearer(parts).is_some(), "bearer"),
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
