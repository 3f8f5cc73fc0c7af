//! The file: upstream's EgressSelectorConfiguration, read strictly and judged in upstream's words.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which connections go which way.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub(super) egress_selections: Vec<Selection>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Selection {
    #[serde(default)]
    pub name: String,
    pub connection: Connection,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Connection {
    #[serde(default)]
    pub proxy_protocol: String,
    pub transport: Option<Transport>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Transport {
    pub tcp: Option<Tcp>,
    pub uds: Option<Uds>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tcp {
    #[serde(default)]
    pub url: String,
    pub tls_config: Option<Tls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Uds {
    #[serde(default)]
    pub uds_name: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Tls {
    pub ca_bundle: PathBuf,
    pub client_key: PathBuf,
    pub client_cert: PathBuf,
    #[serde(rename = "tlsServerName")]
    pub server_name: String,
}

const NAMES: [&str; 3] = ["cluster", "controlplane", "etcd"];

impl Configuration {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tree = schema::decode::free_yaml(text, schema::decode::FieldValidation::Strict)
            .map_err(|error| error.to_string())?;
        if let Some(first) = tree.strict.first() {
            return Err(first.clone());
        }
        let this: Self = apimachinery::value::from_value(tree.value).map_err(|error| error.to_string())?;
        let known = ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1"];
        if !known.contains(&this.api_version.as_str()) || this.kind != "EgressSelectorConfiguration" {
            let (kind, version) = (&this.kind, &this.api_version);
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let errors = this.errors();
        if errors.is_empty() { Ok(this) } else { Err(errors.join(", ")) }
    }

    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for Selection { connection, .. } in &self.egress_selections {
            match (connection.proxy_protocol.as_str(), &connection.transport) {
                ("Direct", None) => {}
                ("Direct", Some(_)) => errors.push(
                    "service.connection.transport: Invalid value: \"direct\": config must be absent for direct connect"
                        .to_owned(),
                ),
                ("HTTPConnect", Some(transport)) => errors.extend(transport.errors()),
                ("HTTPConnect", None) => errors.push(
                    "service.connection.transport: Required value: transport must be set for HTTPConnect".to_owned(),
                ),
                ("GRPC", Some(Transport { uds: Some(uds), .. })) => errors.extend(uds.errors()),
                ("GRPC", Some(_)) => errors
                    .push("service.connection.uds: Required value: UDS must be set with GRPC".to_owned()),
                ("GRPC", None) => errors.push(
                    "service.connection.transport: Required value: transport must be set for GRPC".to_owned(),
                ),
                (other, _) => errors.push(format!(
                    "service.connection.protocol: Unsupported value: {other:?}: supported values: \"Direct\", \"HTTPConnect\", \"GRPC\""
                )),
            }
        }
        let mut seen = BTreeSet::new();
        for (index, selection) in self.egress_selections.iter().enumerate() {
            let name = selection.name.to_lowercase();
            if !seen.insert(name.clone()) {
                errors.push(format!("service.connection[{index}]: Duplicate value: {name:?}"));
            } else if !NAMES.contains(&name.as_str()) {
                errors.push(format!(
                    "service.connection: Unsupported value: {name:?}: supported values: \"cluster\", \"controlplane\", \"etcd\""
                ));
            }
        }
        errors
    }
}

impl Transport {
    fn errors(&self) -> Vec<String> {
        let one = |text: &str| vec![format!("service.connection.{text}")];
        match (&self.tcp, &self.uds) {
            (Some(tcp), Some(_)) => {
                one(&format!("tcp: Invalid value: {:?}: TCP and UDS cannot both be set", tcp.url))
            }
            (None, None) => one("tcp: Required value: One of TCP or UDS must be set"),
            (Some(tcp), None) => tcp.errors(),
            (None, Some(uds)) => uds.errors(),
        }
    }
}

impl Uds {
    fn errors(&self) -> Vec<String> {
        match self.uds_name.as_os_str().is_empty() {
            true => vec![
                "service.connection.udsName: Invalid value: \"nil\": must be present for UDS connections"
                    .to_owned(),
            ],
            false => Vec::new(),
        }
    }
}

impl Tcp {
    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut push = |text: String| errors.push(format!("service.connection.{text}"));
        match (self.url.split_once("://"), &self.tls_config) {
            (Some(("http", _)), None) => {}
            (Some(("http", _)), Some(_)) => {
                push("tlsConfig: Invalid value: \"nil\": config must not be present when using HTTP".into());
            }
            (Some(("https", _)), None) => {
                push("tlsConfig: Required value: TLSConfig must be present when using HTTPS".into());
            }
            (Some(("https", _)), Some(tls)) => {
                let empty = |path: &Path| path.as_os_str().is_empty();
                if !empty(&tls.ca_bundle) && !tls.ca_bundle.exists() {
                    let bundle = tls.ca_bundle.display();
                    push(format!(
                        "tlsConfig.caBundle: Invalid value: \"{bundle}\": TLS config ca bundle does not exist"
                    ));
                }
                for (path, field, none, gone) in [
                    (
                        &tls.client_cert,
                        "clientCert",
                        "Using TLS requires clientCert",
                        "TLS client cert does not exist",
                    ),
                    (
                        &tls.client_key,
                        "clientKey",
                        "Using TLS requires requires clientKey",
                        "TLS client key does not exist",
                    ),
                ] {
                    if empty(path) {
                        push(format!("tlsConfig.{field}: Invalid value: \"nil\": {none}"));
                    } else if !path.exists() {
                        push(format!("tlsConfig.{field}: Invalid value: \"{}\": {gone}", path.display()));
                    }
                }
            }
            _ => push(format!(
                "url: Invalid value: {:?}: supported connection protocols are http:// and https://",
                self.url
            )),
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(selections: &str, expected: Expect) {
        let head =
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n";
        let said = match Configuration::parse(&format!("{head}{selections}")) {
            Ok(configuration) => format!("{} selections", configuration.egress_selections.len()),
            Err(why) => why,
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let proxied = |name: &str, transport: &str| {
            format!(
                "- {{name: {name}, connection: {{proxyProtocol: HTTPConnect, transport: {transport}}}}}\n"
            )
        };
        check("- {name: etcd, connection: {proxyProtocol: Direct}}\n", expect!["1 selections"]);
        check(&proxied("Cluster", "{uds: {udsName: /run/proxy}}"), expect!["1 selections"]);
        check(
            &proxied("cluster", "{}"),
            expect!["service.connection.tcp: Required value: One of TCP or UDS must be set"],
        );
        check(
            &proxied("node", "{tcp: {url: 'ftp://x'}}"),
            expect![[
                r#"service.connection.url: Invalid value: "ftp://x": supported connection protocols are http:// and https://, service.connection: Unsupported value: "node": supported values: "cluster", "controlplane", "etcd""#
            ]],
        );
        check(
            &proxied(
                "cluster",
                "{tcp: {url: 'https://x', tlsConfig: {clientCert: /nonesuch, tlsServerName: proxy.example}}}",
            ),
            expect![[
                r#"service.connection.tlsConfig.clientCert: Invalid value: "/nonesuch": TLS client cert does not exist, service.connection.tlsConfig.clientKey: Invalid value: "nil": Using TLS requires requires clientKey"#
            ]],
        );
        let grpc = |transport: &str| {
            format!("- {{name: cluster, connection: {{proxyProtocol: GRPC{transport}}}}}\n")
        };
        check(&grpc(", transport: {uds: {udsName: /run/proxy}}"), expect!["1 selections"]);
        check(
            &grpc(", transport: {tcp: {url: 'http://x'}}"),
            expect!["service.connection.uds: Required value: UDS must be set with GRPC"],
        );
        check(
            &grpc(", transport: {uds: {}}"),
            expect![[
                r#"service.connection.udsName: Invalid value: "nil": must be present for UDS connections"#
            ]],
        );
        check(
            &grpc(""),
            expect!["service.connection.transport: Required value: transport must be set for GRPC"],
        );
        check(
            "- {name: etcd, connection: {proxyProtocol: SOCKS}}\n",
            expect![[
                r#"service.connection.protocol: Unsupported value: "SOCKS": supported values: "Direct", "HTTPConnect", "GRPC""#
            ]],
        );
        let twice = format!("{0}{0}", proxied("etcd", "{uds: {udsName: /run/proxy}}"));
        check(&twice, expect![[r#"service.connection[1]: Duplicate value: "etcd""#]]);
        check(
            "- {name: etcd, connection: {proxyProtocol: Direct}, more: 1}\n",
            expect!["unknown field `more`, expected `name` or `connection`"],
        );
    }
}
