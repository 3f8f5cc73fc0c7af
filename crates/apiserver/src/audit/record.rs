//! What is recorded of one request: begun before anybody knows who asks, told at every stage.

use super::Audit;
use super::event::{Event, Level, ObjectReference, Stage};
use super::policy::Rule;
use crate::authn::Connection;
use crate::authz::Attributes;
use crate::body::{self, Answer};
use crate::user::User;
use apimachinery::status::{FAILURE, SUCCESS, Status, StatusReason};
use apimachinery::time::MicroTime;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LONGEST_AGENT: usize = 1024;
/// Statuses are small: no larger answer is looked into for one.
const LARGEST_STATUS: u64 = 64 << 10;

/// The record of a request under way.
pub struct Record {
    audit: Arc<Audit>,
    state: Mutex<State>,
    /// The policy wants nothing of it.
    off: AtomicBool,
}

struct State {
    event: Event,
    rule: Option<Rule>,
    /// Nothing more is to be told.
    done: bool,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

/// The address of a request and who sent it.
#[derive(Debug)]
pub struct Asked<'a> {
    pub parts: &'a http::request::Parts,
    pub attributes: &'a Attributes<'a>,
    /// Nobody is known to make it: its credentials were bad.
    pub known: bool,
    pub connection: Option<&'a Connection>,
    pub received: MicroTime,
}

impl Record {
    pub(super) fn new(audit: Arc<Audit>, id: String) -> Self {
        let event = Event { audit_id: id, stage: Stage::ResponseStarted, ..Event::default() };
        let state = Mutex::new(State { event, rule: None, done: false });
        Record { audit, state, off: AtomicBool::new(false) }
    }

    /// Whether anything may yet be told of the request.
    pub fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// How much is told; nothing, before the policy was asked.
    pub fn level(&self) -> Level {
        self.state.lock().event.level
    }

    /// Says something of the request. What was said first stands.
    pub fn annotate(&self, key: String, value: String) {
        if !self.is_on() {
            return;
        }
        let mut state = self.state.lock();
        match state.event.annotations.get(&key) {
            Some(said) if *said != value => {
                tracing::warn!(
                    key,
                    value,
                    said,
                    audit_id = state.event.audit_id,
                    "failed to set an audit annotation: it has already been set"
                );
            }
            _ => drop(state.event.annotations.insert(key, value)),
        }
    }

    /// Asks the policy, and notes who asks for what.
    pub fn evaluate(&self, asked: &Asked<'_>) -> Level {
        let rule = self.audit.policy.evaluate(asked.attributes, asked.known).clone();
        self.audit.metrics.level(rule.level);
        let level = rule.level;
        self.off.store(level == Level::None, Ordering::Relaxed);
        let mut state = self.state.lock();
        if level != Level::None {
            let attributes = asked.attributes;
            let event = &mut state.event;
            event.level = level;
            event.received = asked.received;
            event.verb = attributes.verb.to_owned();
            event.request_uri = asked.parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            event.user_agent = agent(&asked.parts.headers);
            event.source_ips = sources(&asked.parts.headers, asked.connection);
            if asked.known {
                event.user = attributes.user.clone();
            }
            event.object = attributes.is_resource.then(|| ObjectReference {
                resource: attributes.resource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                uid: String::new(),
                api_group: attributes.group.to_owned(),
                api_version: attributes.version.to_owned(),
                resource_version: String::new(),
                subresource: attributes.subresource.to_owned(),
            });
        }
        state.rule = Some(rule);
        level
    }

    /// Who the request acts as, and by which constrained mode.
    pub fn impersonated(&self, user: &User, constraint: &str) {
        if self.is_on() {
            let mut state = self.state.lock();
            state.event.impersonated = Some(user.clone());
            state.event.constraint = constraint.to_owned();
        }
    }

    /// The object that was sent: `meta` is the place of its metadata, `write` gives its JSON.
    pub fn request_object(&self, object: &apimachinery::value::Value, write: impl FnOnce() -> Vec<u8>) {
        if !self.is_on() {
            return;
        }
        let (level, omit) = self.wanted();
        let json = (level >= Level::Request).then(|| raw(write(), omit)).flatten();
        let mut state = self.state.lock();
        let event = &mut state.event;
        let reference = event.object.get_or_insert_default();
        for (place, key) in [
            (&mut reference.namespace, "namespace"),
            (&mut reference.name, "name"),
            (&mut reference.uid, "uid"),
            (&mut reference.resource_version, "resourceVersion"),
        ] {
            if place.is_empty() {
                *place = object["metadata"][key].as_str().unwrap_or_default().to_owned();
            }
        }
        event.request_object = json.or(event.request_object.take());
    }

    /// The patch that was sent, if it is JSON.
    pub fn request_patch(&self, patch: &[u8]) {
        if self.level() >= Level::Request {
            self.state.lock().event.request_object = raw(patch.to_vec(), false);
        }
    }

    fn wanted(&self) -> (Level, bool) {
        let state = self.state.lock();
        (state.event.level, state.rule.as_ref().is_some_and(|rule| rule.omit_managed_fields))
    }

    /// Sets what is answered before anything else answers.
    pub fn set_status(&self, status: Status) {
        self.state.lock().event.response_status = Some(status);
    }

    /// Notes an answer that this server made itself: its status, and the object where that is wanted.
    pub async fn answered(&self, answer: Answer) -> Answer {
        let (level, omit) = self.wanted();
        let code = answer.status();
        let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == body::JSON);
        let size = answer.body().size_hint().exact();
        let whole = level == Level::RequestResponse && size.is_some();
        if !is_json || !whole && size.is_none_or(|size| size > LARGEST_STATUS) {
            return answer;
        }
        let (parts, answered) = answer.into_parts();
        let bytes = match answered.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => return body::status(&Status::internal_error(error)),
        };
        if let Some(status) = status_of(&bytes) {
            self.set_status(status);
        }
        if whole && !bytes.is_empty() && bytes.starts_with(b"{\"kind\":") && code.as_u16() != 304 {
            let object = raw(bytes.to_vec(), omit);
            self.state.lock().event.response_object = object;
        }
        Answer::from_parts(parts, body::full(bytes))
    }

    /// The code of the answer's head.
    pub fn code(&self, code: u16) {
        let mut state = self.state.lock();
        state.event.response_status.get_or_insert_default().code = i32::from(code);
    }

    /// The event of a stage, if it is wanted and nothing was the last to be told.
    fn event(&self, stage: Stage) -> Option<Arc<Event>> {
        if !self.is_on() {
            return None;
        }
        let mut state = self.state.lock();
        if state.done {
            return None;
        }
        state.done = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        let rule = state.rule.as_ref()?;
        if rule.omit_stages.contains(&stage) {
            return None;
        }
        state.event.stage = stage;
        state.event.stage_time = match stage {
            Stage::RequestReceived => state.event.received,
            _ => self.audit.now(),
        };
        self.audit.metrics.event();
        Some(Arc::new(state.event.clone()))
    }

    /// Tells of a stage; false when that failed and the request must not go on.
    pub async fn stage(&self, stage: Stage) -> bool {
        match self.event(stage) {
            Some(event) => self.audit.process(event).await,
            None => true,
        }
    }

    /// A handler's panic.
    pub async fn panicked(&self, why: &str) {
        self.set_status(Status {
            status: FAILURE.into(),
            message: format!("APIServer panic'd: {why}"),
            reason: StatusReason::InternalError,
            code: 500,
            ..Status::default()
        });
        self.stage(Stage::Panic).await;
    }

    /// The end, told by somebody who cannot wait: the answer's body is sent or given up.
    pub(super) fn complete_behind(&self, long: bool) {
        {
            let mut state = self.state.lock();
            if !state.done && state.event.response_status.is_none() {
                state.event.response_status = Some(Status {
                    status: SUCCESS.into(),
                    message: "Connection closed early".into(),
                    code: 200,
                    ..Status::default()
                });
                drop(state);
                if long && let Some(event) = self.event(Stage::ResponseStarted) {
                    self.audit.process_behind(event);
                }
            }
        }
        if let Some(event) = self.event(Stage::ResponseComplete) {
            self.audit.process_behind(event);
        }
    }
}

fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let text = text.unwrap_or_default();
    if text.len() <= LONGEST_AGENT {
        return text.into_owned();
    }
    format!("{}...TRUNCATED", &text[..text.floor_char_boundary(LONGEST_AGENT)])
}

/// Where a request comes from, proxies in its order: only the last one is certain.
fn sources(headers: &HeaderMap, connection: Option<&Connection>) -> Vec<String> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let parse = |text: &str| apimachinery::validation::parse_ip_sloppy(text.trim());
    let mut all: Vec<_> = header("x-forwarded-for").split(',').filter_map(parse).collect();
    if let Some(real) = parse(header("x-real-ip"))
        && !all.contains(&real)
    {
        all.push(real);
    }
    let peer = match connection {
        // A client of the same process.
        None => Some(std::net::Ipv4Addr::LOCALHOST.into()),
        Some(connection) => connection.peer.map(|peer| peer.ip().to_canonical()),
    };
    if let Some(peer) = peer
        && all.last() != Some(&peer)
    {
        all.push(peer);
    }
    all.iter().map(ToString::to_string).collect()
}

/// The Status that an answer is.
fn status_of(bytes: &Bytes) -> Option<Status> {
    if !bytes.starts_with(b"{\"kind\":\"Status\"") {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// A document as a part of an event; nothing when it is no JSON.
fn raw(mut json: Vec<u8>, omit_managed_fields: bool) -> Option<Arc<RawValue>> {
    if omit_managed_fields {
        json = super::omit::managed_fields(&json)?;
    }
    let text = String::from_utf8(json).ok()?;
    RawValue::from_string(text.trim().to_owned()).ok().map(Arc::from)
}
