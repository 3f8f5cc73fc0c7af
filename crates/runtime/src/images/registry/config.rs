//! `registries.yaml`: mirrors for registries, and credentials and certificates for hosts. The shape is k3s':
//! `mirrors: {docker.io: {endpoint: [url, …]}}` and `configs: {host: {auth: {…}, tls: {…}}}`; `*` stands for any registry.
//! Hosts on loopback speak plain HTTP unless an endpoint says otherwise.

use super::super::Reference;
use super::super::error::{Error, Result};
use super::auth::Credentials;
use http::Uri;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesFile {
    /// By the registry in an image's name.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host and port, as in an endpoint.
    pub configs: BTreeMap<String, HostConfig>,
}

/// Where else to look for a registry's images.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// Asked in this order, before the registry itself.
    pub endpoint: Vec<String>,
}

/// How to talk to a host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Used unless the pod brings its own.
    pub auth: Option<Credentials>,
    /// Certificates.
    pub tls: Option<TlsFiles>,
}

/// Certificates for a host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// Trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Ours.
    pub cert_file: Option<PathBuf>,
    /// Ours.
    pub key_file: Option<PathBuf>,
    /// Trust anyone.
    pub insecure_skip_verify: bool,
}

/// A place that may have an image.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Without `/v2`.
    pub(crate) base: Uri,
    pub(crate) mirror: bool,
    pub(crate) config: HostConfig,
}

impl Endpoint {
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.config.auth.clone()
    }
}

impl RegistriesFile {
    /// Reads the file; an absent one is empty.
    pub fn load(path: &Path) -> Result<RegistriesFile> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(RegistriesFile::default());
            }
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        RegistriesFile::parse(&text).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
    }

    /// Parses the file and checks its endpoints.
    pub fn parse(text: &str) -> std::result::Result<RegistriesFile, String> {
        if text.trim().is_empty() {
            return Ok(RegistriesFile::default());
        }
        let file: RegistriesFile = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        for endpoint in file.mirrors.values().flat_map(|mirror| &mirror.endpoint) {
            base(endpoint).ok_or_else(|| format!("invalid endpoint {endpoint:?}"))?;
        }
        Ok(file)
    }

    /// The places to ask for an image, in order.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(&reference.domain).or_else(|| self.mirrors.get("*"));
        let urls = mirror.map_or(&[][..], |mirror| &mirror.endpoint);
        let mut endpoints: Vec<Endpoint> = urls.iter().filter_map(|url| self.endpoint(url, true)).collect();
        let host = reference.registry_host();
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let own = self.endpoint(&format!("{scheme}://{host}"), false);
        // A mirror that is the registry itself (to say `http://`) is not asked again.
        let same = |endpoint: &Endpoint| endpoint.base.authority().map(|a| a.as_str()) == Some(host);
        match endpoints.iter_mut().find(|endpoint| same(endpoint)) {
            Some(endpoint) => endpoint.mirror = false,
            None => endpoints.extend(own),
        }
        endpoints
    }

    fn endpoint(&self, url: &str, mirror: bool) -> Option<Endpoint> {
        let base = base(url)?;
        let host = base.authority()?.as_str();
        let config = self.configs.get(host).or_else(|| match host {
            "registry-1.docker.io" => self.configs.get("docker.io"),
            _ => None,
        });
        let config = config.cloned().unwrap_or_default();
        Some(Endpoint { base, mirror, config })
    }
}

fn base(url: &str) -> Option<Uri> {
    let url = url.trim_end_matches('/');
    let uri: Uri = url.strip_suffix("/v2").unwrap_or(url).parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()).then_some(uri)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first() {
        let file = "
mirrors:
  docker.io: {endpoint: ['https://mirror.example/proxy/v2/', 'http://127.0.0.1:5000']}
  plain.example: {endpoint: ['http://plain.example']}
configs:
  mirror.example: {auth: {username: u, password: p}, tls: {insecure_skip_verify: true}}
";
        let file = RegistriesFile::parse(file).unwrap();
        let check = |name: &str, expected: &[&str]| {
            let endpoints = file.endpoints(&Reference::parse(name).unwrap());
            let shown: Vec<String> = endpoints.iter().map(|e| format!("{} {}", e.base, e.mirror)).collect();
            assert_eq!(shown, expected, "{name}");
        };
        check(
            "nginx",
            &[
                "https://mirror.example/proxy true",
                "http://127.0.0.1:5000/ true",
                "https://registry-1.docker.io/ false",
            ],
        );
        check("plain.example/x", &["http://plain.example/ false"]);
        check("localhost:5000/x", &["http://localhost:5000/ false"]);
        check("[::1]:5000/x", &["http://[::1]:5000/ false"]);
        check("quay.io/x", &["https://quay.io/ false"]);
        assert!(RegistriesFile::parse("mirrors: {x: {endpoint: ['ftp://x']}}").is_err());
        assert!(RegistriesFile::parse("miror: {}").is_err());
    }
}
