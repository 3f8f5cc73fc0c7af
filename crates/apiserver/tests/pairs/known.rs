//! Where we answer otherwise than upstream, and mean to.

const NO_NUMBER: &str = "upstream answers a resourceVersion that is no number with a 500";
const ROLE: &str =
    "upstream looks for a role of that kind before it judges the binding, and answers with a 500";
const NIL: &str = "Go tells an empty list from none, which nobody who reads an object can";
const ZERO: &str =
    "Go tells a time of zero that something points to from none, which nobody who reads an object can";
const YAML: &str = "upstream passes on the words of Go's YAML parser";
const YAML_END: &str = "Go's YAML parser does not look at what follows the first value";
const REGEXP: &str = "upstream passes on the words of Go's regular expressions";
const NUMBER: &str = "the digits of a number are not kept";
const DROPPED: &str =
    "upstream counts a change of the spec before it drops what is gated off, and then nothing has changed";
const ECHO: &str = "upstream gives back a resourceVersion that it does not look at";
const CHECKS: &str = "the health checks in the index are ours";
const NO_NODE: &str = "upstream answers a binding to what is no node with a 500";
pub const APPLIED: &str = "upstream answers what is wrong with an applied object with a 500";
const STRATEGIC: &str = "upstream answers what is wrong with a strategic patch with a 500";
const VERSION: &str = "upstream answers a version that is none with a 500";
const OTHER_VERSION: &str =
    "upstream judges what is merged by the schema of another version than the one that it is applied in";
const BOOKMARK: &str = "upstream makes the empty object of a bookmark in a version that cannot tell no number of replicas from zero";
const UNAPPLIED: &str = "upstream applies no Scale of a custom resource, and answers with a 500";
const UNTYPED: &str =
    "upstream does not find the type of a custom resource's Scale to say what is wrong with one";
const UNMANAGED: &str =
    "upstream fails to note who writes the Scale of a custom resource, and logs that it should not";
const NO_ORDER: &str = "Go goes through a map in no order";

const DRY_RUNS: &str = "upstream answers dry runs that contradict each other with a 500";
const FORMER: &str = "upstream knows types of versions that nobody serves any more";

/// File, the beginning of the case's name (the whole of it before a `$`), and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("*", "update of no version", NO_NUMBER),
    ("*", "apply what is unknown", "upstream answers an unknown field in an applied object with a 500"),
    ("*", "strategic nonsense", "upstream answers an unknown directive with a 500"),
    ("bytes", "apiextensions.k8s.io/v1/customresourcedefinitions empty", NIL),
    ("bytes", "resource.k8s.io/v1/resourceclaimtemplates empty", NIL),
    ("bytes", "resource.k8s.io/v1/resourceslices empty", NIL),
    ("bytes", "/v1/pods empty", NIL),
    ("bytes", "coordination.k8s.io/v1/leases zero", ZERO),
    ("bytes", "events.k8s.io/v1/events zero", ZERO),
    ("bytes", "resource.k8s.io/v1/resourceclaimtemplates zero", ZERO),
    ("bytes", "/v1/events zero", ZERO),
    ("bytes", "/v1/nodes zero", ZERO),
    ("bytes", "/v1/podtemplates zero", ZERO),
    ("autoscaling_v2_horizontalpodautoscalers", "create wrong$", NIL),
    ("autoscaling_v2_horizontalpodautoscalers", "create /spec/behavior/scaleUp/policies = []$", NIL),
    ("v1_nodes", "update status /status/allocatable = {}$", NIL),
    ("bytes", "rbac.authorization.k8s.io/v1/clusterrolebindings sparse", ROLE),
    ("bytes", "rbac.authorization.k8s.io/v1/rolebindings sparse", ROLE),
    ("bytes", "/v1/bindings sparse", "upstream answers a binding to nothing with a 500"),
    ("metadata", "update 43 resourceVersion", NO_NUMBER),
    ("metadata", "configmaps 43 resourceVersion", ECHO),
    ("metadata", "namespaces 43 resourceVersion", ECHO),
    ("metadata", "pods 43 resourceVersion", ECHO),
    ("metadata", "roles 43 resourceVersion", ECHO),
    ("metadata", "services 43 resourceVersion", ECHO),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create sparse", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create bare", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create wrong", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create full", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create /roleRef = {", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create /roleRef = nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "create /roleRef/kind = ", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "update /roleRef = nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_clusterrolebindings", "update /roleRef/kind = ", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create sparse", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create bare", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create wrong", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create full", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create /roleRef = {", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create /roleRef = nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "create /roleRef/kind = ", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "update /roleRef = nothing", ROLE),
    ("rbac.authorization.k8s.io_v1_rolebindings", "update /roleRef/kind = ", ROLE),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/enum = []",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/allOf = []",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/oneOf = []",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/anyOf = []",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/x-kubernetes-list-map-keys = []",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/patternProperties = {}",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/dependencies = {}",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/definitions = {}",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/properties/spec/dependencies = {}",
        NIL,
    ),
    (
        "apiextensions.k8s.io_v1_customresourcedefinitions",
        "create /spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/n/dependencies = {}",
        NIL,
    ),
    ("apiextensions.k8s.io_v1_customresourcedefinitions", "create loose", REGEXP),
    ("networking.k8s.io_v1_ingresses", "create /spec/rules = []", NIL),
    ("resource.k8s.io_v1_resourceclaims", "update status /status/allocation/devices/results = []", NIL),
    (
        "resource.k8s.io_v1_resourceclaims",
        "update status /status/allocation/nodeSelector/nodeSelectorTerms/0/matchFields = []",
        NIL,
    ),
    (
        "resource.k8s.io_v1_resourceclaims",
        "update status /status/allocation/nodeSelector/nodeSelectorTerms/0/matchFields/0/values = []",
        NIL,
    ),
    ("resource.k8s.io_v1_resourceclaimtemplates", "create /spec/metadata/ownerReferences = []", NIL),
    ("resource.k8s.io_v1_resourceclaimtemplates", "create /spec/metadata/finalizers = []", NIL),
    ("resource.k8s.io_v1_resourceclaimtemplates", "create /spec/metadata/managedFields = []", NIL),
    ("resource.k8s.io_v1_resourceslices", "create /spec/sharedCounters = []", NIL),
    ("resource.k8s.io_v1_resourceslices", "update /spec/devices/0/attributes/a/ints = [1]", DROPPED),
    ("resource.k8s.io_v1_resourceslices", "update /spec/devices/0/nodeAllocatableResourceMappings", DROPPED),
    ("resource.k8s.io_v1_resourceslices", "update /spec/devices/0/attributes/a/bools = [true]", DROPPED),
    ("resource.k8s.io_v1_resourceslices", "update /spec/devices/0/attributes/a/strings = ", DROPPED),
    ("resource.k8s.io_v1_resourceslices", "update /spec/devices/0/attributes/a/versions = ", DROPPED),
    ("bodies", "application/yaml 2$", YAML),
    ("bodies", "application/yaml 7$", YAML_END),
    ("bodies", "application/yaml 21", YAML),
    ("bodies", "application/yaml 22", NUMBER),
    ("bodies", "application/json 22", NUMBER),
    ("bodies", "application/yaml 27", YAML),
    ("bodies", "application/yaml 32", YAML),
    ("bodies", "YAML 2 ", YAML),
    ("bodies", "YAML 4 ", YAML),
    ("bodies", "YAML 11 ", YAML),
    ("told_tables", "endpointslices create 0 Object", NIL),
    ("told_tables", "csinodes create 0 Object", NIL),
    ("told_subresources", "eviction 12$", DRY_RUNS),
    ("told_subresources", "deployment scale put 10$", FORMER),
    ("told_subresources", "replica set scale put 10$", FORMER),
    ("told_subresources", "stateful set scale put 10$", FORMER),
    ("told_subresources", "controller scale put 10$", FORMER),
    ("paths", "DELETE /$", CHECKS),
    ("paths", "OPTIONS /$", CHECKS),
    ("paths", "PATCH /$", CHECKS),
    ("paths", "POST /$", CHECKS),
    ("paths", "PUT /$", CHECKS),
    ("autoscaling_v2_horizontalpodautoscalers", "create full", NO_ORDER),
    ("autoscaling_v2_horizontalpodautoscalers", "create /spec = {\"", NO_ORDER),
    ("autoscaling_v2_horizontalpodautoscalers", "create /spec/metrics = [{", NO_ORDER),
    ("v1_bindings", "create sparse", NO_NODE),
    ("v1_bindings", "create bare", NO_NODE),
    ("v1_bindings", "create nothing", NO_NODE),
    ("v1_bindings", "create wrong", NO_NODE),
    ("v1_bindings", "create full", NO_NODE),
    ("v1_bindings", "create /target = {", NO_NODE),
    ("v1_bindings", "create /target = nothing", NO_NODE),
    ("v1_bindings", "create /target/kind = \"Not Valid!", NO_NODE),
    ("v1_bindings", "create /target/name = \"\"", NO_NODE),
    ("v1_bindings", "create /target/name = nothing", NO_NODE),
    ("told_definitions", "schemas {\"properties\":{\"a\":{\"pattern\":", REGEXP),
    ("told_applied", "pod finalizers twice$", APPLIED),
    ("told_applied", "pod a container twice$", APPLIED),
    ("told_applied", "pod env twice$", APPLIED),
    ("told_applied", "pod ports twice$", APPLIED),
    ("told_applied", "pod null in a list$", APPLIED),
    ("told_applied", "pod a list of text$", APPLIED),
    ("told_applied", "pod containers a map$", APPLIED),
    ("told_applied", "pod odd$", APPLIED),
    ("told_applied", "pod odd strictly$", APPLIED),
    ("told_applied", "pod number for text$", APPLIED),
    ("told_applied", "pod text for number$", APPLIED),
    ("told_applied", "pod bad quantity$", APPLIED),
    ("told_applied", "pod status conditions twice$", APPLIED),
    (
        "told_applied",
        "strategic-merge-patch+json {\"spec\": {\"$setElementOrder/containers\": [{\"name\": \"d\"}], \"containers\": [{\"name\": \"c\", \"image\": \"z\"}]}}$",
        STRATEGIC,
    ),
    (
        "told_applied",
        "strategic-merge-patch+json {\"spec\": {\"containers\": [{\"image\": \"z\"}]}}$",
        STRATEGIC,
    ),
    (
        "told_applied",
        "strategic-merge-patch+json {\"spec\": {\"containers\": [{\"name\": \"c\", \"$patch\": \"odd\"}]}}$",
        STRATEGIC,
    ),
    ("told_applied", "map binary odd$", APPLIED),
    ("told_applied", "spread$", APPLIED),
    ("told_applied", "host aliases$", APPLIED),
    ("told_applied", "pull secrets$", APPLIED),
    ("told_applied", "claims$", APPLIED),
    ("told_applied", "node status$", APPLIED),
    ("told_collections", "list watch=x$", VERSION),
    ("told_collections", "list watch=$", VERSION),
    (
        "told_collections",
        "watch watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=x$",
        VERSION,
    ),
    ("told_collections", "watch watch=true&resourceVersion=x$", VERSION),
    (
        "told_collections",
        "watch watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=x$",
        VERSION,
    ),
    ("told_collections", "watch as application/yaml$", VERSION),
    ("told_collections", "watch as application/json;as=Table;v=v1;g=meta.k8s.io$", VERSION),
    (
        "told_collections",
        "watch as application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io$",
        VERSION,
    ),
    ("told_collections", "watch as application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io$", VERSION),
    ("told_collections", "watch of one as object$", VERSION),
    ("told_collections", "old watch$", VERSION),
    ("told_collections", "old watch of one$", VERSION),
    ("told_collections", "get resourceVersion=x$", VERSION),
    ("told_collections", "get resourceVersion=-1$", VERSION),
    ("told_applied", "new pod with a version", ECHO),
    ("told_applied", "map no YAML", YAML),
    ("told_collections", "delete all with text application/yaml", YAML),
    ("told_custom", "apply scale", UNAPPLIED),
    ("told_custom", "apply twice in a list map", APPLIED),
    ("told_custom", "apply twice in a set", APPLIED),
    ("told_custom", "apply of another type", APPLIED),
    ("told_custom", "apply in the other version", OTHER_VERSION),
    ("told_custom_scale", "put too many", UNTYPED),
    ("told_custom_scale", "put text for replicas", UNTYPED),
    ("told_custom_scale", "put half a replica", UNTYPED),
    ("told_custom_scale", "put as an older scale", UNTYPED),
    ("told_custom_scale", "put as a thing", UNTYPED),
    ("told_custom_scale", "put as an odd version", UNTYPED),
    ("told_custom_scale", "put strictly", UNTYPED),
    ("told_custom_scale", "put no JSON", UNTYPED),
    ("told_custom_scale", "put no version", NO_NUMBER),
    ("told_custom_scale", "merge a version that is none", NO_NUMBER),
    ("told_custom_scale", "apply$", UNAPPLIED),
    ("told_custom_scale", "managers after", UNMANAGED),
    ("told_custom_scale", "managers of none", UNMANAGED),
    ("told_custom_scale", "managers in the end", UNMANAGED),
    ("told_typed", "refused: ", APPLIED),
    ("told_watched", "deployments plain$", BOOKMARK),
    ("told_watched", "deployments protobuf$", BOOKMARK),
    ("told_watched", "deployments stream$", BOOKMARK),
    ("told_watched", "deployments Table including Object$", BOOKMARK),
    ("v1_persistentvolumes", "create /spec/capacity = {}", NIL),
    ("v1_pods", "create resources", NO_ORDER),
    ("v1_pods", "create /spec/overhead = {}", NIL),
    ("v1_pods", "create /spec/runtimeClassName = \"\"", "upstream answers a class without a name with a 500"),
    (
        "v1_pods",
        "create /spec/automountServiceAccountToken = true",
        "the recorded server gives pods one certificate more, as its distribution does",
    ),
];

pub fn reason(file: &str, case: &str) -> Option<&'static str> {
    let is = |pattern: &str| match pattern.strip_suffix('$') {
        Some(whole) => whole == case,
        None => case.starts_with(pattern),
    };
    KNOWN.iter().find(|(f, c, _)| (*f == file || *f == "*") && is(c)).map(|(.., why)| *why)
}
