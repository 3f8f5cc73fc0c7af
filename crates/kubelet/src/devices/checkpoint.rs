//! What containers were given, kept on disk over restarts of the kubelet, in upstream's form and place
//! (`kubelet_internal_checkpoint`); its checksum is our own.

use super::state::{Given, State};
use crate::plugins::device_plugin::ContainerAllocateResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub(crate) const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    pod_device_entries: Option<Vec<Entry>>,
    #[serde(default)]
    registered_devices: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: BTreeMap<i64, Vec<String>>,
    #[serde(rename = "AllocResp")]
    response: String,
}

/// Replaces the file.
pub(crate) fn write(dir: &Path, state: &State) -> io::Result<()> {
    let entries = state.given.iter().flat_map(|((pod, container), given)| {
        given.iter().map(|(resource, given)| Entry {
            pod: pod.clone(),
            container: container.clone(),
            resource: resource.clone(),
            devices: given.devices.clone(),
            response: STANDARD.encode(given.response.encode_to_vec()),
        })
    });
    let registered = state.resources.iter().map(|(resource, devices)| {
        let healthy = devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone());
        (resource.clone(), healthy.collect())
    });
    let data =
        Data { pod_device_entries: Some(entries.collect()), registered_devices: Some(registered.collect()) };
    let checksum = checksum(&data)?;
    crate::saved::replace(&dir.join(FILE), &File { data, checksum })
}

fn checksum(data: &Data) -> io::Result<u32> {
    Ok(apimachinery::rand_name::fnv32a(&serde_json::to_vec(data)?))
}

/// What the file tells; resources without their devices, which plugins have to tell of again.
pub(crate) fn read(dir: &Path) -> State {
    let mut state = State::default();
    let Ok(bytes) = std::fs::read(dir.join(FILE)) else { return state };
    let Ok(File { data, .. }) = serde_json::from_slice::<File>(&bytes) else {
        tracing::warn!("the checkpoint of devices cannot be read: what containers were given is not known");
        return state;
    };
    for entry in data.pod_device_entries.unwrap_or_default() {
        let response = STANDARD.decode(&entry.response).ok();
        let response = response.and_then(|bytes| ContainerAllocateResponse::decode(bytes.as_slice()).ok());
        let given = Given { devices: entry.devices, response: response.unwrap_or_default() };
        state.given.entry((entry.pod, entry.container)).or_default().insert(entry.resource, given);
    }
    for resource in data.registered_devices.unwrap_or_default().into_keys() {
        state.resources.insert(resource, BTreeMap::new());
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::device_plugin::Device;
    use std::collections::BTreeSet;

    #[test]
    fn survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::default();
        state.list("x.io/a", vec![Device { id: "1".into(), health: "Healthy".into(), topology: None }]);
        let envs = [("A".to_owned(), "b".to_owned())].into();
        let response = ContainerAllocateResponse { envs, ..Default::default() };
        state.give(("pod".into(), "main".into()), "x.io/a", BTreeSet::from(["1".into()]), response);
        write(dir.path(), &state).unwrap();
        let back = read(dir.path());
        assert_eq!(back.given, state.given);
        assert_eq!(back.counts("x.io/a"), (0, 0));
        assert!(back.is_known("x.io/a"));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(read(dir.path()).given.is_empty());
    }
}
