//! `--cpu-manager-policy-options`. Upstream: `cpumanager/policy_options.go`.

use std::collections::BTreeMap;

/// What the policy `static` is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Containers get whole cores or nothing.
    pub full_cores: bool,
    /// What needs several NUMA nodes has as much on each.
    pub across_numa: bool,
    /// One socket is as good as one of its NUMA nodes.
    pub by_socket: bool,
    /// One processor of each core, as long as there are cores.
    pub across_cores: bool,
    /// The reserved processors are not shared either.
    pub strict_reservation: bool,
    /// Processors behind one cache first.
    pub by_cache: bool,
}

const FULL_CORES: &str = "full-pcpus-only";
const ACROSS_NUMA: &str = "distribute-cpus-across-numa";
const BY_SOCKET: &str = "align-by-socket";
const ACROSS_CORES: &str = "distribute-cpus-across-cores";
const STRICT: &str = "strict-cpu-reservation";
const BY_CACHE: &str = "prefer-align-cpus-by-uncorecache";

impl Options {
    /// Reads them; `alpha` and `beta` are the gates of options that are not settled.
    pub fn parse(options: &BTreeMap<String, String>, alpha: bool, beta: bool) -> Result<Self, String> {
        let mut out = Options::default();
        for (name, value) in options {
            let to = match name.as_str() {
                FULL_CORES => &mut out.full_cores,
                ACROSS_NUMA => &mut out.across_numa,
                BY_SOCKET => &mut out.by_socket,
                ACROSS_CORES => &mut out.across_cores,
                STRICT => &mut out.strict_reservation,
                BY_CACHE => &mut out.by_cache,
                _ => return Err(format!("unknown CPU Manager Policy option: {name:?}")),
            };
            if [BY_SOCKET, ACROSS_CORES].contains(&name.as_str()) && !alpha {
                return Err(format!(
                    "CPU Manager Policy Alpha-level Options not enabled, but option {name:?} provided"
                ));
            }
            if name == ACROSS_NUMA && !beta {
                return Err(format!(
                    "CPU Manager Policy Beta-level Options not enabled, but option {name:?} provided"
                ));
            }
            *to = parse_bool(value).map_err(|error| format!("bad value for option {name:?}: {error}"))?;
        }
        for (one, other, names) in [
            (out.full_cores, out.across_cores, [FULL_CORES, ACROSS_CORES]),
            (out.across_numa, out.across_cores, [ACROSS_NUMA, ACROSS_CORES]),
            (out.by_cache, out.across_cores, [BY_CACHE, ACROSS_CORES]),
            (out.by_cache, out.across_numa, [BY_CACHE, ACROSS_NUMA]),
        ] {
            if one && other {
                let [one, other] = names;
                return Err(format!(
                    "static policy options {one} and {other} can not be used at the same time"
                ));
            }
        }
        Ok(out)
    }
}

/// As Go reads truth.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |text: &str, alpha, beta| {
            let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            Options::parse(&pairs.map(|(k, v)| (k.into(), v.into())).collect(), alpha, beta)
        };
        let both = parse("full-pcpus-only=true distribute-cpus-across-numa=1", false, true).unwrap();
        assert_eq!(both, Options { full_cores: true, across_numa: true, ..Default::default() });
        for (text, want) in [
            ("fast=true", r#"unknown CPU Manager Policy option: "fast""#),
            (
                "align-by-socket=true",
                r#"CPU Manager Policy Alpha-level Options not enabled, but option "align-by-socket" provided"#,
            ),
            (
                "distribute-cpus-across-numa=true",
                r#"CPU Manager Policy Beta-level Options not enabled, but option "distribute-cpus-across-numa" provided"#,
            ),
            (
                "full-pcpus-only=yes",
                r#"bad value for option "full-pcpus-only": strconv.ParseBool: parsing "yes": invalid syntax"#,
            ),
        ] {
            assert_eq!(parse(text, false, false).unwrap_err(), want);
        }
        let clash = parse("full-pcpus-only=true distribute-cpus-across-cores=true", true, true).unwrap_err();
        assert_eq!(
            clash,
            "static policy options full-pcpus-only and distribute-cpus-across-cores can not be used at the same time"
        );
    }
}
