//! Credentials by the place they are for, and which of them fit an image: globs in host names, prefixes of paths. Pure.
//! Upstream: `pkg/credentialprovider/keyring.go`.

use super::records::{PullAccount, PullSecret};
use cri::v1::AuthConfig;
use std::collections::BTreeMap;

const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Whose credentials they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// Every pod's of the node.
    #[default]
    Node,
    Secret(PullSecret),
    Account(PullAccount),
}

/// What may open a registry.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Credential {
    pub auth: AuthConfig,
    pub source: Source,
}

/// Credentials by host and path; those of one place in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Keyring(BTreeMap<String, Vec<Credential>>);

impl Keyring {
    /// Adds what a docker configuration says of a place, which may be an URL; what is none is nobody's.
    pub(crate) fn add(&mut self, location: &str, credential: Credential) {
        let bare = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
        let bare = bare.unwrap_or(location);
        if let Err(error) = Place::parse(bare) {
            tracing::error!(location, error, "Entry in dockercfg invalid, ignoring");
            return;
        }
        let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
        // Docker's clients take these for the host itself.
        let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
        let key = if path == "/" { host.to_owned() } else { format!("{host}{path}") };
        self.0.entry(key).or_default().push(credential);
    }

    /// Those for an image, the more specific place first.
    pub(crate) fn lookup(&self, image: &str) -> Vec<Credential> {
        let fitting = self.0.iter().rev().filter(|(key, _)| matches(key, image));
        let found: Vec<Credential> = fitting.flat_map(|(_, credentials)| credentials.clone()).collect();
        if found.is_empty() && is_of_default_registry(image) {
            return self.0.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

/// An image's name in full, without tag and digest.
pub(super) fn repository(image: &str) -> String {
    let image = super::verification::without_tag(image);
    match image.split_once('/') {
        None => format!("docker.io/library/{image}"),
        Some(("index.docker.io", rest)) => format!("docker.io/{rest}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
    }
}

fn is_of_default_registry(image: &str) -> bool {
    match image.split_once('/') {
        None => !image.is_empty(),
        Some(("docker.io" | "index.docker.io", _)) => true,
        Some((first, _)) => !first.is_empty() && !first.contains(['.', ':']),
    }
}

/// A host and a path, without a scheme.
struct Place<'a> {
    labels: Vec<&'a str>,
    port: &'a str,
    path: &'a str,
}

impl<'a> Place<'a> {
    /// Fails in the words of Go's `url.Parse`, which is what users know.
    fn parse(text: &'a str) -> Result<Self, String> {
        let failed = |why: String| Err(format!("parse {:?}: {why}", format!("https://{text}")));
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        if let Some(strange) =
            host.chars().find(|c| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '{' | '}' | '\\' | '^'))
        {
            return failed(format!("invalid character {:?} in host name", strange.to_string()));
        }
        if let Some(at) = host.find('%') {
            return failed(format!(
                "invalid URL escape {:?}",
                host[at..].chars().take(3).collect::<String>()
            ));
        }
        let colon = host.rfind(':').filter(|colon| !host[*colon..].contains(']'));
        let (name, port) = host.split_at(colon.unwrap_or(host.len()));
        let digits = port.strip_prefix(':').unwrap_or_default();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return failed(format!("invalid port {port:?} after host"));
        }
        Ok(Place { labels: name.split('.').collect(), port: digits, path })
    }
}

/// Whether `text` would be refused as a pattern, and why.
pub(super) fn check_pattern(text: &str) -> Result<(), String> {
    Place::parse(text).map(drop)
}

/// Whether an image is beneath a place whose host may have globs, each of them within one label.
pub(super) fn matches(pattern: &str, image: &str) -> bool {
    let (Ok(pattern), Ok(image)) = (Place::parse(pattern), Place::parse(image)) else { return false };
    pattern.port == image.port
        && pattern.labels.len() == image.labels.len()
        && image.path.starts_with(pattern.path)
        && pattern
            .labels
            .iter()
            .zip(&image.labels)
            .all(|(glob, label)| fits(glob.as_bytes(), label.as_bytes()))
}

/// `*`, `?` and classes, as Go's `filepath.Match`; what is malformed fits nothing.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| fits(rest, &text[skipped..])),
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, text)| fits(rest, text)),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (class, negated) = match rest[..end].strip_prefix(b"^") {
                Some(class) => (class, true),
                None => (&rest[..end], false),
            };
            text.split_first().is_some_and(|(byte, text)| {
                !class.is_empty() && within(class, *byte) != negated && fits(&rest[end + 1..], text)
            })
        }
        Some((byte, rest)) => {
            text.split_first().is_some_and(|(first, text)| first == byte && fits(rest, text))
        }
    }
}

fn within(class: &[u8], byte: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || within(rest, byte),
        [one, rest @ ..] => *one == byte || within(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, image, want) in [
            ("*.docker.io", "blah.docker.io", true),
            ("*.docker.io", "not.right.io", false),
            ("*.io", "a.k8s.io", false),
            ("app*.k8s.io", "app7.k8s.io/x", true),
            ("k8s.*", "k8s.gcr/x", true),
            ("*.*.registry.io", "a.b.registry.io/x", true),
            ("registry.io:8080/path", "registry.io:8080/path/x", true),
            ("registry.io:8080/path", "registry.io/path/x", false),
            ("registry.io", "registry.io:5000/x", false),
            ("r[a-c]g.io", "rbg.io/x", true),
            ("r[^a-c]g.io", "rbg.io/x", false),
            ("r[.io", "r[.io/x", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/crew/argo", true),
        ] {
            assert_eq!(matches(pattern, image), want, "{pattern} {image}");
        }
        for bad in ["a.io:x", "%foo.io", "a b.io"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
        let port = check_pattern("a.io:x").unwrap_err();
        assert_eq!(port, r#"parse "https://a.io:x": invalid port ":x" after host"#);
    }

    #[test]
    fn the_more_specific_place_first() {
        let mut keyring = Keyring::default();
        let named = |name: &str| Credential {
            auth: AuthConfig { username: name.into(), ..Default::default() },
            ..Default::default()
        };
        for (place, name) in [
            ("quay.io", "host"),
            ("https://quay.io/coreos", "path"),
            ("http://quay.io/v2/", "versioned"),
            ("https://index.docker.io/v1/", "hub"),
            ("a b", "nobody"),
            ("*.gcr.io", "glob"),
        ] {
            keyring.add(place, named(name));
        }
        let found = |image: &str| {
            let names = keyring.lookup(&repository(image)).into_iter().map(|found| found.auth.username);
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("quay.io/coreos/etcd:v3"), "path host versioned");
        assert_eq!(found("quay.io/other"), "host versioned");
        assert_eq!([found("nginx"), found("docker.io/x/y@sha256:0"), found("x/y:1")], ["hub"; 3]);
        assert_eq!([found("eu.gcr.io/x"), found("ghcr.io/x")], ["glob", ""]);
    }
}
