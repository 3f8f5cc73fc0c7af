//! An audit event (`audit.k8s.io/v1`), and how it is written: as JSON, or in one line of text.

use crate::user::User;
use apimachinery::quote::quote;
use apimachinery::status::{Status, StatusDetails, StatusReason};
use apimachinery::time::MicroTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much of a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When in a request's life an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Stage {
    /// Before the request is handled.
    #[default]
    RequestReceived,
    /// The head of the answer is sent, its body is not: long-running requests only.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// One event.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub level: Level,
    pub audit_id: String,
    pub stage: Stage,
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    pub impersonated: Option<User>,
    /// The verb of constrained impersonation that allowed it.
    pub constraint: String,
    pub source_ips: Vec<String>,
    pub user_agent: String,
    pub object: Option<ObjectReference>,
    pub response_status: Option<Status>,
    pub request_object: Option<Arc<RawValue>>,
    pub response_object: Option<Arc<RawValue>>,
    pub received: MicroTime,
    pub stage_time: MicroTime,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct UserInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> UserInfo<'a> {
    fn of(user: &'a User) -> Self {
        UserInfo { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationMetadata<'a> {
    impersonation_constraint: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

/// A status within an event: of no kind, always with (empty) metadata.
#[derive(Serialize)]
struct ResponseStatus<'a> {
    metadata: Nothing,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a StatusReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a StatusDetails>,
    #[serde(skip_serializing_if = "is_zero")]
    code: i32,
}

fn is_zero(code: &i32) -> bool {
    *code == 0
}

impl<'a> ResponseStatus<'a> {
    fn of(status: &'a Status) -> Self {
        ResponseStatus {
            metadata: Nothing {},
            status: &status.status,
            message: &status.message,
            reason: Some(&status.reason).filter(|reason| **reason != StatusReason::Unknown),
            details: status.details.as_deref(),
            code: status.code,
        }
    }
}

/// The event's members in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: UserInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<UserInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<AuthenticationMetadata<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: MicroTime,
    stage_timestamp: MicroTime,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Event {
    fn written(&self, typed: bool) -> Written<'_> {
        Written {
            kind: typed.then_some("Event"),
            api_version: typed.then_some("audit.k8s.io/v1"),
            level: self.level,
            audit_id: &self.audit_id,
            stage: self.stage,
            request_uri: &self.request_uri,
            verb: &self.verb,
            user: UserInfo::of(&self.user),
            impersonated_user: self.impersonated.as_ref().map(UserInfo::of),
            authentication_metadata: (!self.constraint.is_empty())
                .then_some(AuthenticationMetadata { impersonation_constraint: &self.constraint }),
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: self.object.as_ref(),
            response_status: self.response_status.as_ref().map(ResponseStatus::of),
            request_object: self.request_object.as_deref(),
            response_object: self.response_object.as_deref(),
            request_received_timestamp: self.received,
            stage_timestamp: self.stage_time,
            annotations: &self.annotations,
        }
    }

    /// The event alone, as a line of JSON.
    pub fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = apimachinery::value::to_json_vec(&self.written(true))?;
        line.push(b'\n');
        Ok(line)
    }

    /// The event as one line of text (`--audit-log-format=legacy`).
    pub fn legacy(&self) -> String {
        let list = |all: &[String]| all.iter().map(|one| quote(one)).collect::<Vec<_>>().join(",");
        let user = &self.user;
        let (username, groups) = match user.name.as_str() {
            "" => ("<none>", "<none>".to_owned()),
            name if user.groups.is_empty() => (name, "<none>".to_owned()),
            name => (name, list(&user.groups)),
        };
        let (asuser, asgroups) = match &self.impersonated {
            None => ("<self>", "<lookup>".to_owned()),
            Some(user) if user.groups.is_empty() => (user.name.as_str(), "<lookup>".to_owned()),
            Some(user) => (user.name.as_str(), list(&user.groups)),
        };
        let namespace = self.object.as_ref().map(|o| o.namespace.as_str()).filter(|n| !n.is_empty());
        let response = match &self.response_status {
            Some(status) => status.code.to_string(),
            None => "<deferred>".to_owned(),
        };
        let ip = self.source_ips.first().map_or("<unknown>", String::as_str);
        format!(
            "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response=\"{response}\"",
            nanos(self.received),
            quote(&self.audit_id),
            quote(self.stage.as_str()),
            quote(ip),
            quote(&self.verb),
            quote(username),
            quote(&groups),
            quote(asuser),
            quote(&asgroups),
            quote(&self.user_agent),
            quote(namespace.unwrap_or("<none>")),
            quote(&self.request_uri),
        )
    }
}

/// As Go's `RFC3339Nano`: without the zeros at the end.
fn nanos(time: MicroTime) -> String {
    let text = time.to_string();
    let text = text.trim_end_matches('Z');
    match text.contains('.') {
        true => format!("{}Z", text.trim_end_matches('0').trim_end_matches('.')),
        false => format!("{text}Z"),
    }
}

/// Events as a webhook gets them.
pub fn list(events: &[Arc<Event>]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        kind: &'static str,
        api_version: &'static str,
        metadata: Nothing,
        items: Vec<Written<'a>>,
    }
    let items = events.iter().map(|event| event.written(false)).collect();
    let list = List { kind: "EventList", api_version: "audit.k8s.io/v1", metadata: Nothing {}, items };
    let mut bytes = apimachinery::value::to_json_vec(&list)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn event() -> Event {
        Event {
            level: Level::RequestResponse,
            audit_id: "7d".into(),
            stage: Stage::ResponseComplete,
            request_uri: "/api/v1/namespaces/a/configmaps?x=<y>".into(),
            verb: "create".into(),
            user: User::new("jo", &["dev", "system:authenticated"]),
            impersonated: Some(User::new("ann", &[])),
            constraint: "impersonate-on:user-info:create".into(),
            source_ips: vec!["10.0.0.1".into()],
            user_agent: "kubectl".into(),
            object: Some(ObjectReference {
                resource: "configmaps".into(),
                namespace: "a".into(),
                name: "b".into(),
                api_version: "v1".into(),
                ..Default::default()
            }),
            response_status: Some(Status { code: 201, ..Default::default() }),
            request_object: RawValue::from_string(r#"{"kind":"ConfigMap"}"#.into()).ok().map(Arc::from),
            response_object: None,
            received: MicroTime::from_unix_micros(1_700_000_000_120_000),
            stage_time: MicroTime::from_unix_micros(1_700_000_000_120_450),
            annotations: BTreeMap::from([("authorization.k8s.io/decision".into(), "allow".into())]),
        }
    }

    #[test]
    fn written() {
        let event = event();
        expect![[r#"
            {"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"7d","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/configmaps?x=\u003cy\u003e","verb":"create","user":{"username":"jo","groups":["dev","system:authenticated"]},"impersonatedUser":{"username":"ann"},"authenticationMetadata":{"impersonationConstraint":"impersonate-on:user-info:create"},"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"configmaps","namespace":"a","name":"b","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},"requestObject":{"kind":"ConfigMap"},"requestReceivedTimestamp":"2023-11-14T22:13:20.120000Z","stageTimestamp":"2023-11-14T22:13:20.120450Z","annotations":{"authorization.k8s.io/decision":"allow"}}
        "#]]
        .assert_eq(&String::from_utf8(event.json().unwrap()).unwrap());
        expect![[r#"2023-11-14T22:13:20.12Z AUDIT: id="7d" stage="ResponseComplete" ip="10.0.0.1" method="create" user="jo" groups="\"dev\",\"system:authenticated\"" as="ann" asgroups="<lookup>" user-agent="kubectl" namespace="a" uri="/api/v1/namespaces/a/configmaps?x=<y>" response="201""#]]
            .assert_eq(&event.legacy());
        let empty = list(&[Arc::new(Event::default())]).unwrap();
        expect![[r#"
            {"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[{"level":"None","auditID":"","stage":"RequestReceived","requestURI":"","verb":"","user":{},"requestReceivedTimestamp":null,"stageTimestamp":null}]}
        "#]]
        .assert_eq(&String::from_utf8(empty).unwrap());
    }
}
