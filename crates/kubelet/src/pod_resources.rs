//! The pod-resources API (`pod-resources/kubelet.sock`): which devices and processors containers have, for whoever
//! measures them. Upstream: `apis/podresources`.

use crate::context::Context;
use crate::devices::{Given, NO_NODE};
use crate::memory::Block;
use crate::metrics::PodResources as PodResourcesMetrics;
use crate::plugins::pod_resources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use crate::plugins::pod_resources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, CdiDevice, ClaimResource, ContainerDevices,
    ContainerMemory, ContainerResources, DynamicResource, GetPodResourcesRequest, GetPodResourcesResponse,
    ListPodResourcesRequest, ListPodResourcesResponse, NumaNode, PodResources, TopologyInfo,
};
use crate::pods::Pods;
use api::core::v1::{Container, Pod};
use component::metrics::CounterVec;
use rules::container_status::is_restartable_init_container;
use rules::pod_conditions::is_terminal;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The version of the API.
const VERSION: &str = "v1";

/// Answers until shutdown.
pub(crate) async fn serve(
    context: Arc<Context>,
    pods: Arc<Pods>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let socket = context.config.root_dir.join("pod-resources/kubelet.sock");
    let incoming = crate::plugins::listen(&socket)?;
    tonic::transport::Server::builder()
        .add_service(PodResourcesListerServer::new(Lister { context, pods }))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

struct Lister {
    context: Arc<Context>,
    pods: Arc<Pods>,
}

fn topology(nodes: &[i64]) -> Option<TopologyInfo> {
    let nodes: Vec<NumaNode> =
        nodes.iter().filter(|node| **node != NO_NODE).map(|node| NumaNode { id: *node }).collect();
    (!nodes.is_empty()).then_some(TopologyInfo { nodes })
}

fn devices(given: &BTreeMap<String, Given>) -> Vec<ContainerDevices> {
    let each = given.iter().flat_map(|(resource, given)| {
        given.devices.iter().map(|(node, ids)| ContainerDevices {
            resource_name: resource.clone(),
            device_ids: ids.clone(),
            topology: topology(&[*node]),
        })
    });
    each.collect()
}

fn memory(block: Block) -> ContainerMemory {
    let nodes: Vec<i64> = block.nodes.into_iter().map(i64::from).collect();
    ContainerMemory { memory_type: block.resource, size: block.size, topology: topology(&nodes) }
}

impl Lister {
    /// The claims of a container, with the devices that drivers have prepared for its requests.
    fn claims(&self, pod: &Pod, container: &Container) -> Vec<DynamicResource> {
        let prepared = self.context.claims.of_pod(&pod.metadata.uid);
        let asked = |claim: &crate::claims::Claim| {
            let of_pod = pod.spec.resource_claims.iter().find(|wanted| {
                let status =
                    pod.status.resource_claim_statuses.iter().find(|status| status.name == wanted.name);
                let made = status.and_then(|status| status.resource_claim_name.as_ref());
                wanted.resource_claim_name.as_ref().or(made) == Some(&claim.name)
            })?;
            container.resources.claims.iter().find(|wanted| wanted.name == of_pod.name)
        };
        let each = prepared.iter().filter_map(|claim| {
            let request = &asked(claim)?.request;
            let devices =
                claim.drivers.iter().flat_map(|(driver, devices)| devices.iter().map(move |d| (driver, d)));
            let wanted = devices.filter(|(_, device)| device.is_for(request));
            let claim_resources = wanted.map(|(driver, device)| ClaimResource {
                cdi_devices: device
                    .cdi_device_ids
                    .iter()
                    .map(|name| CdiDevice { name: name.clone() })
                    .collect(),
                driver_name: driver.clone(),
                pool_name: device.pool_name.clone(),
                device_name: device.device_name.clone(),
                share_id: device.share_id.clone(),
            });
            Some(DynamicResource {
                claim_name: claim.name.clone(),
                claim_namespace: claim.namespace.clone(),
                claim_resources: claim_resources.collect(),
            })
        });
        each.collect()
    }

    /// Counts a request of this kind.
    fn count(&self, pick: impl Fn(&PodResourcesMetrics) -> &CounterVec) {
        let metrics = &self.context.metrics.managers.pod_resources;
        metrics.all.with(&[VERSION]).inc();
        pick(metrics).with(&[VERSION]).inc();
    }

    fn of_pod(&self, pod: &Pod) -> PodResources {
        let given = self.context.devices.given();
        let uid = &pod.metadata.uid;
        let sidecars = pod.spec.init_containers.iter().filter(|c| is_restartable_init_container(c));
        let containers = sidecars.chain(&pod.spec.containers).map(|container| {
            let own = given.get(&(uid.clone(), container.name.clone()));
            let cpus = self.context.cpus.as_ref().and_then(|cpus| cpus.own(uid, &container.name));
            ContainerResources {
                name: container.name.clone(),
                devices: own.map(devices).unwrap_or_default(),
                dynamic_resources: self.claims(pod, container),
                cpu_ids: cpus.into_iter().flat_map(|set| set.0).map(i64::from).collect(),
                memory: self
                    .context
                    .memory
                    .iter()
                    .flat_map(|m| m.blocks(uid, &container.name))
                    .map(memory)
                    .collect(),
            }
        });
        PodResources {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            containers: containers.collect(),
        }
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.count(|metrics| &metrics.list);
        let active = self.pods.list().into_iter().filter(|mailbox| !is_terminal(&mailbox.status().phase));
        let pod_resources = active.map(|mailbox| self.of_pod(&mailbox.letter().pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        self.count(|metrics| &metrics.allocatable);
        let healthy = self.context.devices.allocatable().into_iter();
        let devices = healthy.map(|(resource_name, id, nodes)| ContainerDevices {
            resource_name,
            device_ids: vec![id],
            topology: topology(&nodes),
        });
        let cpus = self.context.cpus.as_ref().map(crate::cpus::Cpus::allocatable);
        Ok(Response::new(AllocatableResourcesResponse {
            devices: devices.collect(),
            cpu_ids: cpus.into_iter().flat_map(|set| set.0).map(i64::from).collect(),
            memory: self.context.memory.iter().flat_map(|m| m.allocatable()).map(memory).collect(),
        }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        self.count(|metrics| &metrics.get);
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let mailbox = self.pods.named(&pod_namespace, &pod_name);
        let refused = |why: &str| {
            self.context.metrics.managers.pod_resources.get_errors.with(&[VERSION]).inc();
            Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} {why}"))
        };
        let mailbox = mailbox.ok_or_else(|| refused("not found"))?;
        if is_terminal(&mailbox.status().phase) {
            return Err(refused("is not active"));
        }
        let pod_resources = Some(self.of_pod(&mailbox.letter().pod));
        Ok(Response::new(GetPodResourcesResponse { pod_resources }))
    }
}
