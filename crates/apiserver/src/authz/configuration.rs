//! `--authorization-config`: upstream's AuthorizationConfiguration (apiserver.config.k8s.io), read strictly, with its
//! defaults. What must hold beyond its shape is in [`super::validation`].

use crate::strict::{self, Shape};
use apimachinery::time::Duration;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizationConfiguration {
    #[serde(deserialize_with = "null_is_default")]
    pub authorizers: Vec<AuthorizerConfiguration>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizerConfiguration {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub webhook: Option<WebhookConfiguration>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WebhookConfiguration {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: Duration,
    pub cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: Duration,
    pub cache_unauthorized_requests: Option<bool>,
    pub timeout: Duration,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionInfo,
    #[serde(deserialize_with = "null_is_default")]
    pub match_conditions: Vec<MatchCondition>,
}

impl Default for WebhookConfiguration {
    fn default() -> Self {
        let zero = Duration::default();
        WebhookConfiguration {
            authorized_ttl: zero,
            cache_authorized_requests: None,
            unauthorized_ttl: zero,
            cache_unauthorized_requests: None,
            timeout: zero,
            subject_access_review_version: String::new(),
            match_condition_subject_access_review_version: String::new(),
            failure_policy: String::new(),
            connection_info: ConnectionInfo::default(),
            match_conditions: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionInfo {
    // Messages show it as upstream's internal type.
    #[serde(rename(deserialize = "type", serialize = "Type"))]
    pub kind: String,
    #[serde(rename(deserialize = "kubeConfigFile", serialize = "KubeConfigFile"))]
    pub kubeconfig: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MatchCondition {
    pub expression: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

use Shape::{Any, List, Object};

const WEBHOOK: Shape = Object(&[
    ("authorizedTTL", Any),
    ("cacheAuthorizedRequests", Any),
    ("unauthorizedTTL", Any),
    ("cacheUnauthorizedRequests", Any),
    ("timeout", Any),
    ("subjectAccessReviewVersion", Any),
    ("matchConditionSubjectAccessReviewVersion", Any),
    ("failurePolicy", Any),
    ("connectionInfo", Object(&[("type", Any), ("kubeConfigFile", Any)])),
    ("matchConditions", List(&Object(&[("expression", Any)]))),
]);
const SHAPE: Shape = Object(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("authorizers", List(&Object(&[("type", Any), ("name", Any), ("webhook", WEBHOOK)]))),
]);

/// The name of an authorizer that flags configure.
pub fn default_name(mode: &str) -> String {
    mode.to_lowercase()
}

/// What flags say of the webhook, where there is no file.
#[derive(Debug, Clone)]
pub struct WebhookFlags<'a> {
    pub kubeconfig: &'a Path,
    pub version: &'a str,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
}

impl AuthorizationConfiguration {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: String| format!("failed to load AuthorizationConfiguration from file: {why}");
        if text.is_empty() {
            return Err(failed("no configuration data".into()));
        }
        let versions = ["v1", "v1beta1", "v1alpha1"];
        let value = strict::load(text, "AuthorizationConfiguration", &versions, &SHAPE).map_err(failed)?;
        let mut this: Self = apimachinery::value::from_value(value).map_err(|e| failed(e.to_string()))?;
        for webhook in this.authorizers.iter_mut().filter_map(|a| a.webhook.as_mut()) {
            if webhook.authorized_ttl == Duration::default() {
                webhook.authorized_ttl = Duration::from_seconds(300);
            }
            if webhook.unauthorized_ttl == Duration::default() {
                webhook.unauthorized_ttl = Duration::from_seconds(30);
            }
        }
        Ok(this)
    }

    /// What `--authorization-mode` means.
    pub fn of_modes(modes: &[String], webhook: Option<&WebhookFlags<'_>>) -> Self {
        let authorizers = modes.iter().map(|mode| match webhook.filter(|_| mode == "Webhook") {
            Some(flags) => AuthorizerConfiguration {
                kind: mode.clone(),
                name: "default".into(),
                webhook: Some(WebhookConfiguration {
                    authorized_ttl: flags.authorized_ttl,
                    cache_authorized_requests: Some(flags.authorized_ttl != Duration::default()),
                    unauthorized_ttl: flags.unauthorized_ttl,
                    cache_unauthorized_requests: Some(flags.unauthorized_ttl != Duration::default()),
                    timeout: Duration::from_seconds(30),
                    failure_policy: "NoOpinion".into(),
                    subject_access_review_version: flags.version.to_owned(),
                    connection_info: ConnectionInfo {
                        kind: "KubeConfigFile".into(),
                        kubeconfig: Some(flags.kubeconfig.display().to_string()),
                    },
                    ..Default::default()
                }),
            },
            None => AuthorizerConfiguration { kind: mode.clone(), name: default_name(mode), webhook: None },
        });
        AuthorizationConfiguration { authorizers: authorizers.collect() }
    }
}
