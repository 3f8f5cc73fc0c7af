//! Short texts: selectors, quantities, times, tokens, queries.

use apimachinery::fields;
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::meta::query::Query;
use apimachinery::quantity::Quantity;
use apimachinery::time::{Duration, MicroTime, Time};
use apiserver::cache::Continue;
use apiserver::request::RequestInfo;
use schema::custom::JsonPath;
use std::collections::BTreeMap;

pub(crate) const LABELS: &[&str] =
    &["a=b,c!=d", "a in (x,y),b notin (z),!c,d", "a>1,b<2", "a==b", " a in ( ) ", "x/y=z,,"];
pub(crate) const FIELDS: &[&str] = &["metadata.name=a", "a!=b\\,c,d==e\\=f", "\\\\=\\", "=,="];
pub(crate) const QUANTITIES: &[&str] =
    &["1", "-1.5Gi", "100m", "1e3", "1E-9", "0.0000000001", "9223372036854775807", "+.5Ki", "1n"];
pub(crate) const TIMES: &[&str] = &[
    "2024-02-29T23:59:60.123456789+23:59",
    "2030-01-02T03:04:05Z",
    "1h2m3.5s",
    "-1ns",
    "9999-12-31T24:00:00Z",
];
pub(crate) const TOKENS: &[&str] = &[
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhIn0=",
];
pub(crate) const QUERIES: &[&str] = &[
    "/api/v1/namespaces/a/pods/b/log?labelSelector=a%3Db&limit=5&watch=1&fieldSelector=metadata.name%3Dx",
    "/apis/apps/v1/watch/deployments?timeoutSeconds=1&dryRun=All&force=x;y=%zz&&=",
];
pub(crate) const PATHS: &[&str] =
    &[".spec.a", "{.a[0].b}", ".a[?(@.b==\"c\")].d", "..x", ".a['b.c']", "$.a[*]"];

/// Runs with the text of some bytes.
fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

pub(crate) fn labels(data: &[u8]) {
    if let Ok(selector) = Selector::parse(&text(data)) {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let again = Selector::parse(&selector.to_string());
        assert_eq!(again.map(|s| s.matches(&labels)).ok(), Some(selector.matches(&labels)), "{selector}");
    }
}

pub(crate) fn fields(data: &[u8]) {
    if let Ok(selector) = fields::Selector::parse(&text(data)) {
        let _ = selector.matches(|_| "a");
        assert!(fields::Selector::parse(&selector.to_string()).is_ok(), "{selector}");
    }
}

pub(crate) fn quantity(data: &[u8]) {
    if let Ok(quantity) = text(data).parse::<Quantity>() {
        let (_, _) = (quantity.value(), quantity.milli_value());
        let written = quantity.to_string();
        let again = written.parse::<Quantity>();
        assert_eq!(again.map(|q| q.to_string()).ok(), Some(written));
    }
}

pub(crate) fn time(data: &[u8]) {
    let text = text(data);
    if let Ok(time) = text.parse::<Time>() {
        let _ = (time.to_string(), time.timestamp());
    }
    if let Ok(time) = text.parse::<MicroTime>() {
        let _ = time.to_string();
    }
    if let Ok(duration) = text.parse::<Duration>() {
        let written = duration.to_string();
        assert_eq!(written.parse::<Duration>().map(|d| d.to_string()).ok(), Some(written));
    }
}

pub(crate) fn continue_token(data: &[u8]) {
    if let Ok(token) = Continue::parse(&text(data)) {
        assert_eq!(Continue::parse(&token.encode()).ok(), Some(token));
    }
}

pub(crate) fn query(data: &[u8]) {
    let text = text(data);
    let query = Query::parse(text.split_once('?').map_or(&*text, |(_, query)| query));
    let _ = (query.list_options(), query.patch_options(), query.create_options());
    if let Ok(uri) = text.parse() {
        let _ = RequestInfo::parse(&http::Method::GET, &uri);
    }
}

pub(crate) fn json_path(data: &[u8]) {
    if let Some(path) = JsonPath::parse(&text(data)) {
        let _ = path.find(&json!({"a": [{"b": "c", "d": 1}], "spec": {"a": {"b.c": null}}}));
    }
}
