//! Image names as people write them, and the one full form that registries and `kubectl` show.

use super::Digest;
use super::error::{Error, Result};
use std::fmt;

/// A full image name: `docker.io/library/nginx:latest`, `registry.k8s.io/pause@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Registry host, with its port if any.
    pub domain: String,
    /// Repository within the registry.
    pub path: String,
    /// Absent only if there is a digest.
    pub tag: Option<String>,
    /// Wins over the tag.
    pub digest: Option<Digest>,
}

const DEFAULT_DOMAIN: &str = "docker.io";
/// The longest repository name (domain and path) the distribution specification allows.
const MAX_NAME: usize = 255;

impl Reference {
    /// Parses and normalises: the registry defaults to docker.io (with `library/` for plain names), the tag to `latest`.
    pub fn parse(text: &str) -> Result<Reference> {
        let invalid = || Error::Reference(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok_or_else(invalid)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((domain, path)) if is_domain_like(domain) => (domain, path),
            _ => (DEFAULT_DOMAIN, name),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        let hex_only = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let good = is_domain(domain)
            && path.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && domain.len() + path.len() < MAX_NAME
            && !hex_only;
        if !good {
            return Err(invalid());
        }
        let tag = match (&digest, tag) {
            (None, None) => Some("latest".to_owned()),
            (_, tag) => tag.map(str::to_owned),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// Domain and path.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag form, shown under `repoTags`; nothing for a reference by digest.
    pub fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.repository())),
            _ => None,
        }
    }

    /// The digest form, shown under `repoDigests`.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository())
    }

    /// The host to talk to: Docker's registry does not live under its name.
    pub fn registry_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { &self.domain }
    }
}

impl fmt::Display for Reference {
    /// As containerd: the digest replaces the tag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "{}/{}@{digest}", self.domain, self.path),
            (None, tag) => write!(f, "{}/{}:{}", self.domain, self.path, tag.as_deref().unwrap_or("latest")),
        }
    }
}

/// Whether the first component names a registry rather than a part of the path.
fn is_domain_like(component: &str) -> bool {
    component.contains(['.', ':'])
        || component == "localhost"
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    if let Some(rest) = domain.strip_prefix('[') {
        // An IPv6 address, with or without a port.
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        alphanumeric(label.bytes().next())
            && alphanumeric(label.bytes().last())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Lower-case alphanumerics, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut any = false;
    for c in component.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                let joined = matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.chars().all(|c| c == '-');
                if !joined || (!any && !separator.is_empty()) {
                    return false;
                }
                separator.clear();
                any = true;
            }
            '.' | '_' | '-' => separator.push(c),
            _ => return false,
        }
    }
    any && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let check = |text: &str, full: &str| {
            let shown =
                Reference::parse(text).map_or("invalid".to_owned(), |reference| reference.to_string());
            assert_eq!(shown, full, "{text}");
        };
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.25", "docker.io/library/nginx:1.25");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("foo/bar", "docker.io/foo/bar:latest");
        check("localhost/x", "localhost/x:latest");
        check("localhost:5000/x:y", "localhost:5000/x:y");
        check("127.0.0.1:5000/a/b_c--d", "127.0.0.1:5000/a/b_c--d:latest");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check(&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"));
        check(&format!("nginx:1.25@{digest}"), &format!("docker.io/library/nginx@{digest}"));
        for bad in [
            "",
            ":",
            "Nginx",
            "nginx:",
            "nginx@",
            "nginx@sha256:00",
            "a//b",
            "../x",
            "a/../b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "x:/y",
            "host:99999/x",
            "a b",
            "x:.tag",
            &"a".repeat(300),
            &digest[7..],
        ] {
            check(bad, "invalid");
        }
    }
}
