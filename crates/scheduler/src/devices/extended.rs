//! Extended resources that a node has not got itself, but a class of devices gives: the claim that stands for them. Upstream:
//! KEP-5004.

use super::Devices;
use super::rows::Claim;
use crate::facts::PodInfo;
use crate::framework::Candidate;
use api::core::v1::{Container, ContainerExtendedResourceRequest};
use api::resource::v1::{DeviceClaim, DeviceRequest, ExactDeviceRequest};
use rules::quota::may_be_devices;
use std::collections::BTreeSet;

/// What is to be claimed for a pod on a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extended {
    pub requests: Vec<DeviceRequest>,
    /// Which request gives a container which resource.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

/// Whether a class gives anything that the pod asks for.
pub fn asks(devices: &Devices, pod: &PodInfo) -> bool {
    pod.facts.requests.iter().any(|(name, _)| may_be_devices(name) && devices.gives(name))
}

impl Extended {
    /// What of a pod's resources a node has not got, and devices are to give; nothing when the node has it all. A resource
    /// that neither has is what the pod does not fit for.
    pub fn on(devices: &Devices, pod: &PodInfo, node: Candidate<'_>) -> Result<Option<Self>, &'static str> {
        let mut by_devices = BTreeSet::new();
        for (name, _) in pod.facts.requests.iter().filter(|(name, _)| may_be_devices(name)) {
            let has = node.facts.allocatable.get(name);
            if has == 0 && devices.gives(name) {
                by_devices.insert(name);
            } else if has == 0 {
                return Err("cannot fit resource");
            }
        }
        let extended = Extended::of(devices, pod, &by_devices);
        Ok((!by_devices.is_empty()).then_some(extended))
    }

    /// The claim that stands for it until it is made.
    pub fn claim(&self, pod: &PodInfo) -> Claim {
        Claim {
            namespace: pod.namespace().to_owned(),
            name: "<extended-resources>".into(),
            uid: pod.facts.uid.to_string(),
            controller: Some(pod.facts.uid.to_string()),
            extended: true,
            asks: DeviceClaim { requests: self.requests.clone(), ..Default::default() },
            ..Default::default()
        }
    }

    fn of(devices: &Devices, pod: &PodInfo, resources: &BTreeSet<&str>) -> Self {
        let mut extended = Extended::default();
        for resource in resources {
            if let Some(class) = devices.class_for(resource) {
                extended.add(pod, resource, &class.name);
            }
        }
        extended.requests.sort_by(|one, other| one.name.cmp(&other.name));
        extended
    }

    /// What all containers ask for of a resource. Those that run on have devices of their own; one that has ended before
    /// uses those of the containers behind it, and all of these share the most that any of them asks for beyond.
    fn add(&mut self, pod: &PodInfo, resource: &str, class: &str) {
        let spec = &pod.pod.spec;
        let init = spec.init_containers.iter().enumerate();
        let ends = |container: &Container| container.restart_policy.as_deref() != Some("Always");
        let short: Vec<_> = init.clone().filter(|(_, container)| ends(container)).collect();
        let sidecars = init.filter(|(_, container)| !ends(container));
        let mains = spec.containers.iter().enumerate().map(|(i, c)| (i + spec.init_containers.len(), c));
        let mut lasting = Vec::new();
        for (i, container) in sidecars.chain(mains) {
            let Some(wants) = wants(container, resource) else { continue };
            let request = request(i, wants.index, class, wants.count);
            self.mappings.push(mapping(container, resource, &request.name));
            lasting.push((i, request));
        }
        let mut most: Option<DeviceRequest> = None;
        let mut mappings = Vec::new();
        let mut beyond = BTreeSet::new();
        for (i, container) in short {
            let Some(wants) = wants(container, resource) else { continue };
            let mut open = wants.count;
            for (_, later) in lasting.iter().filter(|(at, _)| *at >= i) {
                if open <= 0 {
                    break;
                }
                open -= count(later);
                mappings.push(mapping(container, resource, &later.name));
            }
            if open <= 0 {
                continue;
            }
            let request = request(i, wants.index, class, open);
            mappings.push(mapping(container, resource, &request.name));
            beyond.insert(request.name.clone());
            if most.as_ref().is_none_or(|most| count(most) < open) {
                most = Some(request);
            }
        }
        if let Some(most) = &most {
            for mapping in mappings.iter_mut().filter(|mapping| beyond.contains(&mapping.request_name)) {
                mapping.request_name = most.name.clone();
            }
        }
        self.mappings.append(&mut mappings);
        self.requests.extend(most);
        self.requests.extend(lasting.into_iter().map(|(_, request)| request));
    }
}

struct Wants {
    count: i64,
    /// Its place among what the container asks for, by name.
    index: usize,
}

fn wants(container: &Container, resource: &str) -> Option<Wants> {
    let requests = &container.resources.requests;
    let index = requests.keys().position(|name| name == resource)?;
    let count = requests.get(resource)?.as_i64().filter(|count| *count != 0)?;
    Some(Wants { count, index })
}

fn request(container: usize, index: usize, class: &str, count: i64) -> DeviceRequest {
    let exact = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: "ExactCount".into(),
        count,
        ..Default::default()
    };
    DeviceRequest {
        name: format!("container-{container}-request-{index}"),
        exactly: Some(exact),
        ..Default::default()
    }
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().map_or(0, |exact| exact.count)
}

fn mapping(container: &Container, resource: &str, request: &str) -> ContainerExtendedResourceRequest {
    ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    }
}
