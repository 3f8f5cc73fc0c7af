//! The layers of the house: every dependency between our crates is allowed by `layers.toml`, and none leads upwards.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Room {
    layer: u8,
    why: String,
    may_see: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of all dependencies of a manifest, of every kind but `dev-dependencies`.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

#[test]
fn dependencies_follow_the_layers() {
    let rooms: BTreeMap<String, Room> =
        toml::from_str(&std::fs::read_to_string(root().join("layers.toml")).unwrap()).unwrap();
    let mut manifests: Vec<PathBuf> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|d| d.unwrap().path().join("Cargo.toml"))
        .collect();
    manifests.extend(["bench", "fuzz", "tests", "xtask"].map(|d| root().join(d).join("Cargo.toml")));
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in manifests {
        let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let Some(room) = rooms.get(&name) else {
            wrong.push(format!("{name} does not stand in layers.toml"));
            continue;
        };
        if room.why.is_empty() {
            wrong.push(format!("{name} has no why"));
        }
        for dependency in dependencies(&manifest).iter().filter(|d| rooms.contains_key(*d)) {
            if !room.may_see.iter().any(|allowed| allowed == dependency || allowed == "*") {
                wrong.push(format!("{name} may not see {dependency}"));
            }
            if rooms[dependency].layer > room.layer {
                wrong.push(format!("{name} sees {dependency}, which is above it"));
            }
        }
        seen.insert(name);
    }
    wrong.extend(
        rooms
            .keys()
            .filter(|n| !seen.contains(*n))
            .map(|n| format!("{n} stands in layers.toml but is no crate")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
