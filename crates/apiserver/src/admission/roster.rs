//! All plugins, in upstream's order, and which of them run unless flags say otherwise.
//!
//! Where to add one: a line in [`ROSTER`].

use super::always::Always;
use super::certificates::{Certificates, Check};
use super::configuration::Configuration;
use super::default_classes::{self, DefaultClass};
use super::lookup::Objects;
use super::webhook::{Phase, Webhooks};
use super::{
    Deps, Options, Plugin, always_pull_images, claim_resize, claim_status, default_toleration_seconds,
    deny_service_external_ips, event_rate_limit, extended_resource_toleration, image_policy_webhook,
    job_validation, limit_ranger, namespace_auto_provision, namespace_exists, namespace_lifecycle,
    node_declared_features, node_restriction, owner_references, pod_anti_affinity, pod_group_workload,
    pod_node_selector, pod_resize, pod_security, pod_toleration_restriction, pod_topology_labels, policy,
    priority, resource_quota, runtime_class, service_account, simple,
};
use crate::authz::escalation::Escalation;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether a plugin runs when flags do not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    On,
    Off,
    /// Part of the server and no matter of flags: upstream has it elsewhere.
    Always,
}

/// A plugin that could not be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its configuration cannot be read.
    Configuration(String),
    /// It can, and does not hold.
    Initialization(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Configuration(why)
    }
}

/// A plugin; none where there is nothing for it to do: its resource is not served, its feature is off.
pub(super) type Made = Result<Option<Arc<dyn Plugin>>, Fault>;

/// One plugin.
pub(super) struct Row {
    /// As flags spell it.
    pub name: &'static str,
    pub standing: Standing,
    make: fn(&Room<'_>) -> Made,
}

/// What plugins are made of.
pub(super) struct Room<'a> {
    pub deps: &'a Deps,
    pub options: &'a Options,
    /// The plugin's own part of the configuration.
    pub configuration: Option<String>,
    /// One of each resource, so that what one plugin read the others need not.
    objects: RefCell<HashMap<Resource, Arc<Objects>>>,
}

/// Group, version and resource.
type Resource = (&'static str, &'static str, &'static str);

const NAMESPACES: Resource = ("", "v1", "namespaces");
const PODS: Resource = ("", "v1", "pods");
const NODES: Resource = ("", "v1", "nodes");
const POD_GROUPS: Resource = ("scheduling.k8s.io", "v1alpha2", "podgroups");
const WORKLOADS: Resource = ("scheduling.k8s.io", "v1alpha2", "workloads");
const DEVICE_CLASSES: Resource = ("resource.k8s.io", "v1", "deviceclasses");
const RESOURCE_CLAIMS: Resource = ("resource.k8s.io", "v1", "resourceclaims");
const STORAGE_CLASSES: Resource = ("storage.k8s.io", "v1", "storageclasses");

impl Room<'_> {
    /// The objects of a resource, if it is served.
    pub(super) fn objects(&self, resource: Resource) -> Option<Arc<Objects>> {
        if let Some(known) = self.objects.borrow().get(&resource) {
            return Some(known.clone());
        }
        let (group, version, name) = resource;
        let served = self.deps.resources.get(group, version, name)?;
        let objects = Arc::new(Objects::new(self.deps.store.clone(), served));
        self.objects.borrow_mut().insert(resource, objects.clone());
        Some(objects)
    }

    /// A plugin that looks up one resource.
    fn over<P: Plugin + 'static>(&self, resource: Resource, plugin: impl FnOnce(Arc<Objects>) -> P) -> Made {
        Ok(self.objects(resource).map(plugin).map(boxed))
    }

    /// Such a plugin, of a feature.
    fn gated<P: Plugin + 'static>(
        &self,
        gate: &str,
        resource: Resource,
        plugin: impl FnOnce(Arc<Objects>) -> P,
    ) -> Made {
        if (self.deps.gates)(gate) { self.over(resource, plugin) } else { Ok(None) }
    }
}

fn boxed(plugin: impl Plugin + 'static) -> Arc<dyn Plugin> {
    Arc::new(plugin)
}

fn made(plugin: impl Plugin + 'static) -> Made {
    Ok(Some(boxed(plugin)))
}

const fn on(name: &'static str, make: fn(&Room<'_>) -> Made) -> Row {
    Row { name, standing: Standing::On, make }
}

const fn off(name: &'static str, make: fn(&Room<'_>) -> Made) -> Row {
    Row { name, standing: Standing::Off, make }
}

const fn always(name: &'static str, make: fn(&Room<'_>) -> Made) -> Row {
    Row { name, standing: Standing::Always, make }
}

fn certificates(room: &Room<'_>, check: Check) -> Made {
    made(Certificates { check, authorizers: room.deps.authorizers.clone() })
}

fn claim_status(room: &Room<'_>) -> Made {
    let tells_devices = (room.deps.gates)("DRAResourceClaimDeviceStatus");
    let plugin = claim_status::ClaimStatus { authorizers: room.deps.authorizers.clone(), tells_devices };
    Ok((room.deps.gates)(claim_status::GATE).then(|| boxed(plugin)))
}

fn node_restriction(room: &Room<'_>) -> Made {
    let Deps { store, resources, authorizers, .. } = room.deps;
    Ok(node_restriction::NodeRestriction::new(store, resources, authorizers).map(boxed))
}

fn owner_references(room: &Room<'_>) -> Made {
    made(owner_references::OwnerReferencesPermissionEnforcement {
        authorizers: room.deps.authorizers.clone(),
        resources: room.deps.resources.clone(),
    })
}

fn pod_security(room: &Room<'_>) -> Made {
    let configuration = pod_security::Configuration::read(room.configuration.as_deref())?;
    let (Some(namespaces), Some(pods)) = (room.objects(NAMESPACES), room.objects(PODS)) else {
        return Ok(None);
    };
    let measures = pod_security::Measures::new(&room.deps.metrics);
    made(pod_security::PodSecurity { namespaces, pods, measures, configuration })
}

fn image_policy(room: &Room<'_>) -> Made {
    let configuration = image_policy_webhook::read(room.configuration.as_deref())?;
    made(image_policy_webhook::ImagePolicyWebhook::new(configuration)?)
}

fn node_selector(room: &Room<'_>) -> Made {
    let selectors = pod_node_selector::selectors(room.configuration.as_deref());
    room.over(NAMESPACES, |namespaces| pod_node_selector::PodNodeSelector { namespaces, selectors })
}

fn toleration_restriction(room: &Room<'_>) -> Made {
    let configuration = pod_toleration_restriction::read(room.configuration.as_deref())?;
    room.over(NAMESPACES, |namespaces| pod_toleration_restriction::PodTolerationRestriction {
        namespaces,
        configuration,
    })
}

fn event_rate_limit(room: &Room<'_>) -> Made {
    let limits = event_rate_limit::read(room.configuration.as_deref())?;
    made(event_rate_limit::EventRateLimit::new(&limits))
}

fn default_storage_class(room: &Room<'_>) -> Made {
    room.over(STORAGE_CLASSES, |classes| DefaultClass {
        name: "DefaultStorageClass",
        classes,
        of: ("", "persistentvolumeclaims"),
        member: "storageClassName",
        annotation: "volume.beta.kubernetes.io/storage-class",
        marks: default_classes::STORAGE_MARKS,
    })
}

fn default_ingress_class(room: &Room<'_>) -> Made {
    room.over(("networking.k8s.io", "v1", "ingressclasses"), |classes| DefaultClass {
        name: "DefaultIngressClass",
        classes,
        of: ("networking.k8s.io", "ingresses"),
        member: "ingressClassName",
        annotation: "kubernetes.io/ingress.class",
        marks: default_classes::INGRESS_MARKS,
    })
}

fn webhooks(room: &Room<'_>, phase: Phase) -> Made {
    Ok(Webhooks::new(phase, room)?.map(boxed))
}

fn escalation(room: &Room<'_>) -> Made {
    let Deps { rbac, authorizers, store, resources, .. } = room.deps;
    made(Escalation {
        rbac: rbac.clone(),
        authorizers: authorizers.clone(),
        store: store.clone(),
        resources: resources.clone(),
    })
}

fn resource_quota(room: &Room<'_>) -> Made {
    let limited = resource_quota::limited::read(room.configuration.as_deref())?;
    let (classes, claims) = (room.objects(DEVICE_CLASSES), room.objects(RESOURCE_CLAIMS));
    let devices = classes.zip(claims).zip(room.objects(PODS));
    // Without them no claim stands for what a pod asks for.
    let devices = devices.filter(|_| (room.deps.gates)("DRAExtendedResource"));
    let devices =
        devices.map(|((classes, claims), pods)| resource_quota::devices::Devices { classes, claims, pods });
    room.over(("", "v1", "resourcequotas"), |quotas| resource_quota::ResourceQuota {
        quotas,
        devices,
        limited,
    })
}

pub(super) const ROSTER: &[Row] = &[
    off("AlwaysAdmit", |_| made(Always::Admit.warned())),
    off("NamespaceAutoProvision", |room| {
        room.over(NAMESPACES, namespace_auto_provision::NamespaceAutoProvision)
    }),
    on("NamespaceLifecycle", |room| room.over(NAMESPACES, namespace_lifecycle::NamespaceLifecycle)),
    off("NamespaceExists", |room| room.over(NAMESPACES, namespace_exists::NamespaceExists)),
    off("LimitPodHardAntiAffinityTopology", |_| made(pod_anti_affinity::LimitPodHardAntiAffinityTopology)),
    on("LimitRanger", |room| room.over(("", "v1", "limitranges"), limit_ranger::LimitRanger)),
    on("ServiceAccount", |room| room.over(("", "v1", "serviceaccounts"), service_account::ServiceAccount)),
    off("NodeRestriction", node_restriction),
    on("TaintNodesByCondition", |_| made(simple::TaintNodesByCondition)),
    off("AlwaysPullImages", |_| made(always_pull_images::AlwaysPullImages)),
    off("ImagePolicyWebhook", image_policy),
    on("PodSecurity", pod_security),
    off("PodNodeSelector", node_selector),
    on("Priority", |room| room.over(("scheduling.k8s.io", "v1", "priorityclasses"), priority::Priority)),
    on("DefaultTolerationSeconds", |room| made(default_toleration_seconds::of(room.options))),
    off("PodTolerationRestriction", toleration_restriction),
    off("EventRateLimit", event_rate_limit),
    off("ExtendedResourceToleration", |_| made(extended_resource_toleration::ExtendedResourceToleration)),
    on("DefaultStorageClass", default_storage_class),
    on("StorageObjectInUseProtection", |_| made(simple::StorageObjectInUseProtection)),
    // Nothing here takes the finalizer away again that upstream's plugin gives to PodGroups.
    on("PodGroupProtection", |_| Ok(None)),
    off("OwnerReferencesPermissionEnforcement", owner_references),
    on("PersistentVolumeClaimResize", |room| {
        room.over(STORAGE_CLASSES, claim_resize::PersistentVolumeClaimResize)
    }),
    on("RuntimeClass", |room| {
        room.over(("node.k8s.io", "v1", "runtimeclasses"), runtime_class::RuntimeClass)
    }),
    on("CertificateApproval", |room| certificates(room, Check::Approval)),
    on("CertificateSigning", |room| certificates(room, Check::Signing)),
    always("PodCertificateSigning", |room| certificates(room, Check::PodSigning)),
    always("ResourceClaimStatus", claim_status),
    on("ClusterTrustBundleAttest", |room| certificates(room, Check::Attest)),
    on("CertificateSubjectRestriction", |room| certificates(room, Check::Subject)),
    on("DefaultIngressClass", default_ingress_class),
    off("DenyServiceExternalIPs", |_| made(deny_service_external_ips::DenyServiceExternalIPs)),
    on("PodTopologyLabels", |room| {
        room.gated("PodTopologyLabelsAdmission", NODES, pod_topology_labels::PodTopologyLabels)
    }),
    on("PodGroupWorkloadExists", |room| {
        room.gated("GenericWorkload", WORKLOADS, pod_group_workload::PodGroupWorkloadExists)
    }),
    on("NodeDeclaredFeatureValidator", |room| {
        room.gated("NodeDeclaredFeatures", NODES, node_declared_features::NodeDeclaredFeatureValidator)
    }),
    on("JobValidation", |room| room.gated("GenericWorkload", POD_GROUPS, job_validation::JobValidation)),
    on("PodResizeValidator", |room| room.over(NODES, pod_resize::PodResizeValidator)),
    always("ParamAccess", |room| made(policy::ParamAccess::new(room.deps))),
    // What policies change, webhooks see.
    on("MutatingAdmissionPolicy", |room| Ok(policy::MutatingAdmissionPolicy::new(room.deps).map(boxed))),
    on("MutatingAdmissionWebhook", |room| webhooks(room, Phase::Mutating)),
    on("ValidatingAdmissionPolicy", |room| Ok(policy::ValidatingAdmissionPolicy::new(room.deps).map(boxed))),
    on("ValidatingAdmissionWebhook", |room| webhooks(room, Phase::Validating)),
    // Behind all that change objects: what is checked is what is written.
    always("RBACEscalation", escalation),
    // Behind all that refuse: what is charged is what nobody else refuses.
    on("ResourceQuota", resource_quota),
    off("AlwaysDeny", |_| made(Always::Deny.warned())),
];

/// The plugins that run, in order, or why one of them cannot.
pub(super) fn plugins(deps: &Deps, options: &Options) -> Result<Vec<Arc<dyn Plugin>>, String> {
    let configuration = match &options.configuration {
        Some(path) => {
            Configuration::load(path).map_err(|why| format!("failed to read plugin config: {why}"))?
        }
        None => Configuration::default(),
    };
    let mut room = Room { deps, options, configuration: None, objects: RefCell::default() };
    let mut all = Vec::new();
    for row in ROSTER.iter().filter(|row| options.runs(row)) {
        room.configuration = configuration.of(row.name)?;
        let plugin = (row.make)(&room).map_err(|fault| match fault {
            Fault::Configuration(why) => format!("couldn't init admission plugin {:?}: {why}", row.name),
            Fault::Initialization(why) => {
                format!("failed to initialize admission plugin {:?}: {why}", row.name)
            }
        })?;
        all.extend(plugin);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's list, and its order; what has a star runs by default.
    const UPSTREAM: &str = "AlwaysAdmit NamespaceAutoProvision NamespaceLifecycle* NamespaceExists \
        LimitPodHardAntiAffinityTopology LimitRanger* ServiceAccount* NodeRestriction TaintNodesByCondition* \
        AlwaysPullImages ImagePolicyWebhook PodSecurity* PodNodeSelector Priority* DefaultTolerationSeconds* \
        PodTolerationRestriction EventRateLimit ExtendedResourceToleration DefaultStorageClass* \
        StorageObjectInUseProtection* PodGroupProtection* OwnerReferencesPermissionEnforcement \
        PersistentVolumeClaimResize* RuntimeClass* CertificateApproval* CertificateSigning* \
        ClusterTrustBundleAttest* CertificateSubjectRestriction* DefaultIngressClass* DenyServiceExternalIPs \
        PodTopologyLabels* PodGroupWorkloadExists* NodeDeclaredFeatureValidator* JobValidation* \
        PodResizeValidator* MutatingAdmissionPolicy* MutatingAdmissionWebhook* ValidatingAdmissionPolicy* \
        ValidatingAdmissionWebhook* ResourceQuota* AlwaysDeny";

    #[test]
    fn names_and_order_are_upstreams() {
        let told = |row: &Row| match row.standing {
            Standing::On => Some(format!("{}*", row.name)),
            Standing::Off => Some(row.name.to_owned()),
            Standing::Always => None,
        };
        let ours: Vec<String> = ROSTER.iter().filter_map(told).collect();
        assert_eq!(ours, UPSTREAM.split_whitespace().collect::<Vec<_>>());
    }
}
