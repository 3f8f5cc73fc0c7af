//! Requests: an address, headers and a body that fit each other by and large.

use crate::dice::Dice;
use crate::seeds::{self, Seed};
use crate::{addresses, bodies, trees};
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::resources::Served;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use schema::ResourceRow;
use std::sync::Arc;

const NAMES: &[&str] = &["a", "b", "sample"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// What requests are about: every served resource, and objects that some of them take.
pub struct Ground {
    pub resources: Vec<Arc<Served>>,
    seeds: Vec<Seed>,
}

impl Ground {
    pub fn new(resources: Vec<Arc<Served>>) -> Self {
        Ground { resources, seeds: seeds::seeds() }
    }

    fn seed(&self, resource: &Served) -> Option<&Value> {
        let row = &resource.row;
        let is = |s: &&Seed| s.group == row.group && s.version == row.version && s.resource == row.resource;
        self.seeds.iter().find(is).map(|seed| &seed.base)
    }

    /// The request of a case.
    pub fn request(&self, dice: &mut Dice) -> Request<Bytes> {
        let resource = &self.resources[dice.below(self.resources.len())];
        let name = dice.pick(NAMES);
        let (path, row) = match dice.once_in(15) {
            true => (addresses::document(dice), resource.row.clone()),
            false => addresses::path(dice, resource, name),
        };
        let method = method(dice, &row, path.ends_with(&*resource.row.resource));
        let query = addresses::query(dice);
        let (media, body) = self.body(dice, resource, &method, name);
        let mut request = Request::builder().method(method).uri(match query.is_empty() {
            true => path,
            false => format!("{path}?{query}"),
        });
        if let Some(headers) = request.headers_mut() {
            headers.insert("x-test-user", HeaderValue::from_static("tester"));
            for (name, value) in heads(dice, media) {
                headers.append(name, value);
            }
        }
        // What no HTTP library can say is not said.
        request.body(Bytes::from(body)).unwrap_or_default()
    }

    fn body(
        &self,
        dice: &mut Dice,
        resource: &Served,
        method: &Method,
        name: &str,
    ) -> (&'static str, Vec<u8>) {
        if *method == Method::GET && !dice.once_in(6) {
            return ("", Vec::new());
        }
        if dice.once_in(20) {
            return ("application/json", bodies::shapeless(dice));
        }
        let mut tree = match dice.below(12) {
            0 => trees::any(dice, 0),
            1 => json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": trees::any(dice, 2)}),
            _ => trees::object(dice, resource, self.seed(resource), name),
        };
        if let Some(members) = tree.as_object_mut().filter(|_| !dice.once_in(20)) {
            members.insert("apiVersion", resource.api_version.as_str().into());
            members.insert("kind", resource.row.kind.as_ref().into());
        }
        if *method == Method::PATCH {
            let media = dice.pick(PATCHES);
            let tree = if media == PATCHES[0] { trees::json_patch(dice) } else { tree };
            let bytes = if media == PATCHES[3] && dice.once_in(2) {
                schema::encode::yaml(&tree)
            } else {
                tree.to_string().into_bytes()
            };
            return (media, bodies::damaged(dice, bytes));
        }
        let ty = resource.custom.is_none().then_some(resource.ty);
        let (media, bytes) = bodies::encoded(dice, &tree, ty);
        (media, bodies::damaged(dice, bytes))
    }
}

/// Mostly one that is served there.
fn method(dice: &mut Dice, row: &ResourceRow, collection: bool) -> Method {
    const ALL: &[&str] = &["POST", "GET", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "BREW", "TRACE"];
    if dice.once_in(12) {
        return dice.pick(ALL).parse().unwrap_or_default();
    }
    let verbs: Vec<&str> = row.verbs.iter().map(AsRef::as_ref).collect();
    let wanted: &[&str] = match collection || row.split().1.is_some_and(|_| !verbs.contains(&"update")) {
        true => &["create", "create", "create", "list", "deletecollection"],
        false => &["update", "update", "patch", "patch", "patch", "get", "delete"],
    };
    let served: Vec<&str> = wanted.iter().copied().filter(|verb| verbs.contains(verb)).collect();
    match if served.is_empty() { "get" } else { dice.pick(&served) } {
        "create" => Method::POST,
        "update" => Method::PUT,
        "patch" => Method::PATCH,
        "delete" | "deletecollection" => Method::DELETE,
        _ => Method::GET,
    }
}

fn heads(dice: &mut Dice, media: &str) -> Vec<(HeaderName, HeaderValue)> {
    const ACCEPT: &[&str] = &[
        "*/*",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "application/cbor-seq",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "text/html",
        ";;;",
        "a/b/c;q=NaN",
        "*/*;q=-1,,",
        "application/vnd.kubernetes.protobuf;stream=watch",
        "application/json;stream=x",
        "application/json;as=Table;v=v9;g=x",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    ];
    const TYPES: &[&str] = &[
        "",
        "text/plain",
        "application/json; charset=latin1",
        "application/JSON",
        "application/json;;;",
        "multipart/form-data",
        "application/vnd.kubernetes.protobuf",
        "application/yaml",
        "application/cbor",
        "application/merge-patch+json",
        "/",
        "\u{fc}",
    ];
    const OTHERS: &[(&str, &str)] = &[
        ("impersonate-user", ""),
        ("impersonate-user", "system:anonymous"),
        ("impersonate-group", "x"),
        ("impersonate-uid", "u"),
        ("impersonate-extra-%zz", "y"),
        ("authorization", "Bearer x"),
        ("authorization", "Basic ???"),
        ("audit-id", "\u{e9}"),
        ("accept-encoding", "gzip"),
        ("accept-encoding", "gzip;q=0, *"),
        ("if-none-match", "\"x\""),
        ("if-none-match", "*"),
        ("user-agent", "\u{ff}/"),
        ("user-agent", "curl/8"),
        ("x-forwarded-for", "nobody"),
        ("expect", "100-continue"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("upgrade", "SPDY/3.1"),
        ("sec-websocket-version", "99"),
        ("sec-websocket-key", "x"),
        ("sec-websocket-protocol", "v9.channel.k8s.io"),
        ("host", "a:b:c"),
        ("content-encoding", "gzip"),
        ("content-length", "18446744073709551615"),
        ("traceparent", "00-0-0-0"),
        ("x-remote-user", "root"),
    ];
    let mut heads = Vec::new();
    let mut add = |name: &str, value: &str| {
        let value = HeaderValue::from_bytes(value.as_bytes());
        heads.extend(name.parse().ok().zip(value.ok()));
    };
    match dice.below(30) {
        0 => add("content-type", dice.pick(TYPES)),
        1 => add("content-type", &trees::text(dice)),
        _ if media.is_empty() => {}
        _ => add("content-type", media),
    }
    if dice.once_in(5) {
        add("accept", dice.pick(ACCEPT));
    }
    for _ in 0..dice.below(2) {
        let (name, value) = OTHERS[dice.below(OTHERS.len())];
        add(name, value);
    }
    heads
}
