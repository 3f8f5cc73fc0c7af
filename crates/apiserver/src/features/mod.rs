//! What is served: `--runtime-config` turns groups, versions and resources on and off, `--feature-gates` features with
//! the fields and resources that belong to them.

mod rows;

pub use rows::GATES;

use crate::handlers::Encodings;
use component::gates::FeatureGates;
use schema::ResourceRow;
use std::collections::BTreeMap;

/// Gates that fields are marked with and that upstream knows by another name; none for those it no longer has, whose
/// features are always on.
const RENAMED: &[(&str, Option<&str>)] =
    &[("CSIStorageCapacity", None), ("PodCertificateProjection", Some("PodCertificateRequest"))];

/// Resources that are served with their feature only: group, version (any when empty), resource, gate.
const GUARDED: &[(&str, &str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "", "mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicy"),
    ("certificates.k8s.io", "", "clustertrustbundles", "ClusterTrustBundle"),
    ("certificates.k8s.io", "", "podcertificaterequests", "PodCertificateRequest"),
    ("coordination.k8s.io", "", "leasecandidates", "CoordinatedLeaderElection"),
    ("internal.apiserver.k8s.io", "", "storageversions", "StorageVersionAPI"),
    ("resource.k8s.io", "", "devicetaintrules", "DRADeviceTaintRules"),
    ("resource.k8s.io", "", "resourcepoolstatusrequests", "DRAResourcePoolStatus"),
    ("scheduling.k8s.io", "v1alpha2", "podgroups", "GenericWorkload"),
    ("scheduling.k8s.io", "v1alpha2", "workloads", "GenericWorkload"),
    ("storagemigration.k8s.io", "", "storageversionmigrations", "StorageVersionMigrator"),
];

/// Why a flag was refused, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid value of {key}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    NoBool { key: String, value: String },
    #[error("invalid key with only api/all=false")]
    Nothing,
    #[error("unknown api groups {0}")]
    UnknownGroups(String),
    #[error("runtime-config invalid key {0}")]
    InvalidKey(String),
    #[error(transparent)]
    Gates(#[from] component::gates::Error),
}

/// What the flags turn on and off.
#[derive(Debug, Clone)]
pub struct Features {
    pub gates: FeatureGates,
    config: BTreeMap<String, bool>,
}

impl Default for Features {
    fn default() -> Self {
        Features { gates: FeatureGates::new(GATES), config: BTreeMap::new() }
    }
}

/// How far a version has come, as `api/ga`, `api/beta` and `api/alpha` name it.
fn stage(version: &str) -> &'static str {
    if version.contains("alpha") {
        "api/alpha"
    } else if version.contains("beta") {
        "api/beta"
    } else {
        "api/ga"
    }
}

fn parse_bool(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::NoBool { key: key.into(), value: value.into() }),
    }
}

impl Features {
    /// From the values of both flags; what deserves a warning is returned beside.
    pub fn parse(feature_gates: &str, runtime_config: &str) -> Result<(Self, Vec<String>), Error> {
        let mut features = Features::default();
        let warnings = features.gates.parse(feature_gates)?;
        for item in runtime_config.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            // The core group's version stands alone.
            let key = if key == "v1" { "/v1" } else { key };
            features.config.insert(key.to_owned(), parse_bool(key, value)?);
        }
        features.check()?;
        Ok((features, warnings))
    }

    fn check(&self) -> Result<(), Error> {
        if self.config.len() == 1 && self.config.get("api/all") == Some(&false) {
            return Err(Error::Nothing);
        }
        let resources = api::table().resources();
        let mut unknown = Vec::new();
        for key in self.config.keys() {
            let parts: Vec<&str> = key.split('/').collect();
            match parts.as_slice() {
                ["api", "all" | "ga" | "beta" | "alpha"] => {}
                [group, _] | [group, _, _] => {
                    if !resources.iter().any(|row| row.group == *group) {
                        unknown.push(*group);
                    }
                }
                _ => return Err(Error::InvalidKey(key.clone())),
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(Error::UnknownGroups(unknown.join(","))) }
    }

    /// Whether a resource of the table is served.
    pub fn serves(&self, row: &ResourceRow) -> bool {
        let (resource, _) = row.split();
        let guard = GUARDED.iter().find(|(group, version, guarded, _)| {
            row.group == *group && (version.is_empty() || row.version == *version) && resource == *guarded
        });
        if guard.is_some_and(|(.., gate)| !self.gates.enabled(gate)) {
            return false;
        }
        let version = format!("{}/{}", row.group, row.version);
        // The narrowest key decides.
        let keys = [&format!("{version}/{resource}"), &version, stage(&row.version), "api/all"];
        let said = keys.into_iter().find_map(|key| self.config.get(key).copied());
        said.unwrap_or(stage(&row.version) == "api/ga")
    }

    /// What objects may come and be answered in.
    pub fn encodings(&self) -> Encodings {
        match self.gates.enabled("CBORServingAndStorage") {
            true => Encodings::WithCbor,
            false => Encodings::Standard,
        }
    }

    /// Whether a field that is marked with a gate, or with several, is in use.
    pub fn field(&self, gates: &str) -> bool {
        gates.split(',').all(|gate| match RENAMED.iter().find(|(old, _)| *old == gate) {
            Some((_, None)) => true,
            Some((_, Some(new))) => self.gates.enabled(new),
            None => self.gates.enabled(gate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// The versions beyond the stable ones that flags turn on, and the stable ones that they turn off.
    fn check(gates: &str, config: &str, expected: Expect) {
        let shown = match Features::parse(gates, config) {
            Err(error) => error.to_string(),
            Ok((features, warnings)) => {
                let rows = api::table().resources().iter().filter(|row| row.split().1.is_none());
                let changed = rows.filter(|row| features.serves(row) != (stage(&row.version) == "api/ga"));
                let line = |row: &ResourceRow| {
                    let sign = if features.serves(row) { '+' } else { '-' };
                    format!("{sign}{}/{}/{}", row.group, row.version, row.resource)
                };
                warnings.into_iter().chain(changed.map(line)).collect::<Vec<_>>().join("\n")
            }
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn flags_decide_what_is_served() {
        check("", "", expect![[""]]);
        check(
            "",
            "networking.k8s.io/v1beta1=true,storage.k8s.io/v1beta1",
            expect![[r#"
            +networking.k8s.io/v1beta1/ipaddresses
            +networking.k8s.io/v1beta1/servicecidrs
            +storage.k8s.io/v1beta1/volumeattributesclasses"#]],
        );
        check(
            "",
            "batch/v1=false,apps/v1/deployments=false",
            expect![[r#"
            -apps/v1/deployments
            -batch/v1/cronjobs
            -batch/v1/jobs"#]],
        );
        check("", "coordination.k8s.io/v1beta1", expect![[""]]);
        check(
            "CoordinatedLeaderElection=true",
            "coordination.k8s.io/v1beta1",
            expect!["+coordination.k8s.io/v1beta1/leasecandidates"],
        );
        check("", "api/all=false", expect!["invalid key with only api/all=false"]);
        check(
            "",
            "nobody.io/v1=true,api/beta=maybe",
            expect![[
                r#"invalid value of api/beta=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax"#
            ]],
        );
        check("", "nobody.io/v1=true", expect!["unknown api groups nobody.io"]);
        check(
            "Nothing=true,CoordinatedLeaderElection=maybe",
            "",
            expect![[
                r#"invalid value of CoordinatedLeaderElection=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax"#
            ]],
        );
        check("Nothing=true", "", expect!["unrecognized feature gate: Nothing"]);
    }

    #[test]
    fn fields_follow_their_gates() {
        let on = |gates: &str, field: &str| Features::parse(gates, "").unwrap().0.field(field);
        assert!(on("", "PodLevelResources") && !on("PodLevelResources=false", "PodLevelResources"));
        assert!(!on("", "GenericWorkload") && on("AllAlpha=true", "GenericWorkload"));
        assert!(on("", "CSIStorageCapacity") && !on("", "PodCertificateProjection"));
        let both = "DRADeviceBindingConditions,DRAResourceClaimDeviceStatus";
        assert!(on("", both) && !on("DRAResourceClaimDeviceStatus=false", both));
    }

    #[test]
    fn every_gate_of_a_field_is_known() {
        let known =
            |gate: &str| GATES.iter().any(|g| g.name == gate) || RENAMED.iter().any(|(old, _)| *old == gate);
        for row in api::table().types() {
            for gate in row.fields.iter().filter_map(|f| f.gate.as_ref()).flat_map(|g| g.split(',')) {
                assert!(known(gate), "{gate} of {}", row.name);
            }
        }
        for (.., gate) in GUARDED {
            assert!(known(gate), "{gate}");
        }
    }
}
