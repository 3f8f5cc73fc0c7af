//! The roles and bindings that every cluster has: one row each. Words of a rule are separated by spaces; an empty API
//! group is written `core`.

/// A rule of a role.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub verbs: &'static str,
    pub groups: &'static str,
    pub resources: &'static str,
    pub names: &'static str,
    pub urls: &'static str,
}

/// A role; in a namespace when that is not empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    pub namespace: &'static str,
    pub name: &'static str,
    /// `admin`, `edit` or `view`: the role that takes these rules in.
    pub aggregate_to: &'static str,
    /// The role takes in the rules of those that aggregate to it.
    pub aggregates: bool,
    pub rules: &'static [Rule],
}

/// A binding of a role; subjects are `user:…`, `group:…` or `sa:namespace/name`, separated by spaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub namespace: &'static str,
    pub name: &'static str,
    pub role_kind: &'static str,
    pub role: &'static str,
    pub subjects: &'static str,
}

pub(super) const fn rule(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    Rule { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Rule {
    Rule { verbs, groups, resources, names, urls: "" }
}

const fn urls(verbs: &'static str, urls: &'static str) -> Rule {
    Rule { verbs, groups: "", resources: "", names: "", urls }
}

pub(super) const fn role(name: &'static str, rules: &'static [Rule]) -> Role {
    Role { namespace: "", name, aggregate_to: "", aggregates: false, rules }
}

const fn part(
    name: &'static str,
    aggregate_to: &'static str,
    aggregates: bool,
    rules: &'static [Rule],
) -> Role {
    Role { namespace: "", name, aggregate_to, aggregates, rules }
}

pub(super) const fn within(namespace: &'static str, name: &'static str, rules: &'static [Rule]) -> Role {
    Role { namespace, name, aggregate_to: "", aggregates: false, rules }
}

pub(super) const fn binding(name: &'static str, role: &'static str, subjects: &'static str) -> Binding {
    Binding { namespace: "", name, role_kind: "ClusterRole", role, subjects }
}

pub(super) const fn binding_in(
    namespace: &'static str,
    name: &'static str,
    role_kind: &'static str,
    role: &'static str,
    subjects: &'static str,
) -> Binding {
    Binding { namespace, name, role_kind, role, subjects }
}

/// Roles of users, components and discovery.
pub(super) const CLUSTER_ROLES: &[Role] = &[
    part("admin", "", true, &[]),
    role("cluster-admin", &[rule("*", "*", "*"), urls("*", "*")]),
    part("edit", "admin", true, &[]),
    part(
        "system:aggregate-to-admin",
        "admin",
        false,
        &[
            rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            rule(
                "create delete deletecollection get list patch update watch",
                "rbac.authorization.k8s.io",
                "rolebindings roles",
            ),
        ],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        false,
        &[
            rule(
                "get list watch",
                "core",
                "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            ),
            rule("impersonate", "core", "serviceaccounts"),
            rule(
                "create delete deletecollection patch update",
                "core",
                "pods pods/attach pods/exec pods/portforward pods/proxy",
            ),
            rule("create", "core", "pods/eviction"),
            rule(
                "create delete deletecollection patch update",
                "core",
                "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            ),
            rule("create", "core", "serviceaccounts/token"),
            rule("create delete deletecollection patch update", "core events.k8s.io", "events"),
            rule(
                "create delete deletecollection patch update",
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            ),
            rule("create delete deletecollection patch update", "autoscaling", "horizontalpodautoscalers"),
            rule("create delete deletecollection patch update", "batch", "cronjobs jobs"),
            rule(
                "create delete deletecollection patch update",
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale",
            ),
            rule("create delete deletecollection patch update", "policy", "poddisruptionbudgets"),
            rule(
                "create delete deletecollection patch update",
                "networking.k8s.io",
                "ingresses networkpolicies",
            ),
            rule(
                "create delete deletecollection get list patch update watch",
                "coordination.k8s.io",
                "leases",
            ),
            rule(
                "create delete deletecollection patch update",
                "resource.k8s.io",
                "resourceclaims resourceclaimtemplates",
            ),
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        false,
        &[
            rule(
                "get list watch",
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            rule(
                "get list watch",
                "core",
                "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            rule("get list watch", "core", "namespaces"),
            rule("get list watch", "core events.k8s.io", "events"),
            rule("get list watch", "discovery.k8s.io", "endpointslices"),
            rule(
                "get list watch",
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            rule("get list watch", "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            rule("get list watch", "batch", "cronjobs cronjobs/status jobs jobs/status"),
            rule(
                "get list watch",
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
            ),
            rule("get list watch", "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            rule("get list watch", "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            rule(
                "get list watch",
                "resource.k8s.io",
                "resourceclaims resourceclaims/status resourceclaimtemplates",
            ),
        ],
    ),
    role(
        "system:auth-delegator",
        &[
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role(
        "system:basic-user",
        &[
            rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            rule("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[rule("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving")],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown")],
    ),
    role(
        "system:discovery",
        &[urls(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    role(
        "system:heapster",
        &[
            rule("get list watch", "core", "events namespaces nodes pods"),
            rule("get list watch", "extensions", "deployments"),
        ],
    ),
    role("system:kube-aggregator", &[rule("get list watch", "core", "endpoints services")]),
    role(
        "system:kube-controller-manager",
        &[
            rule("create patch update", "core events.k8s.io", "events"),
            rule("create", "coordination.k8s.io", "leases"),
            named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
            rule("create", "core", "secrets serviceaccounts"),
            rule("delete", "core", "secrets"),
            rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
            rule("update", "core", "secrets serviceaccounts"),
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            rule("list watch", "*", "*"),
            rule("create", "core", "serviceaccounts/token"),
        ],
    ),
    role("system:kube-dns", &[rule("list watch", "core", "endpoints services")]),
    role(
        "system:kube-scheduler",
        &[
            rule("create patch update", "core events.k8s.io", "events"),
            rule("create", "coordination.k8s.io", "leases"),
            named("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
            rule(
                "create delete deletecollection get list patch update watch",
                "coordination.k8s.io",
                "leasecandidates",
            ),
            rule("get list watch", "core", "nodes"),
            rule("delete get list watch", "core", "pods"),
            rule("create", "core", "bindings pods/binding"),
            rule("patch update", "core", "pods/status"),
            rule("get list watch", "core", "replicationcontrollers services"),
            rule("get list watch", "apps extensions", "replicasets"),
            rule("get list watch", "apps", "statefulsets"),
            rule("get list watch", "policy", "poddisruptionbudgets"),
            rule("get list watch", "core", "persistentvolumeclaims persistentvolumes"),
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            rule("get list watch", "storage.k8s.io", "csinodes"),
            rule("get list watch", "storage.k8s.io", "volumeattachments"),
            rule("get list watch", "core", "namespaces"),
            rule("get list watch", "storage.k8s.io", "csidrivers"),
            rule("get list watch", "storage.k8s.io", "csistoragecapacities"),
            rule("get list watch", "resource.k8s.io", "deviceclasses"),
            rule("get list patch update watch", "resource.k8s.io", "resourceclaims"),
            rule("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
            rule("update", "core", "pods/finalizers"),
            rule("get list watch", "resource.k8s.io", "resourceslices"),
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            rule("get list watch", "core", "nodes"),
            rule("proxy", "core", "nodes"),
            rule("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
            rule("*", "core", "nodes/configz nodes/healthz nodes/pods"),
        ],
    ),
    role(
        "system:monitoring",
        &[
            urls(
                "get",
                "/flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz",
            ),
            rule("get", "core", "nodes/metrics"),
        ],
    ),
    role(
        "system:node",
        &[
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
            rule("get list watch", "core", "services"),
            rule("create get list watch", "core", "nodes"),
            rule("patch update", "core", "nodes/status"),
            rule("patch update", "core", "nodes"),
            rule("create patch update", "core events.k8s.io", "events"),
            rule("get list watch", "core", "pods"),
            rule("create delete", "core", "pods"),
            rule("patch update", "core", "pods/status"),
            rule("create", "core", "pods/eviction"),
            rule("get list watch", "core", "configmaps secrets"),
            rule("get", "core", "persistentvolumeclaims persistentvolumes"),
            rule("get", "core", "endpoints"),
            rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            rule("create delete get patch update", "coordination.k8s.io", "leases"),
            rule("get", "storage.k8s.io", "volumeattachments"),
            rule("create", "core", "serviceaccounts/token"),
            rule("get patch update", "core", "persistentvolumeclaims/status"),
            rule("get list watch", "storage.k8s.io", "csidrivers"),
            rule("create delete get patch update", "storage.k8s.io", "csinodes"),
            rule("get list watch", "node.k8s.io", "runtimeclasses"),
            rule("get", "resource.k8s.io", "resourceclaims"),
            rule("deletecollection", "resource.k8s.io", "resourceslices"),
            rule("get", "core", "serviceaccounts"),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
    ),
    role(
        "system:node-problem-detector",
        &[
            rule("get", "core", "nodes"),
            rule("patch", "core", "nodes/status"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:node-proxier",
        &[
            rule("list watch", "core", "endpoints services"),
            rule("get list watch", "core", "nodes"),
            rule("create patch update", "core events.k8s.io", "events"),
            rule("list watch", "networking.k8s.io", "servicecidrs"),
            rule("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            rule("create delete get list watch", "core", "persistentvolumes"),
            rule("get list update watch", "core", "persistentvolumeclaims"),
            rule("get list watch", "storage.k8s.io", "storageclasses"),
            rule("watch", "core", "events"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role("system:public-info-viewer", &[urls("get", "/healthz /livez /readyz /version /version/")]),
    role(
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:volume-scheduler",
        &[
            rule("get list patch update watch", "core", "persistentvolumes"),
            rule("get list watch", "storage.k8s.io", "storageclasses"),
            rule("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
    part("view", "edit", true, &[]),
];

/// Roles of the controllers, one each.
pub(super) const CONTROLLER_ROLES: &[Role] = &[
    role(
        "system:controller:attachdetach-controller",
        &[
            rule("list watch", "core", "persistentvolumeclaims persistentvolumes"),
            rule("get list watch", "core", "nodes"),
            rule("patch update", "core", "nodes/status"),
            rule("list watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
            rule("create delete get list watch", "storage.k8s.io", "volumeattachments"),
            rule("get list watch", "storage.k8s.io", "csidrivers"),
            rule("get list watch", "storage.k8s.io", "csinodes"),
        ],
    ),
    role(
        "system:controller:certificate-controller",
        &[
            rule("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            rule(
                "update",
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
            ),
            named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
            named(
                "sign",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:clusterrole-aggregation-controller",
        &[rule("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    role(
        "system:controller:cronjob-controller",
        &[
            rule("get list update watch", "batch", "cronjobs"),
            rule("create delete get list patch update watch", "batch", "jobs"),
            rule("update", "batch", "cronjobs/status"),
            rule("update", "batch", "cronjobs/finalizers"),
            rule("delete list watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:daemon-set-controller",
        &[
            rule("get list watch", "apps extensions", "daemonsets"),
            rule("update", "apps extensions", "daemonsets/status"),
            rule("update", "apps extensions", "daemonsets/finalizers"),
            rule("list watch", "core", "nodes"),
            rule("create delete list patch watch", "core", "pods"),
            rule("create", "core", "pods/binding"),
            rule("create delete get list patch update watch", "apps", "controllerrevisions"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:deployment-controller",
        &[
            rule("get list update watch", "apps extensions", "deployments"),
            rule("update", "apps extensions", "deployments/status"),
            rule("update", "apps extensions", "deployments/finalizers"),
            rule("create delete get list patch update watch", "apps extensions", "replicasets"),
            rule("get list update watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:disruption-controller",
        &[
            rule("get list watch", "apps extensions", "deployments"),
            rule("get list watch", "apps extensions", "replicasets"),
            rule("get list watch", "core", "replicationcontrollers"),
            rule("get list watch", "policy", "poddisruptionbudgets"),
            rule("get list watch", "apps", "statefulsets"),
            rule("update", "policy", "poddisruptionbudgets/status"),
            rule("patch update", "core", "pods/status"),
            rule("get", "*", "*/scale"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:endpoint-controller",
        &[
            rule("get list watch", "core", "pods services"),
            rule("create delete get list update watch", "core", "endpoints"),
            rule("create", "core", "endpoints/restricted"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:endpointslice-controller",
        &[
            rule("get list watch", "core", "nodes pods services"),
            rule("update", "core", "services/finalizers"),
            rule("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            rule("create", "discovery.k8s.io", "endpointslices/restricted"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:endpointslicemirroring-controller",
        &[
            rule("get list watch", "core", "endpoints services"),
            rule("update", "core", "services/finalizers"),
            rule("update", "core", "endpoints/finalizers"),
            rule("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            rule("create", "discovery.k8s.io", "endpointslices/restricted"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:ephemeral-volume-controller",
        &[
            rule("get list watch", "core", "pods"),
            rule("update", "core", "pods/finalizers"),
            rule("create get list watch", "core", "persistentvolumeclaims"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:expand-controller",
        &[
            rule("get list patch update watch", "core", "persistentvolumes"),
            rule("patch update", "core", "persistentvolumeclaims/status"),
            rule("get list watch", "core", "persistentvolumeclaims"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:generic-garbage-collector",
        &[
            rule("delete get list patch update watch", "*", "*"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:horizontal-pod-autoscaler",
        &[
            rule("get list watch", "autoscaling", "horizontalpodautoscalers"),
            rule("update", "autoscaling", "horizontalpodautoscalers/status"),
            rule("get update", "*", "*/scale"),
            rule("list watch", "core", "pods"),
            rule("list watch", "metrics.k8s.io", "pods"),
            rule("get list watch", "custom.metrics.k8s.io", "*"),
            rule("get list watch", "external.metrics.k8s.io", "*"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:job-controller",
        &[
            rule("get list patch update watch", "batch", "jobs"),
            rule("update", "batch", "jobs/status"),
            rule("update", "batch", "jobs/finalizers"),
            rule("create delete list patch watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:legacy-service-account-token-cleaner",
        &[
            named("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
            rule("delete patch", "core", "secrets"),
        ],
    ),
    role(
        "system:controller:namespace-controller",
        &[
            rule("delete get list watch", "core", "namespaces"),
            rule("update", "core", "namespaces/finalize namespaces/status"),
            rule("delete deletecollection get list watch", "*", "*"),
        ],
    ),
    role(
        "system:controller:node-controller",
        &[
            rule("delete get list patch update watch", "core", "nodes"),
            rule("patch update", "core", "nodes/status"),
            rule("patch update", "core", "pods/status"),
            rule("delete get list watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:persistent-volume-binder",
        &[
            rule("create delete get list update watch", "core", "persistentvolumes"),
            rule("update", "core", "persistentvolumes/status"),
            rule("get list update watch", "core", "persistentvolumeclaims"),
            rule("update", "core", "persistentvolumeclaims/status"),
            rule("create delete get list watch", "core", "pods"),
            rule("get list watch", "storage.k8s.io", "storageclasses"),
            rule("list watch", "core", "nodes"),
            rule("create patch update", "core events.k8s.io", "events"),
            rule("watch", "core", "events"),
        ],
    ),
    role(
        "system:controller:pod-garbage-collector",
        &[
            rule("delete list watch", "core", "pods"),
            rule("get list watch", "core", "nodes"),
            rule("patch", "core", "pods/status"),
        ],
    ),
    role(
        "system:controller:pv-protection-controller",
        &[
            rule("get list update watch", "core", "persistentvolumes"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:pvc-protection-controller",
        &[
            rule("get list update watch", "core", "persistentvolumeclaims"),
            rule("update", "core", "persistentvolumeclaims/status"),
            rule("get list watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:replicaset-controller",
        &[
            rule("get list update watch", "apps extensions", "replicasets"),
            rule("update", "apps extensions", "replicasets/status"),
            rule("update", "apps extensions", "replicasets/finalizers"),
            rule("create delete list patch watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:replication-controller",
        &[
            rule("get list update watch", "core", "replicationcontrollers"),
            rule("update", "core", "replicationcontrollers/status"),
            rule("update", "core", "replicationcontrollers/finalizers"),
            rule("create delete list patch watch", "core", "pods"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:resource-claim-controller",
        &[
            rule("get list watch", "core", "pods"),
            rule("update", "core", "pods/finalizers"),
            rule("create delete get list watch", "resource.k8s.io", "resourceclaims"),
            rule("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
            rule("patch update", "core", "pods/status"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:resourcequota-controller",
        &[
            rule("list watch", "*", "*"),
            rule("update", "core", "resourcequotas/status"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:root-ca-cert-publisher",
        &[
            rule("create update", "core", "configmaps"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:route-controller",
        &[
            rule("list watch", "core", "nodes"),
            rule("patch", "core", "nodes/status"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:selinux-warning-controller",
        &[
            rule("create patch update", "core events.k8s.io", "events"),
            rule("get list watch", "core", "persistentvolumes"),
            rule("get list watch", "core", "persistentvolumeclaims"),
            rule("get list watch", "core", "pods"),
            rule("get list watch", "storage.k8s.io", "csidrivers"),
        ],
    ),
    role(
        "system:controller:service-account-controller",
        &[
            rule("create", "core", "serviceaccounts"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:service-ca-cert-publisher",
        &[
            rule("create update", "core", "configmaps"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:service-cidrs-controller",
        &[
            rule("get list patch update watch", "networking.k8s.io", "servicecidrs"),
            rule("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
            rule("patch update", "networking.k8s.io", "servicecidrs/status"),
            rule("get list watch", "networking.k8s.io", "ipaddresses"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:service-controller",
        &[
            rule("get list watch", "core", "services"),
            rule("patch update", "core", "services/status"),
            rule("list watch", "core", "nodes"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:statefulset-controller",
        &[
            rule("list watch", "core", "pods"),
            rule("get list watch", "apps", "statefulsets"),
            rule("update", "apps", "statefulsets/status"),
            rule("update", "apps", "statefulsets/finalizers"),
            rule("create delete get patch update", "core", "pods"),
            rule("create delete get list patch update watch", "apps", "controllerrevisions"),
            rule("create get list watch", "core", "persistentvolumeclaims"),
            rule("delete update", "core", "persistentvolumeclaims"),
            rule("update", "core", "pods/finalizers"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:ttl-after-finished-controller",
        &[
            rule("delete get list watch", "batch", "jobs"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:ttl-controller",
        &[
            rule("list patch update watch", "core", "nodes"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:validatingadmissionpolicy-status-controller",
        &[
            rule("get list watch", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            rule("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    role(
        "system:controller:volumeattributesclass-protection-controller",
        &[
            rule("get list watch", "core", "persistentvolumeclaims"),
            rule("get list watch", "core", "persistentvolumes"),
            rule("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
];

/// Roles within system namespaces.
pub(super) const NAMESPACE_ROLES: &[Role] = &[
    within(
        "kube-public",
        "system:controller:bootstrap-signer",
        &[
            rule("get list watch", "core", "configmaps"),
            named("update", "core", "configmaps", "cluster-info"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    within(
        "kube-system",
        "extension-apiserver-authentication-reader",
        &[named("get list watch", "core", "configmaps", "extension-apiserver-authentication")],
    ),
    within(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[
            rule("create get list update watch", "coordination.k8s.io", "leases"),
            rule("create get list update watch", "coordination.k8s.io", "leasecandidates"),
        ],
    ),
    within(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &[
            rule("create get list update watch", "coordination.k8s.io", "leases"),
            rule("create get list update watch", "coordination.k8s.io", "leasecandidates"),
        ],
    ),
    within("kube-system", "system:controller:bootstrap-signer", &[rule("get list watch", "core", "secrets")]),
    within(
        "kube-system",
        "system:controller:cloud-provider",
        &[rule("create get list watch", "core", "configmaps")],
    ),
    within(
        "kube-system",
        "system:controller:token-cleaner",
        &[
            rule("delete get list watch", "core", "secrets"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
];

/// Who has the cluster roles.
pub(super) const CLUSTER_ROLE_BINDINGS: &[Binding] = &[
    binding("cluster-admin", "cluster-admin", "group:system:masters"),
    binding("system:basic-user", "system:basic-user", "group:system:authenticated"),
    binding("system:discovery", "system:discovery", "group:system:authenticated"),
    binding(
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        "user:system:kube-controller-manager",
    ),
    binding("system:kube-dns", "system:kube-dns", "sa:kube-system/kube-dns"),
    binding("system:kube-scheduler", "system:kube-scheduler", "user:system:kube-scheduler"),
    binding("system:monitoring", "system:monitoring", "group:system:monitoring"),
    binding("system:node", "system:node", ""),
    binding("system:node-proxier", "system:node-proxier", "user:system:kube-proxy"),
    binding(
        "system:public-info-viewer",
        "system:public-info-viewer",
        "group:system:authenticated group:system:unauthenticated",
    ),
    binding(
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        "group:system:serviceaccounts",
    ),
    binding("system:volume-scheduler", "system:volume-scheduler", "user:system:kube-scheduler"),
];

/// Each controller's service account has its role.
pub(super) const CONTROLLER_ROLE_BINDINGS: &[Binding] = &[
    binding(
        "system:controller:attachdetach-controller",
        "system:controller:attachdetach-controller",
        "sa:kube-system/attachdetach-controller",
    ),
    binding(
        "system:controller:certificate-controller",
        "system:controller:certificate-controller",
        "sa:kube-system/certificate-controller",
    ),
    binding(
        "system:controller:clusterrole-aggregation-controller",
        "system:controller:clusterrole-aggregation-controller",
        "sa:kube-system/clusterrole-aggregation-controller",
    ),
    binding(
        "system:controller:cronjob-controller",
        "system:controller:cronjob-controller",
        "sa:kube-system/cronjob-controller",
    ),
    binding(
        "system:controller:daemon-set-controller",
        "system:controller:daemon-set-controller",
        "sa:kube-system/daemon-set-controller",
    ),
    binding(
        "system:controller:deployment-controller",
        "system:controller:deployment-controller",
        "sa:kube-system/deployment-controller",
    ),
    binding(
        "system:controller:disruption-controller",
        "system:controller:disruption-controller",
        "sa:kube-system/disruption-controller",
    ),
    binding(
        "system:controller:endpoint-controller",
        "system:controller:endpoint-controller",
        "sa:kube-system/endpoint-controller",
    ),
    binding(
        "system:controller:endpointslice-controller",
        "system:controller:endpointslice-controller",
        "sa:kube-system/endpointslice-controller",
    ),
    binding(
        "system:controller:endpointslicemirroring-controller",
        "system:controller:endpointslicemirroring-controller",
        "sa:kube-system/endpointslicemirroring-controller",
    ),
    binding(
        "system:controller:ephemeral-volume-controller",
        "system:controller:ephemeral-volume-controller",
        "sa:kube-system/ephemeral-volume-controller",
    ),
    binding(
        "system:controller:expand-controller",
        "system:controller:expand-controller",
        "sa:kube-system/expand-controller",
    ),
    binding(
        "system:controller:generic-garbage-collector",
        "system:controller:generic-garbage-collector",
        "sa:kube-system/generic-garbage-collector",
    ),
    binding(
        "system:controller:horizontal-pod-autoscaler",
        "system:controller:horizontal-pod-autoscaler",
        "sa:kube-system/horizontal-pod-autoscaler",
    ),
    binding(
        "system:controller:job-controller",
        "system:controller:job-controller",
        "sa:kube-system/job-controller",
    ),
    binding(
        "system:controller:legacy-service-account-token-cleaner",
        "system:controller:legacy-service-account-token-cleaner",
        "sa:kube-system/legacy-service-account-token-cleaner",
    ),
    binding(
        "system:controller:namespace-controller",
        "system:controller:namespace-controller",
        "sa:kube-system/namespace-controller",
    ),
    binding(
        "system:controller:node-controller",
        "system:controller:node-controller",
        "sa:kube-system/node-controller",
    ),
    binding(
        "system:controller:persistent-volume-binder",
        "system:controller:persistent-volume-binder",
        "sa:kube-system/persistent-volume-binder",
    ),
    binding(
        "system:controller:pod-garbage-collector",
        "system:controller:pod-garbage-collector",
        "sa:kube-system/pod-garbage-collector",
    ),
    binding(
        "system:controller:pv-protection-controller",
        "system:controller:pv-protection-controller",
        "sa:kube-system/pv-protection-controller",
    ),
    binding(
        "system:controller:pvc-protection-controller",
        "system:controller:pvc-protection-controller",
        "sa:kube-system/pvc-protection-controller",
    ),
    binding(
        "system:controller:replicaset-controller",
        "system:controller:replicaset-controller",
        "sa:kube-system/replicaset-controller",
    ),
    binding(
        "system:controller:replication-controller",
        "system:controller:replication-controller",
        "sa:kube-system/replication-controller",
    ),
    binding(
        "system:controller:resource-claim-controller",
        "system:controller:resource-claim-controller",
        "sa:kube-system/resource-claim-controller",
    ),
    binding(
        "system:controller:resourcequota-controller",
        "system:controller:resourcequota-controller",
        "sa:kube-system/resourcequota-controller",
    ),
    binding(
        "system:controller:root-ca-cert-publisher",
        "system:controller:root-ca-cert-publisher",
        "sa:kube-system/root-ca-cert-publisher",
    ),
    binding(
        "system:controller:route-controller",
        "system:controller:route-controller",
        "sa:kube-system/route-controller",
    ),
    binding(
        "system:controller:selinux-warning-controller",
        "system:controller:selinux-warning-controller",
        "sa:kube-system/selinux-warning-controller",
    ),
    binding(
        "system:controller:service-account-controller",
        "system:controller:service-account-controller",
        "sa:kube-system/service-account-controller",
    ),
    binding(
        "system:controller:service-ca-cert-publisher",
        "system:controller:service-ca-cert-publisher",
        "sa:kube-system/service-ca-cert-publisher",
    ),
    binding(
        "system:controller:service-cidrs-controller",
        "system:controller:service-cidrs-controller",
        "sa:kube-system/service-cidrs-controller",
    ),
    binding(
        "system:controller:service-controller",
        "system:controller:service-controller",
        "sa:kube-system/service-controller",
    ),
    binding(
        "system:controller:statefulset-controller",
        "system:controller:statefulset-controller",
        "sa:kube-system/statefulset-controller",
    ),
    binding(
        "system:controller:ttl-after-finished-controller",
        "system:controller:ttl-after-finished-controller",
        "sa:kube-system/ttl-after-finished-controller",
    ),
    binding(
        "system:controller:ttl-controller",
        "system:controller:ttl-controller",
        "sa:kube-system/ttl-controller",
    ),
    binding(
        "system:controller:validatingadmissionpolicy-status-controller",
        "system:controller:validatingadmissionpolicy-status-controller",
        "sa:kube-system/validatingadmissionpolicy-status-controller",
    ),
    binding(
        "system:controller:volumeattributesclass-protection-controller",
        "system:controller:volumeattributesclass-protection-controller",
        "sa:kube-system/volumeattributesclass-protection-controller",
    ),
];

/// Who has the roles within system namespaces.
pub(super) const NAMESPACE_ROLE_BINDINGS: &[Binding] = &[
    binding_in(
        "kube-public",
        "system:controller:bootstrap-signer",
        "Role",
        "system:controller:bootstrap-signer",
        "sa:kube-system/bootstrap-signer",
    ),
    binding_in(
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "Role",
        "extension-apiserver-authentication-reader",
        "user:system:kube-controller-manager user:system:kube-scheduler",
    ),
    binding_in(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "Role",
        "system::leader-locking-kube-controller-manager",
        "user:system:kube-controller-manager sa:kube-system/kube-controller-manager sa:kube-system/leader-election-controller",
    ),
    binding_in(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "Role",
        "system::leader-locking-kube-scheduler",
        "user:system:kube-scheduler sa:kube-system/kube-scheduler",
    ),
    binding_in(
        "kube-system",
        "system:controller:bootstrap-signer",
        "Role",
        "system:controller:bootstrap-signer",
        "sa:kube-system/bootstrap-signer",
    ),
    binding_in(
        "kube-system",
        "system:controller:cloud-provider",
        "Role",
        "system:controller:cloud-provider",
        "sa:kube-system/cloud-provider",
    ),
    binding_in(
        "kube-system",
        "system:controller:token-cleaner",
        "Role",
        "system:controller:token-cleaner",
        "sa:kube-system/token-cleaner",
    ),
];
