//! Feature gates. The caller brings the rows; `--feature-gates` (`A=true,B=false`) is read with upstream's rules and
//! error texts (component-base/featuregate): unknown gates only warn, locked ones cannot be moved, `AllAlpha` and
//! `AllBeta` set what is not set by name.

use crate::metrics::{Opts, Registry, Stability};
use std::{collections::BTreeMap, fmt};

/// How far a feature has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    PreAlpha,
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::PreAlpha => "PRE-ALPHA",
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
            Stage::Ga => "",
            Stage::Deprecated => "DEPRECATED",
        })
    }
}

/// A row: one known gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: &'static str,
    pub default: bool,
    pub stage: Stage,
    /// It can only be set to its default.
    pub locked: bool,
}

/// Why a setting was refused, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("missing bool value for {0}")]
    MissingValue(String),
    #[error("invalid value of {name}={value}, err: strconv.ParseBool: parsing \"{value}\": invalid syntax")]
    InvalidValue { name: String, value: String },
    #[error("cannot set feature gate {name} to {value}, feature is locked to {}", !value)]
    Locked { name: String, value: bool },
    #[error(
        "cannot set feature gate {name} to {value}, feature is PreAlpha at emulated version {version}, min compatibility version {minimum}"
    )]
    PreAlpha { name: String, value: bool, version: &'static str, minimum: &'static str },
    /// Several, as upstream prints an aggregate.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<Error>),
}

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// The known gates and how they are set.
#[derive(Clone, Debug)]
pub struct FeatureGates {
    known: BTreeMap<&'static str, Gate>,
    set: BTreeMap<&'static str, bool>,
}

impl FeatureGates {
    /// Every gate at its default.
    pub fn new(rows: &[Gate]) -> FeatureGates {
        let all = |name, stage| Gate { name, default: false, stage, locked: false };
        let special = [all(ALL_ALPHA, Stage::Alpha), all(ALL_BETA, Stage::Beta)];
        FeatureGates {
            known: rows.iter().chain(&special).map(|g| (g.name, *g)).collect(),
            set: BTreeMap::new(),
        }
    }

    /// Reads a flag's value on top of what is set; nothing changes when it is refused.
    /// What deserves a warning is returned.
    pub fn parse(&mut self, flag: &str) -> Result<Vec<String>, Error> {
        let mut wanted = BTreeMap::new();
        for item in flag.split(',').filter(|s| !s.is_empty()) {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(Error::MissingValue(item.trim().to_owned())),
            };
            let value = match value {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                _ => return Err(Error::InvalidValue { name: name.into(), value: value.into() }),
            };
            wanted.insert(name.to_owned(), value);
        }
        self.set_all(&wanted)
    }

    /// As `parse`, from a configuration file's map.
    pub fn set_all(&mut self, wanted: &BTreeMap<String, bool>) -> Result<Vec<String>, Error> {
        let (mut set, mut warnings, mut errors) = (self.set.clone(), Vec::new(), Vec::new());
        for (name, &value) in wanted {
            let Some(gate) = self.known.get(name.as_str()) else {
                warnings.push(format!("unrecognized feature gate: {name}"));
                continue;
            };
            if gate.locked && gate.default != value {
                errors.push(Error::Locked { name: name.clone(), value });
                continue;
            }
            match gate.stage {
                Stage::PreAlpha => {
                    let (version, minimum) = ("1.36", "1.35");
                    errors.push(Error::PreAlpha { name: name.clone(), value, version, minimum });
                    continue;
                }
                Stage::Deprecated => warnings.push(format!(
                    "Warning: setting deprecated feature gate. It will be removed in a future release. featureGate={name} value={value}"
                )),
                Stage::Ga => warnings.push(format!(
                    "Warning: setting GA feature gate. It will be removed in a future release. featureGate={name} value={value}"
                )),
                Stage::Alpha | Stage::Beta => {}
            }
            set.insert(gate.name, value);
        }
        // After the named ones, which they do not override.
        for (all, stage) in [(ALL_ALPHA, Stage::Alpha), (ALL_BETA, Stage::Beta)] {
            if let Some(&value) = wanted.get(all) {
                let stage_rows = self.known.values().filter(|g| g.stage == stage && !g.locked);
                for gate in stage_rows.filter(|g| g.name != ALL_ALPHA && g.name != ALL_BETA) {
                    set.entry(gate.name).or_insert(value);
                }
            }
        }
        match errors.len() {
            0 => {
                self.set = set;
                Ok(warnings)
            }
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }

    /// Whether the feature is on. A name without a row is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.set.get(name).copied().unwrap_or_else(|| self.known.get(name).is_some_and(|g| g.default))
    }

    /// Says of every feature how far it has come and whether it is on.
    pub fn register(&self, registry: &Registry) {
        let help = "This metric records the data about the stage and enablement of a k8s feature.";
        let opts = Opts { name: "kubernetes_feature_enabled", help, stability: Stability::Beta };
        let features = registry.gauge_vec(opts, &["name", "stage"]);
        for (gate, enabled) in self.iter() {
            features.with(&[gate.name, &gate.stage.to_string()]).set(f64::from(u8::from(enabled)));
        }
    }

    /// Every row and whether it is on, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Gate, bool)> {
        self.known.values().map(|gate| (gate, self.enabled(gate.name)))
    }

    /// The lines of the flag's help: gates that can still be moved.
    pub fn help(&self) -> Vec<String> {
        self.known
            .values()
            .filter(|g| matches!(g.stage, Stage::Alpha | Stage::Beta))
            .map(|g| format!("{}=true|false ({} - default={})", g.name, g.stage, g.default))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const ROWS: &[Gate] = &[
        Gate { name: "Old", default: true, stage: Stage::Ga, locked: true },
        Gate { name: "New", default: false, stage: Stage::Alpha, locked: false },
        Gate { name: "Warm", default: true, stage: Stage::Beta, locked: false },
        Gate { name: "Going", default: false, stage: Stage::Deprecated, locked: false },
        Gate { name: "Not", default: false, stage: Stage::PreAlpha, locked: false },
    ];

    fn check(flag: &str, want: Expect) {
        let mut gates = FeatureGates::new(ROWS);
        let mut text = match gates.parse(flag) {
            Ok(warnings) => warnings.iter().map(|w| format!("{w}\n")).collect(),
            Err(e) => format!("error: {e}\n"),
        };
        let on: Vec<_> = gates.iter().filter(|(_, on)| *on).map(|(g, _)| g.name).collect();
        text.push_str(&format!("on: {}\n", on.join(" ")));
        want.assert_eq(&text);
    }

    #[test]
    fn metrics_tell_of_all() {
        let registry = Registry::new();
        FeatureGates::new(ROWS).register(&registry);
        let text = registry.render();
        let line = |name: &str, stage: &str, on: u8| {
            format!("kubernetes_feature_enabled{{name=\"{name}\",stage=\"{stage}\"}} {on}\n")
        };
        for line in
            [line("Old", "", 1), line("New", "ALPHA", 0), line("Warm", "BETA", 1), line("AllBeta", "BETA", 0)]
        {
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn flags() {
        check("", expect![["on: Old Warm\n"]]);
        check("New=true, Warm=F", expect![["on: New Old\n"]]);
        check("AllAlpha=true,AllBeta=false,Warm=true", expect![["on: AllAlpha New Old Warm\n"]]);
        check("New", expect![["error: missing bool value for New\non: Old Warm\n"]]);
        check(
            "New=yes",
            expect![[r#"
            error: invalid value of New=yes, err: strconv.ParseBool: parsing "yes": invalid syntax
            on: Old Warm
        "#]],
        );
        check(
            "Old=false",
            expect![[r#"
            error: cannot set feature gate Old to false, feature is locked to true
            on: Old Warm
        "#]],
        );
        check(
            "Old=false,Not=true",
            expect![[r#"
            error: [cannot set feature gate Not to true, feature is PreAlpha at emulated version 1.36, min compatibility version 1.35, cannot set feature gate Old to false, feature is locked to true]
            on: Old Warm
        "#]],
        );
        check(
            "Nobody=true,Going=true",
            expect![[r#"
            Warning: setting deprecated feature gate. It will be removed in a future release. featureGate=Going value=true
            unrecognized feature gate: Nobody
            on: Going Old Warm
        "#]],
        );
    }
}
