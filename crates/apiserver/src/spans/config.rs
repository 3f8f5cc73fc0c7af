//! The file: upstream's TracingConfiguration, read strictly and judged in upstream's words.

use serde::Deserialize;

const VERSIONS: [&str; 5] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
    "apiserver.k8s.io/v1beta1",
    "apiserver.k8s.io/v1alpha1",
];
/// OTLP's own.
const ENDPOINT: &str = "localhost:4317";
const MILLION: i32 = 1_000_000;

/// Where spans go, and which.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(String, u16),
    /// A socket's path, or its abstract name after a zero byte.
    Unix(String),
}

impl Configuration {
    /// Whether it is one, and one that can be followed.
    pub fn check(&self) -> Result<(), String> {
        if !VERSIONS.contains(&self.api_version.as_str()) || self.kind != "TracingConfiguration" {
            return Err(format!(
                "failed to read tracing config: unable to decode tracing configuration data: no kind {:?} is registered for version {:?}",
                self.kind, self.api_version
            ));
        }
        let rate = self.sampling_rate_per_million.unwrap_or(0);
        let why = match rate {
            ..0 => Some("sampling rate must be positive"),
            0..=MILLION => None,
            _ => Some("sampling rate per million must be less than or equal to one million"),
        };
        let why = why.map(|why| format!("samplingRatePerMillion: Invalid value: {rate}: {why}"));
        let why = why.or_else(|| self.endpoint().err());
        why.map_or(Ok(()), |why| Err(format!("failed to validate tracing configuration: {why}")))
    }

    /// How many of a million traces that begin here are told of.
    pub(super) fn rate(&self) -> u64 {
        self.sampling_rate_per_million.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, String> {
        let given = self.endpoint.as_deref().unwrap_or(ENDPOINT);
        let wrong = |why: &str| format!("endpoint: Invalid value: {given:?}: {why}");
        let (scheme, rest) = given.split_once("//").map_or(("dns:", given), |(scheme, rest)| {
            // After an authority, which names a resolver, stands what is meant.
            let rest =
                if scheme == "dns:" { rest.split_once('/').map_or(rest, |(_, rest)| rest) } else { rest };
            (scheme, rest)
        });
        match scheme.trim_end_matches(':') {
            "dns" => {
                let (host, port) = match rest.rsplit_once(':') {
                    Some((host, port)) if !host.ends_with(':') => (host, port),
                    _ => (rest, "443"),
                };
                let host = host.trim_matches(['[', ']']);
                let port = port.parse().map_err(|_| wrong("invalid port"))?;
                if host.is_empty() {
                    return Err(wrong("a host is missing"));
                }
                Ok(Endpoint::Tcp(host.to_owned(), port))
            }
            "unix" => Ok(Endpoint::Unix(rest.to_owned())),
            "unix-abstract" => Ok(Endpoint::Unix(format!("\0{rest}"))),
            scheme => Err(wrong(&format!(
                "unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(more: apimachinery::value::Value, wanted: Expect) {
        let mut file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration"});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let said = match apimachinery::value::from_value::<Configuration>(file) {
            Err(error) => error.to_string(),
            Ok(read) => match read.check() {
                Err(why) => why,
                Ok(()) => format!("{:?} {}", read.endpoint().unwrap(), read.rate()),
            },
        };
        wanted.assert_eq(&said);
    }

    #[test]
    fn files_are_read_strictly() {
        check(json!({}), expect![[r#"Tcp("localhost", 4317) 0"#]]);
        check(
            json!({"apiVersion": "apiserver.k8s.io/v1alpha1", "samplingRatePerMillion": 1_000_000}),
            expect![[r#"Tcp("localhost", 4317) 1000000"#]],
        );
        check(
            json!({"apiVersion": "v1"}),
            expect![[
                r#"failed to read tracing config: unable to decode tracing configuration data: no kind "TracingConfiguration" is registered for version "v1""#
            ]],
        );
        check(
            json!({"samplingRate": 1}),
            expect![
                "unknown field `samplingRate`, expected one of `apiVersion`, `kind`, `endpoint`, `samplingRatePerMillion`"
            ],
        );
        check(
            json!({"samplingRatePerMillion": -1}),
            expect![
                "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: -1: sampling rate must be positive"
            ],
        );
        check(
            json!({"samplingRatePerMillion": 1_000_001}),
            expect![
                "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million"
            ],
        );
        for (endpoint, wanted) in [
            ("collector", expect![[r#"Tcp("collector", 443) 0"#]]),
            ("collector:1", expect![[r#"Tcp("collector", 1) 0"#]]),
            ("[::1]:4317", expect![[r#"Tcp("::1", 4317) 0"#]]),
            ("dns:///collector:1", expect![[r#"Tcp("collector", 1) 0"#]]),
            ("dns://8.8.8.8/collector:1", expect![[r#"Tcp("collector", 1) 0"#]]),
            ("unix:///run/collector", expect![[r#"Unix("/run/collector") 0"#]]),
            ("unix-abstract:///collector", expect![[r#"Unix("\0/collector") 0"#]]),
            (
                "http://collector",
                expect![[
                    r#"failed to validate tracing configuration: endpoint: Invalid value: "http://collector": unsupported scheme: http.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"#
                ]],
            ),
            (
                "collector:x",
                expect![[
                    r#"failed to validate tracing configuration: endpoint: Invalid value: "collector:x": invalid port"#
                ]],
            ),
        ] {
            check(json!({"endpoint": endpoint}), wanted);
        }
    }
}
