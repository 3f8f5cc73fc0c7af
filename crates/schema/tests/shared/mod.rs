//! Reference data beside the project; tests that need it pass over, with the reason printed, where it is absent.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::PathBuf;

/// Beside the checkout, as CONTRIBUTING.md says.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");

/// A file of the reference data.
pub fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TIPHYS_REFERENCE_DATA").map_or_else(|| PathBuf::from(DATA), PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent", path.display());
    println!("passed over: {} is absent (TIPHYS_REFERENCE_DATA names its root)", path.display());
    None
}

pub fn text(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(data(path)?).unwrap())
}

/// One object in three encodings.
pub struct Vector {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    path: PathBuf,
}

impl Vector {
    pub fn read(&self, extension: &str) -> String {
        std::fs::read_to_string(self.file(extension)).unwrap()
    }

    pub fn file(&self, extension: &str) -> PathBuf {
        PathBuf::from(format!("{}.{extension}", self.path.display()))
    }
}

pub fn vectors() -> Option<Vec<Vector>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(data("testdata")?).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let path = path.with_extension("");
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut parts = name.rsplitn(3, '.');
        let kind = parts.next().unwrap().to_owned();
        let version = parts.next().unwrap().to_owned();
        let group = match parts.next().unwrap() {
            "core" => String::new(),
            group => group.to_owned(),
        };
        out.push(Vector { name: name.clone(), group, version, kind, path });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Some(out)
}

/// JSON text without white space between its parts.
pub fn compact(text: &str) -> String {
    let (mut out, mut string, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        if string || !c.is_ascii_whitespace() {
            out.push(c);
        }
        if escaped {
            escaped = false;
        } else if string && c == '\\' {
            escaped = true;
        } else if c == '"' {
            string = !string;
        }
    }
    out
}

/// Notes where two texts part.
pub fn same(failures: &mut Vec<String>, name: &str, got: &str, want: &str) {
    if got == want {
        return;
    }
    let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count();
    let cut = |s: &str| {
        String::from_utf8_lossy(&s.as_bytes()[at.saturating_sub(60)..(at + 60).min(s.len())]).into_owned()
    };
    failures.push(format!("{name}:\n  got  {}\n  want {}", cut(got), cut(want)));
}
