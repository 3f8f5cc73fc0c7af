//! Content negotiation: which of a request's acceptable media types an answer has, and answers brought into it.
//!
//! Handlers answer in JSON; what is rare (YAML, indented JSON, protobuf of what is no stored object) is made from that
//! here, at the edge. The frequent protobuf answers are made by the handlers themselves.

use crate::body::{self, Answer};
use crate::request::Query;
use apimachinery::status::Status;
use apimachinery::value::Value;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

/// The media types every endpoint of an API group has, the preferred one first.
const ACCEPTED: [(&str, Media); 4] = [
    ("application/json", Media::Json),
    ("application/yaml", Media::Yaml),
    (schema::protobuf::CONTENT_TYPE, Media::Protobuf),
    (schema::cbor::CONTENT_TYPE, Media::Cbor),
];

/// Which of the encodings a server has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encodings {
    #[default]
    Standard,
    /// The gate `CBORServingAndStorage` is on.
    WithCbor,
}

impl From<Encodings> for schema::openapi::Encodings {
    fn from(encodings: Encodings) -> Self {
        match encodings {
            Encodings::Standard => Self::Standard,
            Encodings::WithCbor => Self::WithCbor,
        }
    }
}

impl Encodings {
    fn accepted(self) -> &'static [(&'static str, Media)] {
        match self {
            Encodings::Standard => &ACCEPTED[..3],
            Encodings::WithCbor => &ACCEPTED,
        }
    }

    /// The encoding with this name.
    pub(super) fn named(self, name: &str) -> Option<Media> {
        self.accepted().iter().find(|(accepted, _)| *accepted == name).map(|(_, media)| *media)
    }

    /// The names of those that something has, for refusals.
    pub(super) fn names(self, has: impl Fn(Media) -> bool) -> Vec<&'static str> {
        self.accepted().iter().filter(|(_, media)| has(*media)).map(|(name, _)| *name).collect()
    }

    /// Refuses a request whose client takes none of them.
    pub(super) fn not_acceptable(self) -> Status {
        Status::not_acceptable(&self.names(|_| true))
    }
}

/// Refuses who wants an answer of discovery converted, which it never is.
pub(super) fn unconverted(headers: &HeaderMap) -> Result<(), Status> {
    let plain =
        |clause: &Clause<'_>, _| ["as", "g", "v"].iter().all(|p| clause.param(p).is_none()).then_some(());
    let found = negotiate(Encodings::Standard, headers, plain);
    found.map(|_| ()).ok_or_else(|| Encodings::Standard.not_acceptable())
}

/// One alternative of an `Accept` header.
pub(super) struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn covers(&self, name: &str) -> bool {
        match self.media.split_once('/') {
            Some(("*", "*")) => true,
            Some((group, "*")) => name.split('/').next() == Some(group),
            _ => self.media.eq_ignore_ascii_case(name),
        }
    }
}

/// The alternatives of an `Accept` header, the best first.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let params: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let quality = params.iter().find(|(n, _)| *n == "q").and_then(|(_, q)| q.parse().ok());
            Clause { media, params, quality: quality.unwrap_or(1.0) }
        })
        .collect();
    // Exact types come before wildcards of the same quality; otherwise the client's order stands.
    clauses.sort_by(|a, b| {
        let stars = |c: &Clause<'_>| c.media.matches('*').count();
        b.quality.total_cmp(&a.quality).then(stars(a).cmp(&stars(b)))
    });
    clauses
}

/// Finds the first alternative that `allows` takes, and what it makes of it.
pub(super) fn negotiate<T>(
    encodings: Encodings,
    headers: &HeaderMap,
    allows: impl Fn(&Clause<'_>, Media) -> Option<T>,
) -> Option<(T, Media, bool)> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let accept = if accept.is_empty() { ACCEPTED[0].0 } else { accept };
    for clause in clauses(accept) {
        for &(name, media) in encodings.accepted() {
            if clause.covers(name)
                && !clause.param("sv").is_some_and(|v| !matches!(v, "" | "v1"))
                && !clause.param("stream").is_some_and(|v| !matches!(v, "" | "watch"))
                && let Some(found) = allows(&clause, media)
            {
                return Some((found, media, clause.param("pretty") == Some("1")));
            }
        }
    }
    None
}

/// Which of the media types a client likes best; the first where it says nothing.
pub(crate) fn preferred(headers: &HeaderMap, names: &[&str]) -> Option<usize> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).filter(|a| !a.is_empty());
    let clauses = clauses(accept.unwrap_or("*/*"));
    clauses.iter().find_map(|clause| names.iter().position(|name| clause.covers(name)))
}

/// Whether somebody reads the answer with their own eyes.
fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(pretty) = query.get("pretty").filter(|p| !p.is_empty()) {
        return matches!(pretty, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

/// How the answer to a request is to be written at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    media: Media,
    pretty: bool,
}

impl Style {
    /// The style of answers to this request. Errors know no conversions: a client that accepts nothing but a table gets
    /// them as indented JSON.
    pub fn of(encodings: Encodings, headers: &HeaderMap, query: &Query, failed: bool) -> Style {
        let plain = |clause: &Clause<'_>, _| {
            let converts = ["as", "g", "v"].iter().any(|p| clause.param(p).is_some());
            (!failed || !converts).then_some(())
        };
        match negotiate(encodings, headers, plain) {
            Some(((), media, pretty)) => Style { media, pretty: pretty || is_pretty(headers, query) },
            None => Style { media: Media::Json, pretty: true },
        }
    }

    fn is_as_made(self) -> bool {
        self.media == Media::Json && !self.pretty
    }

    /// Brings a JSON answer into this style. Other answers, and streams, are left as they are.
    pub async fn dress(self, answer: Answer) -> Answer {
        let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == body::JSON);
        let is_whole = http_body::Body::size_hint(answer.body()).exact().is_some();
        if self.is_as_made() || !is_json || !is_whole {
            return answer;
        }
        let (mut parts, json) = answer.into_parts();
        let bytes = match json.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => return body::status(&Status::internal_error(error)),
        };
        let (bytes, content_type) = match (self.media, self.pretty) {
            (Media::Json, _) => (schema::encode::indent(&bytes), body::JSON),
            (Media::Yaml, _) => (
                schema::encode::yaml(&serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
                "application/yaml",
            ),
            (Media::Protobuf, _) => {
                let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                match protobuf(&document) {
                    Some(bytes) => (bytes, schema::protobuf::CONTENT_TYPE),
                    // What has no message (a custom resource, a table) stays JSON.
                    None => (bytes.to_vec(), body::JSON),
                }
            }
            (Media::Cbor, _) => {
                let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                (cbor(&document), schema::cbor::CONTENT_TYPE)
            }
        };
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        parts.headers.remove(header::CONTENT_LENGTH);
        Answer::from_parts(parts, body::full(bytes))
    }
}

/// A self-describing document as protobuf, if its kind has a message.
pub(super) fn protobuf(document: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    let codec = api::protobuf();
    let metadata = |object: &Value| codec.metadata_only(&object["metadata"]);
    if api_version.starts_with("meta.k8s.io/") {
        let message = match kind {
            "PartialObjectMetadata" => metadata(document),
            "PartialObjectMetadataList" => {
                let items = document["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                codec.list(&document["metadata"], &items.iter().map(metadata).collect::<Vec<_>>())
            }
            _ => return None,
        };
        return Some(schema::protobuf::wrap(&message, kind, api_version));
    }
    let (group, version) = match api_version {
        // The root of discovery does not say what it is.
        "" => ("", "v1"),
        _ => api_version.split_once('/').unwrap_or(("", api_version)),
    };
    let ty = api::table().kind(group, version, kind)?;
    Some(codec.encode(ty, document, kind, api_version))
}

/// A self-describing document as CBOR; where its kind is not known, without knowing which of its texts are bytes.
pub(super) fn cbor(document: &Value) -> Vec<u8> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    match api::table().kind(group, version, text("kind")) {
        Some(ty) => schema::cbor::encode(api::table(), ty, document),
        None => schema::cbor::encode_free(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, pretty: &str, failed: bool, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let style = Style::of(Encodings::Standard, &headers, &Query::parse(pretty), failed);
        assert_eq!(format!("{:?} {}", style.media, style.pretty), expected, "{accept} {pretty}");
    }

    #[test]
    fn style() {
        check("", "", false, "Json false");
        check("*/*", "pretty=1", false, "Json true");
        check("application/yaml", "", false, "Yaml false");
        check("application/json;q=0.5, application/vnd.kubernetes.protobuf", "", false, "Protobuf false");
        check("*/*, application/yaml", "", false, "Yaml false");
        check("application/json;as=Table;v=v1;g=meta.k8s.io", "", true, "Json true");
        check("application/json;as=Table;v=v1;g=meta.k8s.io, application/json", "", true, "Json false");
        check("text/html", "", true, "Json true");
        check("application/cbor, application/yaml", "", false, "Yaml false");
    }
}
