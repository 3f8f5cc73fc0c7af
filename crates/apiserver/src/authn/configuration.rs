//! `--authentication-config`: upstream's AuthenticationConfiguration (apiserver.config.k8s.io), read strictly. What must
//! hold beyond its shape is in [`super::validation`].

use crate::strict::{self, Shape};
use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthenticationConfiguration {
    pub jwt: Vec<JwtAuthenticator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

/// Whether, and where, somebody may come without a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Anonymous {
    pub enabled: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnonymousCondition {
    // Messages show it as upstream's internal type.
    #[serde(rename(serialize = "Path"))]
    pub path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtAuthenticator {
    pub issuer: Issuer,
    #[serde(deserialize_with = "null_is_default")]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    #[serde(deserialize_with = "null_is_default")]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Issuer {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    pub certificate_authority: String,
    #[serde(deserialize_with = "null_is_default")]
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimMappings {
    pub username: PrefixedClaimOrExpression,
    pub groups: PrefixedClaimOrExpression,
    pub uid: ClaimOrExpression,
    #[serde(deserialize_with = "null_is_default")]
    pub extra: Vec<ExtraMapping>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixedClaimOrExpression {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimOrExpression {
    pub claim: String,
    pub expression: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

use Shape::{Any, List, Object};

const PREFIXED: Shape = Object(&[("claim", Any), ("prefix", Any), ("expression", Any)]);
const JWT: Shape = Object(&[
    (
        "issuer",
        Object(&[
            ("url", Any),
            ("discoveryURL", Any),
            ("certificateAuthority", Any),
            ("audiences", Any),
            ("audienceMatchPolicy", Any),
            ("egressSelectorType", Any),
        ]),
    ),
    (
        "claimValidationRules",
        List(&Object(&[("claim", Any), ("requiredValue", Any), ("expression", Any), ("message", Any)])),
    ),
    (
        "claimMappings",
        Object(&[
            ("username", PREFIXED),
            ("groups", PREFIXED),
            ("uid", Object(&[("claim", Any), ("expression", Any)])),
            ("extra", List(&Object(&[("key", Any), ("valueExpression", Any)]))),
        ]),
    ),
    ("userValidationRules", List(&Object(&[("expression", Any), ("message", Any)]))),
]);
const SHAPE: Shape = Object(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("jwt", List(&JWT)),
    ("anonymous", Object(&[("enabled", Any), ("conditions", List(&Object(&[("path", Any)])))])),
]);

impl AuthenticationConfiguration {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty config data".into());
        }
        let mut value =
            strict::load(text, "AuthenticationConfiguration", &["v1", "v1beta1", "v1alpha1"], &SHAPE)?;
        if value["jwt"].is_null()
            && let Some(members) = value.as_object_mut()
        {
            members.remove("jwt");
        }
        apimachinery::value::from_value(value).map_err(|e| e.to_string())
    }
}
