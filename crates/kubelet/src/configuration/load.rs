//! Reading a configuration: a file, strictly at first and leniently where that fails, and over it the files of a directory.
//! Upstream: `loadConfigFile`, `mergeKubeletConfigurations`, `kubeletconfig/util/codec`.

use super::{default_eviction, known};
use apimachinery::json;
use apimachinery::value::{Map, Value};
use schema::decode::{Decoded, FieldValidation, free_yaml, looks_like_json, yaml_document};
use std::path::{Path, PathBuf};

/// Only files that are called so are merged.
const EXTENSION: &str = "conf";
/// Fields that may be paths beside the file.
const PATHS: [&str; 7] = [
    "/staticPodPath",
    "/authentication/x509/clientCAFile",
    "/tlsCertFile",
    "/tlsPrivateKeyFile",
    "/resolvConf",
    "/volumePluginDir",
    "/podLogsDir",
];

fn decoded(text: &str) -> Result<Decoded, String> {
    // Keys that stand twice are told by line in YAML, by name in JSON.
    let decode = if looks_like_json(text.as_bytes()) { free_yaml } else { yaml_document };
    decode(text, FieldValidation::Strict).map_err(|error| format!("failed to decode: {error}"))
}

/// Whether this is a configuration, in upstream's words if not.
fn check_kind(object: &Map) -> Result<(), String> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("kind"), text("apiVersion")) {
        ("KubeletConfiguration", "kubelet.config.k8s.io/v1beta1") => Ok(()),
        ("", _) => Err("failed to decode: Object 'Kind' is missing".into()),
        (_, "") => Err("failed to decode: Object 'apiVersion' is missing".into()),
        (kind, version) => {
            Err(format!("failed to decode: no kind {kind:?} is registered for version {version:?}"))
        }
    }
}

/// What a text says, and how it had to be read. What a strict reader complains of (fields that are unknown, keys that stand
/// twice) is passed over with a warning: `v1beta1` was read so from its beginning.
pub(super) fn document(text: &str) -> Result<(Map, Vec<String>), String> {
    let Decoded { value, mut strict } = decoded(text)?;
    let Value::Object(mut object) = value else { return Err("a KubeletConfiguration is a map".into()) };
    check_kind(&object)?;
    strict.extend(known::unknown(&object).iter().map(|field| format!("unknown field {field:?}")));
    known::forget_unknown(&mut object);
    let warning = (!strict.is_empty()).then(|| {
        let why = strict.join(", ");
        format!("Using lenient decoding as strict decoding failed: strict decoding error: {why}")
    });
    Ok((object, warning.into_iter().collect()))
}

fn file(path: &Path) -> Result<(Map, Vec<String>), String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!("failed to read kubelet config file {:?}, error: {error}", path.display())
    })?;
    if text.is_empty() {
        return Err(format!("kubelet config file {:?} was empty", path.display()));
    }
    let (object, warnings) = document(&text)?;
    let mut value = Value::Object(object);
    for pointer in PATHS {
        let Some(Value::String(named)) = value.pointer_mut(pointer) else { continue };
        if !named.is_empty()
            && Path::new(&**named).is_relative()
            && let Some(beside) = path.parent()
        {
            *named = beside.join(&**named).display().to_string();
        }
    }
    let Value::Object(object) = value else { return Err("a KubeletConfiguration is a map".into()) };
    Ok((object, warnings))
}

/// All files beneath a directory, in the order of their names.
fn walk(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        match entry.file_type()?.is_dir() {
            true => files.extend(walk(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    Ok(files)
}

fn drop_in(path: &Path) -> Result<Value, String> {
    let failed = |error: String| {
        format!("failed to load kubelet dropin file, path: {}, error: {error}", path.display())
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        failed(format!("failed to read drop-in kubelet config file {:?}, error: {error}", path.display()))
    })?;
    if text.is_empty() {
        return Err(failed(format!("kubelet config file {:?} was empty", path.display())));
    }
    let value = decoded(&text).map_err(failed)?.value;
    let object = value.as_object().ok_or_else(|| failed("a KubeletConfiguration is a map".into()))?;
    check_kind(object).map_err(failed)?;
    Ok(value)
}

/// What a file and the drop-ins of a directory say together, later ones over earlier ones, and what to warn of.
pub(super) fn merged(path: Option<&Path>, directory: Option<&Path>) -> Result<(Map, Vec<String>), String> {
    let (base, mut warnings) = match path {
        Some(path) => file(path).map_err(|error| {
            format!("failed to load Kubelet config file {}, error {error}", path.display())
        })?,
        None => {
            let kind = json!({"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"});
            (kind.as_object().cloned().unwrap_or_default(), Vec::new())
        }
    };
    let Some(directory) = directory else { return Ok((base, warnings)) };
    let mut base = Value::Object(base);
    if path.is_some() {
        // A drop-in changes single thresholds: those of the file are complete before.
        let said = !base["evictionHard"].is_null();
        if !said || base["mergeDefaultEvictionSettings"] == true {
            let mut all: Map =
                default_eviction().into_iter().map(|(signal, amount)| (signal, amount.into())).collect();
            all.extend(base["evictionHard"].as_object().cloned().unwrap_or_default());
            base["evictionHard"] = Value::Object(all);
        }
    }
    let unwalked = |error: String| {
        format!(
            "failed to merge kubelet configs: failed to walk through kubelet dropin directory {:?}: {error}",
            directory.display()
        )
    };
    for path in walk(directory).map_err(|error| unwalked(error.to_string()))? {
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            tracing::debug!(
                file = %path.display(),
                "Skipped file in drop-in directory (does not have .conf extension)"
            );
            continue;
        }
        schema::patch::merge(&mut base, &drop_in(&path).map_err(unwalked)?);
    }
    let Value::Object(mut object) = base else { return Err("a KubeletConfiguration is a map".into()) };
    // Upstream decodes what is merged without a look at what it does not know; here that is said.
    let unknown = known::unknown(&object);
    known::forget_unknown(&mut object);
    warnings.extend(unknown.iter().map(|field| format!("unknown field {field:?} in a drop-in file")));
    Ok((object, warnings))
}
