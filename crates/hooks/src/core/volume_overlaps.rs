//! Files of one volume that lie upon each other. Upstream: `warningsForOverlappingVirtualPaths`.

use crate::tree::{list, text};
use apimachinery::quote::quote;
use apimachinery::value::Value;
use std::fmt;

/// A file, and what it comes from where that may differ within a volume.
#[derive(Clone, PartialEq, Eq)]
struct File {
    path: String,
    source: String,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.path))?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

fn items(source: &Value, of: &str) -> Vec<File> {
    let file = |item: &Value| File { path: text(item, &["path"]).to_owned(), source: of.to_owned() };
    list(source, &["items"]).iter().map(file).collect()
}

/// Pairs of which one is the other, or lies in it.
fn collisions(files: Vec<File>, known: &mut Vec<File>) -> Vec<String> {
    let mut found = Vec::new();
    let within =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    for mut file in files {
        file.path.truncate(file.path.trim_end_matches('/').len());
        let hit = |other: &&File| {
            !file.path.is_empty()
                && !other.path.is_empty()
                && (within(&file.path, &other.path) || within(&other.path, &file.path))
        };
        found.extend(known.iter().filter(hit).map(|other| format!("{file} with {other}")));
        known.push(file);
    }
    found
}

/// What a source of a projected volume makes.
fn projected(source: &Value) -> Vec<File> {
    let named = |part: &Value, kind: &str, member: &str| format!("{kind} {}", quote(text(part, &[member])));
    let one =
        |part: &Value, member: &str, source: String| File { path: text(part, &[member]).to_owned(), source };
    if let Some(part) = source.get("configMap") {
        items(part, &named(part, "ConfigMap", "name"))
    } else if let Some(part) = source.get("secret") {
        items(part, &named(part, "Secret", "name"))
    } else if let Some(part) = source.get("downwardAPI") {
        items(part, "DownwardAPI")
    } else if let Some(part) = source.get("serviceAccountToken") {
        vec![one(part, "path", "ServiceAccountToken".into())]
    } else if let Some(part) = source.get("clusterTrustBundle") {
        let member = if part["name"].is_null() { "signerName" } else { "name" };
        vec![one(part, "path", named(part, "ClusterTrustBundle", member))]
    } else if let Some(part) = source.get("podCertificate") {
        let files = [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ];
        let files = files.into_iter().map(|(member, of)| one(part, member, of.into()));
        files.filter(|file| !file.path.is_empty()).collect()
    } else {
        Vec::new()
    }
}

pub(super) fn overlaps(volumes: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for volume in volumes {
        let name = || quote(text(volume, &["name"]));
        let mut tell = |of: &dyn Fn() -> String, pairs: Vec<String>| {
            let told = |pair| format!("volume {} ({}): overlapping paths: {pair}", name(), of());
            found.extend(pairs.into_iter().map(told));
        };
        for (member, kind, key) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
            let source = &volume[member];
            let of = || format!("{kind} {}", quote(text(source, &[key])));
            tell(&of, collisions(items(source, ""), &mut Vec::new()));
        }
        let of = || "DownwardAPI".to_owned();
        tell(&of, collisions(items(&volume["downwardAPI"], ""), &mut Vec::new()));
        let mut known = Vec::new();
        for source in list(volume, &["projected", "sources"]) {
            if source.as_object().is_none_or(apimachinery::value::Map::is_empty) {
                found.push(format!("volume {} (Projected) has no sources provided", name()));
                continue;
            }
            let pairs = collisions(projected(source), &mut known);
            let told = |pair| format!("volume {} (Projected): overlapping paths: {pair}", name());
            found.extend(pairs.into_iter().map(told));
        }
    }
    found
}
