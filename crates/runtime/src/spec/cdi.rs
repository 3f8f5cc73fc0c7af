//! Container Device Interface: a device called `vendor/class=name` is what a specification in `/etc/cdi` or
//! `/var/run/cdi` says it is: device nodes, mounts, variables. Edits become part of the container's configuration as if the
//! kubelet had asked for them. Hooks are refused: nothing of the host is run for a container here.

use cri::v1::{ContainerConfig, Device, KeyValue, Mount, MountPropagation};
use cri::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest specification that is read.
const MAX_FILE: u64 = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Specification {
    kind: String,
    devices: Vec<Named>,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bind {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// Adds what the named devices are to the configuration.
pub(crate) fn inject(config: &mut ContainerConfig, dirs: &[PathBuf]) -> Result<()> {
    if config.cdi_devices.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = config.cdi_devices.iter().map(|device| device.name.clone()).collect();
    let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
    for (kind, edits, common) in load(dirs)? {
        for (name, own) in edits {
            // A later directory wins.
            found.insert(format!("{kind}={name}"), (own, kind.clone(), common.clone()));
        }
    }
    let mut kinds = Vec::new();
    for name in &names {
        match found.get(name) {
            Some((own, kind, common)) => {
                if !kinds.contains(kind) {
                    kinds.push(kind.clone());
                    apply(config, common)?;
                }
                apply(config, own)?;
            }
            None => missing.push(name.as_str()),
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        some => Err(Error::unknown(format!(
            "CDI device injection failed: unresolvable CDI devices {}",
            some.join(", ")
        ))),
    }
}

type Loaded = (String, Vec<(String, Edits)>, Edits);

/// Every specification, directories in order and files in the order of their names.
fn load(dirs: &[PathBuf]) -> Result<Vec<Loaded>> {
    let mut out = Vec::new();
    for dir in dirs {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        for path in files {
            let specification = match path.extension().and_then(|extension| extension.to_str()) {
                Some("json" | "yaml" | "yml") => read(&path),
                _ => continue,
            };
            match specification {
                Ok(s) => {
                    let devices = s.devices.into_iter().map(|device| (device.name, device.container_edits));
                    out.push((s.kind, devices.collect(), s.container_edits));
                }
                // One vendor's slip is not another's.
                Err(why) => tracing::warn!(path = %path.display(), why, "an unreadable CDI specification"),
            }
        }
    }
    Ok(out)
}

fn read(path: &Path) -> std::result::Result<Specification, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err("no file of a sensible size".into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).map_err(|error| error.to_string())
}

fn apply(config: &mut ContainerConfig, edits: &Edits) -> Result<()> {
    if !edits.hooks.is_empty() {
        return Err(Error::unknown("CDI device injection failed: hooks are not supported by this runtime"));
    }
    for line in &edits.env {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        config.envs.retain(|known| known.key != key);
        config.envs.push(KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec() });
    }
    for node in &edits.device_nodes {
        let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        config.devices.retain(|known| known.container_path != node.path);
        config.devices.push(Device {
            container_path: node.path.clone(),
            host_path: host.clone(),
            permissions: node.permissions.clone(),
        });
    }
    for bind in &edits.mounts {
        let has = |option: &str| bind.options.iter().any(|given| given == option);
        config.mounts.retain(|known| known.container_path != bind.container_path);
        config.mounts.push(Mount {
            container_path: bind.container_path.clone(),
            host_path: bind.host_path.clone(),
            readonly: has("ro"),
            propagation: MountPropagation::PropagationPrivate.into(),
            ..Default::default()
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::CdiDevice;

    #[test]
    fn devices_become_what_their_specification_says() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [etc.path().to_owned(), run.path().to_owned()];
        std::fs::write(
            etc.path().join("crew.yaml"),
            "cdiVersion: 0.6.0\nkind: crew.example/oar\ncontainerEdits: {env: [CREW=argo]}\ndevices:\n- name: one\n  containerEdits:\n    env: [OAR=old]\n- name: hooked\n  containerEdits: {hooks: [{hookName: createRuntime, path: /bin/true}]}\n",
        )
        .unwrap();
        std::fs::write(etc.path().join("broken.json"), "{").unwrap();
        std::fs::write(
            run.path().join("crew.json"),
            r#"{"cdiVersion":"0.6.0","kind":"crew.example/oar","containerEdits":{"env":["CREW=argo"]},"devices":[{"name":"one","containerEdits":{"env":["OAR=1"],"deviceNodes":[{"path":"/dev/oar","hostPath":"/dev/null","permissions":"rw"}],"mounts":[{"hostPath":"/tmp","containerPath":"/oar","options":["ro","bind"]}]}}]}"#,
        )
        .unwrap();
        let with = |names: &[&str]| {
            let cdi_devices = names.iter().map(|name| CdiDevice { name: (*name).into() }).collect();
            ContainerConfig { cdi_devices, ..Default::default() }
        };
        let mut config = with(&["crew.example/oar=one"]);
        inject(&mut config, &dirs).unwrap();
        let env: Vec<String> =
            config.envs.iter().map(|e| format!("{}={}", e.key, String::from_utf8_lossy(&e.value))).collect();
        assert_eq!(env, ["CREW=argo", "OAR=1"]);
        assert_eq!(
            (config.devices[0].container_path.as_str(), config.devices[0].host_path.as_str()),
            ("/dev/oar", "/dev/null")
        );
        assert!(config.mounts[0].readonly && config.mounts[0].container_path == "/oar");
        for (names, message) in [
            (&["x/y=z"][..], "CDI device injection failed: unresolvable CDI devices x/y=z"),
            (
                &["crew.example/oar=hooked"][..],
                "CDI device injection failed: hooks are not supported by this runtime",
            ),
        ] {
            assert_eq!(inject(&mut with(names), &dirs).unwrap_err().message, message);
        }
        inject(&mut with(&[]), &dirs).unwrap();
    }
}
