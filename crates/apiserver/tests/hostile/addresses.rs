//! Paths and queries: of what is served, and beside it.

use crate::dice::Dice;
use crate::trees;
use apiserver::resources::{Served, Shared};
use schema::ResourceRow;
use std::fmt::Write as _;

/// The path of a resource, an object or a subresource, with the row of what is there.
pub fn path(dice: &mut Dice, resource: &Served, name: &str) -> (String, Shared<ResourceRow>) {
    let mut row = resource.row.clone();
    let mut path = match row.group.is_empty() {
        true => format!("/api/{}", row.version),
        false => format!("/apis/{}/{}", row.group, row.version),
    };
    if dice.once_in(40) {
        path.push_str("/watch");
    }
    if row.namespaced && !dice.once_in(12) {
        path.push_str("/namespaces/");
        path.push_str(&segment(dice, "hostile"));
    }
    let _ = write!(path, "/{}", row.resource);
    if dice.once_in(3) {
        return (path, row);
    }
    path.push('/');
    path.push_str(&segment(dice, name));
    let mut subresources: Vec<&str> = resource.subresources.keys().map(String::as_str).collect();
    subresources.sort_unstable();
    if !subresources.is_empty() && dice.once_in(4) {
        let subresource = dice.pick(&subresources);
        row = resource.subresources[subresource].clone();
        let _ = write!(path, "/{}", segment(dice, subresource));
        if dice.once_in(4) {
            let _ = write!(path, "/{}", segment(dice, "more"));
        }
    }
    (path, row)
}

/// Mostly the word; what else may stand between two slashes otherwise.
fn segment(dice: &mut Dice, word: &str) -> String {
    match dice.below(40) {
        0 => escaped(&trees::text(dice)),
        1 => (*dice
            .pick(&["..", ".", "%2e%2e", "%2f", "%00", "%zz", "%", "a%2fb", "%c3%28", "UPPER", "-", "a b"]))
        .replace(' ', "%20"),
        2 => "x".repeat(dice.below(4_000)),
        _ => word.to_owned(),
    }
}

/// Documents, and paths that nobody has heard of.
pub fn document(dice: &mut Dice) -> String {
    const PATHS: &[&str] = &[
        "/",
        "/api",
        "/api/",
        "/api/v1",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/apis/apps/v9",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/openapi/v3/apis/apps/v1",
        "/openapi/v3/nothing",
        "/version",
        "/version/",
        "/healthz",
        "/livez",
        "/readyz",
        "/readyz/ping",
        "/readyz/nothing",
        "/metrics",
        "//",
        "///api///v1//",
        "/api/v1/..",
        "/api/%2e%2e/v1",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/logs",
        "/debug/pprof",
        "/api/v1/namespaces//pods",
        "/apis/apps/v1/namespaces/a/deployments/b/scale/c/d",
        "/api/v1/watch",
        "/api/v1/watch/",
        "/swagger.json",
        "/index.html",
    ];
    let mut path = dice.pick(PATHS).to_owned();
    if dice.once_in(5) {
        let _ = write!(path, "/{}", escaped(&trees::text(dice)));
    }
    path
}

/// A query, without the question mark.
pub fn query(dice: &mut Dice) -> String {
    let terms: Vec<String> = (0..dice.below(3)).map(|_| term(dice)).collect();
    terms.join("&")
}

fn term(dice: &mut Dice) -> String {
    const LABELS: &[&str] = &[
        "app=web",
        "app in (a,b),!x",
        "app notin (",
        "a=b=c",
        "!",
        ",,",
        "x>5",
        "x<a",
        "a in ()",
        "=",
        "app==,b!=c",
        "é=ü",
    ];
    const FIELDS: &[&str] = &[
        "metadata.name=a",
        "metadata.namespace!=b",
        "spec.nodeName=",
        "status.phase=Running,status.phase!=x",
        "x.y=1",
        "a\\,b=c",
        "=",
        "metadata.name=..",
        "spec.unschedulable=true",
        "\\",
    ];
    const REVISIONS: &[&str] = &["", "0", "1", "-1", "x", "18446744073709551616", "1e3", "00", "2"];
    const TOKENS: &[&str] = &[
        "",
        "x",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi8uLiJ9",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjIifQ",
        "====",
        "e30",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhIn0",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTkyMjMzNzIwMzY4NTQ3NzU4MDgsInN0YXJ0IjoiYSJ9",
    ];
    let of: &[(&str, &[&str])] = &[
        ("labelSelector", LABELS),
        ("fieldSelector", FIELDS),
        ("resourceVersion", REVISIONS),
        ("resourceVersionMatch", &["Exact", "NotOlderThan", "x", ""]),
        ("continue", TOKENS),
        ("limit", &["0", "1", "-1", "9223372036854775807", "9223372036854775808", "x"]),
        ("watch", &["1", "true", "0", "x"]),
        ("allowWatchBookmarks", &["true", "x"]),
        ("sendInitialEvents", &["true", "false", "x"]),
        ("timeoutSeconds", &["0", "1", "-1", "x", "99999999999"]),
        ("timeout", &["1s", "-1s", "0", "x", "1e9h", "5ns"]),
        ("dryRun", &["All", "x", "", "All,All"]),
        ("fieldManager", &["m", "", "a\u{1}b"]),
        ("fieldValidation", &["Strict", "Warn", "Ignore", "x"]),
        ("force", &["true", "x"]),
        ("pretty", &["true", "1", "x"]),
        ("includeObject", &["None", "Object", "Metadata", "x"]),
        ("gracePeriodSeconds", &["0", "-1", "x", "99999999999999999999"]),
        ("propagationPolicy", &["Foreground", "Orphan", "Background", "x"]),
        ("orphanDependents", &["true", "x"]),
        ("preconditions", &["x"]),
        ("command", &["", "sh"]),
        ("follow", &["true"]),
        ("tailLines", &["-1", "x", "0"]),
        ("ports", &["x", "0", "99999"]),
        ("path", &["..", "/", "%"]),
    ];
    let (name, values) = of[dice.below(of.len())];
    let value = if dice.once_in(6) { trees::text(dice) } else { dice.pick(values).to_owned() };
    match dice.below(20) {
        0 => name.to_owned(),
        1 => format!("{name}={value}%zz;%").replace(|c: char| !c.is_ascii_graphic(), "%ff"),
        _ => format!("{name}={}", escaped(&value)),
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte as char),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}
