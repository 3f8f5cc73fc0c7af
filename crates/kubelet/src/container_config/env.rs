//! The environment of a container: Services, `envFrom`, `env` with references and expansion, in upstream's precedence
//! (`makeEnvironmentVariables`). Objects are fetched through [`Source`], so that this stays a function of its inputs.

use super::env_file;
use super::expansion::expand;
use super::field_ref::{self, Facts};
use api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Where ConfigMaps and Secrets of the pod's namespace come from, and the files of its volumes. An error is what the API says, in its words.
pub(crate) trait Source: Send + Sync {
    fn config_map(
        &self,
        name: &str,
    ) -> impl std::future::Future<Output = Result<Option<Arc<ConfigMap>>, String>> + Send;
    fn secret(
        &self,
        name: &str,
    ) -> impl std::future::Future<Output = Result<Option<Arc<Secret>>, String>> + Send;
    /// A file in a volume of the pod: where it is, and its text.
    fn file(
        &self,
        volume: &str,
        path: &str,
    ) -> impl std::future::Future<Output = Result<(PathBuf, String), String>> + Send;
}

/// All variables in order. `services` are the variables of Services, weakest of all.
pub(crate) async fn environment(
    pod: &Pod,
    container: &Container,
    services: BTreeMap<String, String>,
    facts: &Facts,
    source: &impl Source,
) -> Result<Vec<(String, String)>, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for from in &container.env_from {
        let mut add = |key: &str, value: String| {
            let name = format!("{}{key}", from.prefix);
            if is_env_name(&name) && known.insert(name.clone(), value).is_none() {
                order.push(name);
            }
        };
        if let Some(reference) = &from.config_map_ref {
            match source.config_map(&reference.name).await? {
                Some(map) => map.data.iter().for_each(|(k, v)| add(k, v.clone())),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", reference.name)),
            }
        } else if let Some(reference) = &from.secret_ref {
            match source.secret(&reference.name).await? {
                Some(secret) => secret.data.iter().for_each(|(k, v)| add(k, text(v.as_ref()))),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", reference.name)),
            }
        }
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => {
                let lookup = |name: &str| known.get(name).or_else(|| services.get(name)).cloned();
                Some(expand(&variable.value, lookup))
            }
            Some(from) => referenced(pod, container, from, facts, source).await?,
        };
        // An optional reference to nothing leaves the variable out.
        let Some(value) = value else { continue };
        if known.insert(variable.name.clone(), value).is_none() {
            order.push(variable.name.clone());
        }
    }
    let mut out: Vec<(String, String)> =
        order.into_iter().map(|name| (name.clone(), known.get(&name).cloned().unwrap_or_default())).collect();
    out.extend(services.into_iter().filter(|(name, _)| !known.contains_key(name)));
    Ok(out)
}

async fn referenced(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    facts: &Facts,
    source: &impl Source,
) -> Result<Option<String>, String> {
    let namespace = &pod.metadata.namespace;
    if let Some(field) = &from.field_ref {
        return field_ref::field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return field_ref::resource(pod, container, resource, facts).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = source.config_map(&reference.name).await? else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("configmap {:?} not found", reference.name))
            };
        };
        return match map.data.get(&reference.key) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                reference.key, reference.name
            )),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = source.secret(&reference.name).await? else {
            return if optional { Ok(None) } else { Err(format!("secret {:?} not found", reference.name)) };
        };
        return match secret.data.get(&reference.key) {
            Some(value) => Ok(Some(text(value.as_ref()))),
            None if optional => Ok(None),
            None => {
                Err(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name))
            }
        };
    }
    if let Some(reference) = &from.file_key_ref {
        let (path, text) = source.file(&reference.volume_name, &reference.path).await?;
        let value = env_file::value(&text, &reference.key).map_err(|error| {
            tracing::warn!(pod = %pod.metadata.name, error, "Failed to parse env file");
            "couldn't parse env file".to_owned()
        })?;
        return match value.is_empty() {
            false => Ok(Some(value)),
            true if reference.optional == Some(true) => Ok(None),
            true => Err(format!("environment variable key {:?} not found in file {path:?}", reference.key)),
        };
    }
    Ok(Some(String::new()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Printable ASCII without `=` (the relaxed rule of v1.36).
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}
