//! `--encryption-provider-config`: upstream's EncryptionConfiguration, read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    pub api_version: String,
    pub kind: String,
    pub resources: Vec<ResourceConfiguration>,
}

/// Which resources are kept how. The first provider writes, all of them read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceConfiguration {
    pub resources: Vec<String>,
    pub providers: Vec<ProviderConfiguration>,
}

/// One provider; exactly one member is there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderConfiguration {
    pub identity: Option<Nothing>,
    pub aesgcm: Option<Keys>,
    pub aescbc: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub kms: Option<Kms>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub name: String,
    /// Base64.
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret is in no log.
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kms {
    #[serde(default)]
    pub api_version: String,
    pub name: String,
    pub endpoint: String,
    /// Has no effect in v2.
    pub cachesize: Option<i32>,
    pub timeout: Option<String>,
}

/// A configuration that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Key {
    /// The key's bytes, of one of the lengths a provider takes.
    pub fn bytes(&self, path: &str, lengths: &[usize]) -> Result<Vec<u8>, ConfigError> {
        let fail = |detail: String| ConfigError(format!("{path}: {detail}"));
        if self.name.is_empty() {
            return Err(fail("name: Required value: key name must be provided".into()));
        }
        if self.name.contains(':') {
            return Err(fail(format!(
                "name: Invalid value: {:?}: key names must not contain ':'",
                self.name
            )));
        }
        if self.secret.is_empty() {
            return Err(fail("secret: Required value: secret must be provided".into()));
        }
        let bytes = STANDARD.decode(&self.secret);
        let bytes = bytes.map_err(|_| {
            fail("secret: Invalid value: \"REDACTED\": secrets must be base64 encoded".into())
        })?;
        if lengths.contains(&bytes.len()) {
            return Ok(bytes);
        }
        Err(fail(format!(
            "secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of {lengths:?}",
            bytes.len()
        )))
    }
}

impl ProviderConfiguration {
    fn count(&self) -> usize {
        [
            self.identity.is_some(),
            self.aesgcm.is_some(),
            self.aescbc.is_some(),
            self.secretbox.is_some(),
            self.kms.is_some(),
        ]
        .into_iter()
        .filter(|there| *there)
        .count()
    }
}

impl Configuration {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let fail = |detail: String| {
            ConfigError(format!("error decoding encryption provider configuration: {detail}"))
        };
        let tree = schema::decode::free_yaml(text, schema::decode::FieldValidation::Strict)
            .map_err(|error| fail(error.to_string()))?;
        if let Some(first) = tree.strict.first() {
            return Err(fail(first.clone()));
        }
        let this: Self =
            apimachinery::value::from_value(tree.value).map_err(|error| fail(error.to_string()))?;
        let known = ["apiserver.config.k8s.io/v1", "v1"].contains(&this.api_version.as_str());
        if !known || !["EncryptionConfiguration", "EncryptionConfig"].contains(&this.kind.as_str()) {
            return Err(fail(format!(
                "no kind {:?} is registered for version {:?}",
                this.kind, this.api_version
            )));
        }
        if this.resources.is_empty() {
            return Err(ConfigError("resources: Required value: resources must be provided".into()));
        }
        for (index, entry) in this.resources.iter().enumerate() {
            entry.validate(&format!("resources[{index}]"))?;
        }
        Ok(this)
    }
}

impl ResourceConfiguration {
    fn validate(&self, path: &str) -> Result<(), ConfigError> {
        if self.resources.is_empty() {
            return Err(ConfigError(format!("{path}.resources: Required value: no resources specified")));
        }
        if self.providers.is_empty() {
            return Err(ConfigError(format!("{path}.providers: Required value: no providers specified")));
        }
        for resource in &self.resources {
            let bad =
                |why: &str| Err(ConfigError(format!("{path}.resources: Invalid value: {resource:?}: {why}")));
            if resource.chars().any(char::is_uppercase) {
                return bad("resource name should be lowercase");
            }
            if resource == "*" {
                return bad(
                    "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
                );
            }
            if resource.split('.').next() == Some("") || resource.contains('/') {
                return bad("is not a resource");
            }
        }
        for (index, provider) in self.providers.iter().enumerate() {
            if provider.count() != 1 {
                return Err(ConfigError(format!(
                    "{path}.providers[{index}]: Invalid value: provider does not contain exactly one of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
                )));
            }
        }
        Ok(())
    }

    /// Whether a resource is meant.
    pub fn covers(&self, group: &str, resource: &str) -> bool {
        self.resources.iter().any(|pattern| match pattern.split_once('.') {
            Some(("*", "*")) => true,
            Some(("*", wanted)) => wanted == group,
            Some((wanted, in_group)) => wanted == resource && in_group == group,
            None => pattern == resource && group.is_empty(),
        })
    }
}
