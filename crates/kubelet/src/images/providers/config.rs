//! `CredentialProviderConfig`: one file, or all of a directory. Upstream: `plugin/config.go`.

use apimachinery::field::{BadValue, Error, ErrorList, Path as Field};
use apimachinery::time::Duration;
use apimachinery::validation::is_qualified_name;
use schema::decode::{FieldValidation, free_yaml};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const GROUP: &str = "kubelet.config.k8s.io";
/// What a provider may be spoken to in.
pub(super) const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const API_VERSIONS: [&str; 3] =
    [V1, "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1"];
const CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Config {
    kind: String,
    api_version: String,
    pub providers: Vec<Provider>,
}

/// One program.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Provider {
    pub name: String,
    pub match_images: Vec<String>,
    pub default_cache_duration: Option<Duration>,
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
    pub token_attributes: Option<TokenAttributes>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Variable {
    pub name: String,
    pub value: String,
}

/// A provider that is given tokens of the pods' service accounts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TokenAttributes {
    pub service_account_token_audience: String,
    pub cache_type: String,
    pub require_service_account: Option<bool>,
    pub required_service_account_annotation_keys: Vec<String>,
    pub optional_service_account_annotation_keys: Vec<String>,
}

/// Reads a file, or the YAML and JSON files of a directory, in the order of their names; and a digest of what they hold.
pub(super) fn read(path: &Path) -> Result<(Config, String), String> {
    if path.as_os_str().is_empty() {
        return Err("credential provider config path is empty".into());
    }
    let shown = path.display();
    let meta =
        std::fs::metadata(path).map_err(|error| format!("unable to access path {shown:?}: {error}"))?;
    let files = if meta.is_dir() { list(path)? } else { vec![path.to_owned()] };
    if files.is_empty() {
        return Err(format!("no configuration files found in directory {shown:?}"));
    }
    let mut digest = Sha256::new();
    let mut all = Config::default();
    for file in files {
        let shown = file.display();
        let bytes =
            std::fs::read(&file).map_err(|error| format!("unable to read file {shown:?}: {error}"))?;
        // The length keeps two files from looking like one.
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(&bytes);
        let config = decode(&bytes).map_err(|error| format!("error decoding config {shown:?}: {error}"))?;
        for provider in config.providers {
            if all.providers.iter().any(|known| known.name == provider.name) {
                let name = &provider.name;
                return Err(format!("duplicate provider name {name:?} found in configuration file(s)"));
            }
            all.providers.push(provider);
        }
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((all, format!("sha256:{hex}")))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("unable to read directory {:?}: {error}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let named =
            path.extension().is_some_and(|ext| ["json", "yaml", "yml"].iter().any(|known| ext == *known));
        if named && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn decode(bytes: &[u8]) -> Result<Config, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let decoded = free_yaml(text, FieldValidation::Strict).map_err(|error| error.to_string())?;
    let config: Config = apimachinery::value::from_value(decoded.value)
        .map_err(|error| format!("strict decoding error: {error}"))?;
    let (group, version) = config.api_version.split_once('/').unwrap_or(("", &config.api_version));
    let known = group == GROUP && ["v1", "v1beta1", "v1alpha1"].contains(&version);
    if config.kind != "CredentialProviderConfig" || !known {
        let (kind, version) = (&config.kind, &config.api_version);
        return Err(format!("no kind {kind:?} is registered for version {version:?}"));
    }
    if version != "v1" && config.providers.iter().any(|provider| provider.token_attributes.is_some()) {
        return Err("strict decoding error: unknown field \"providers[0].tokenAttributes\"".into());
    }
    Ok(config)
}

/// Upstream: `validateCredentialProviderConfig`.
pub(super) fn validate(config: &Config) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Field::new("providers");
    if config.providers.is_empty() {
        errors.push(Error::required(&path, "at least 1 item in plugins is required"));
    }
    let mut seen = BTreeSet::new();
    for provider in &config.providers {
        let name = provider.name.as_str();
        for (wrong, why) in [
            (name.contains('/'), "provider name cannot contain '/'"),
            (name.contains(' '), "provider name cannot contain spaces"),
            (name == ".", "provider name cannot be '.'"),
            (name == "..", "provider name cannot be '..'"),
        ] {
            if wrong {
                errors.push(Error::invalid(&path.child("name"), name, why));
            }
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        let version = provider.api_version.as_str();
        if version.is_empty() {
            errors.push(Error::required(&path.child("apiVersion"), ""));
        } else if !API_VERSIONS.contains(&version) {
            errors.push(Error::not_supported(&path.child("apiVersion"), version, &API_VERSIONS));
        }
        let images = path.child("matchImages");
        if provider.match_images.is_empty() {
            errors.push(Error::required(&images, "at least 1 item in matchImages is required"));
        }
        for image in &provider.match_images {
            if let Err(error) = super::super::keyring::check_pattern(image) {
                let why = format!("match image is invalid: {error}");
                errors.push(Error::invalid(&images, image.as_str(), why));
            }
        }
        let duration = path.child("defaultCacheDuration");
        match &provider.default_cache_duration {
            None => errors.push(Error::required(&duration, "")),
            Some(said) if said.nanoseconds() < 0 => {
                let shown = BadValue::verbatim(said.to_string());
                errors.push(Error::invalid(&duration, shown, "must be greater than or equal to 0"));
            }
            Some(_) => {}
        }
        if let Some(attributes) = &provider.token_attributes {
            validate_tokens(&mut errors, &path.child("tokenAttributes"), provider, attributes);
        }
    }
    errors
}

fn validate_tokens(errors: &mut ErrorList, path: &Field, provider: &Provider, attributes: &TokenAttributes) {
    if attributes.service_account_token_audience.is_empty() {
        errors.push(Error::required(&path.child("serviceAccountTokenAudience"), ""));
    }
    if attributes.require_service_account.is_none() {
        errors.push(Error::required(&path.child("requireServiceAccount"), ""));
    }
    if provider.api_version != V1 {
        let why = format!("tokenAttributes is only supported for {V1} API version");
        errors.push(Error::forbidden(path, why));
    }
    let (required, optional) = (
        &attributes.required_service_account_annotation_keys,
        &attributes.optional_service_account_annotation_keys,
    );
    let required_path = path.child("requiredServiceAccountAnnotationKeys");
    if attributes.require_service_account == Some(false) && !required.is_empty() {
        let why = "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
        errors.push(Error::forbidden(&required_path, why));
    }
    validate_keys(errors, &required_path, required);
    validate_keys(errors, &path.child("optionalServiceAccountAnnotationKeys"), optional);
    let both: BTreeSet<&String> = required.iter().filter(|key| optional.contains(key)).collect();
    if !both.is_empty() {
        let both = BadValue::json(&both.into_iter().collect::<Vec<_>>());
        errors.push(Error::invalid(path, both, "annotation keys cannot be both required and optional"));
    }
    let cache = path.child("cacheType");
    match attributes.cache_type.as_str() {
        "" => {
            let known = CACHE_TYPES.join(", ");
            let why = format!(
                "cacheType is required to be set when tokenAttributes is specified. Supported values are: {known}"
            );
            errors.push(Error::required(&cache, why));
        }
        known if CACHE_TYPES.contains(&known) => {}
        other => errors.push(Error::not_supported(&cache, other, &CACHE_TYPES)),
    }
}

fn validate_keys(errors: &mut ErrorList, path: &Field, keys: &[String]) {
    let mut seen = BTreeSet::new();
    for key in keys {
        // Annotation keys are qualified names in whichever case.
        for problem in is_qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key.as_str(), problem));
        }
        if !seen.insert(key) {
            errors.push(Error::duplicate(path, key.as_str()));
        }
    }
}
