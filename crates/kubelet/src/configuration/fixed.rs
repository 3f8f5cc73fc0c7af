//! The fields of a `KubeletConfiguration` in which this kubelet leaves no choice: what it does anyway is accepted, anything
//! else refused; and those that would change nothing here, which is said. None is passed over in silence.

use apimachinery::value::{Map, Value};

/// What may stand in a field.
enum Rule {
    /// These, as JSON, and nothing.
    Only(&'static [&'static str]),
    /// Anything.
    Anything,
}
use Rule::{Anything, Only};

const EVENTS: &str = "nothing is looked at from time to time: what happens is told";
const UNHINDERED: &str = "the kubelet's requests are not held back";
const CGROUPS: &str = "the kubelet's own cgroups are not its own to choose";
const PROXY: &str = "the proxy keeps rules of its own";
const PROFILES: &str = "there is no profile to be had";

/// Field, rule, and why.
const FIELDS: &[(&str, Rule, &str)] = &[
    ("cgroupDriver", Anything, "cgroups are made without systemd"),
    ("cgroupRoot", Only(&[r#""/""#]), CGROUPS),
    ("cgroupsPerQOS", Only(&["true"]), CGROUPS),
    ("configMapAndSecretChangeDetectionStrategy", Anything, "they are watched"),
    ("containerLogMaxWorkers", Anything, "logs are moved aside as they are found"),
    ("contentType", Anything, "the client speaks what is shortest"),
    ("cpuCFSQuotaPeriod", Only(&[r#""100ms""#]), "requires feature gate CustomCPUCFSQuotaPeriod"),
    ("cpuManagerReconcilePeriod", Anything, EVENTS),
    ("enableContentionProfiling", Anything, PROFILES),
    ("enableControllerAttachDetach", Only(&["true"]), "volumes are attached by the controller"),
    ("enableDebugFlagsHandler", Anything, PROFILES),
    ("enableProfilingHandler", Anything, PROFILES),
    ("enableServer", Only(&["true"]), "logs and exec need the server"),
    ("eventBurst", Anything, UNHINDERED),
    ("eventRecordQPS", Anything, UNHINDERED),
    ("fileCheckFrequency", Anything, EVENTS),
    (
        "hairpinMode",
        Only(&[r#""promiscuous-bridge""#, r#""hairpin-veth""#, r#""none""#]),
        "Valid options are \"none\", \"hairpin-veth\" or \"promiscuous-bridge\"",
    ),
    ("httpCheckFrequency", Anything, EVENTS),
    ("iptablesDropBit", Anything, PROXY),
    ("iptablesMasqueradeBit", Anything, PROXY),
    ("kernelMemcgNotification", Anything, "what is available is looked at"),
    ("kubeAPIBurst", Anything, UNHINDERED),
    ("kubeAPIQPS", Anything, UNHINDERED),
    ("kubeReservedCgroup", Only(&[]), CGROUPS),
    ("kubeletCgroups", Only(&[]), CGROUPS),
    ("localStorageCapacityIsolation", Only(&["true"]), "local storage is always counted"),
    ("logging", Anything, "the program's own flags say how it logs"),
    ("makeIPTablesUtilChains", Anything, PROXY),
    ("maxOpenFiles", Anything, "the program takes as many as it may"),
    ("memoryReservationPolicy", Only(&[r#""None""#]), "requires MemoryQoS feature gate to be enabled"),
    ("memoryThrottlingFactor", Anything, "it counts with the feature gate MemoryQoS alone"),
    ("oomScoreAdj", Anything, "the kubelet is part of a larger program"),
    ("podCIDR", Anything, "the node object has it"),
    ("protectKernelDefaults", Anything, "no setting of the kernel is changed for pods"),
    ("qosReserved", Only(&[]), "requires feature gate QOSReserved"),
    ("readOnlyPort", Only(&[]), "there is no port that anybody may read"),
    ("registerNode", Only(&["true"]), "a node registers itself"),
    ("registryBurst", Anything, UNHINDERED),
    ("registryPullQPS", Anything, UNHINDERED),
    ("runOnce", Only(&["false"]), "Runonce mode has been deprecated and should not be set"),
    ("runtimeRequestTimeout", Anything, "the runtime's calls take as long as they take"),
    ("showHiddenMetricsForVersion", Only(&[]), "no metric is hidden"),
    ("staticPodURL", Only(&[]), "static pods come from files alone"),
    ("staticPodURLHeader", Only(&[]), "static pods come from files alone"),
    ("streamingConnectionIdleTimeout", Anything, "streams end with what they belong to"),
    ("syncFrequency", Anything, EVENTS),
    ("systemCgroups", Only(&[]), CGROUPS),
    ("systemReservedCgroup", Only(&[]), CGROUPS),
    ("tlsCipherSuites", Only(&[]), "they are those of TLS 1.2 and 1.3 that are sound"),
    ("tlsCurvePreferences", Only(&[]), "they are those of TLS 1.2 and 1.3 that are sound"),
    ("tlsMinVersion", Only(&[r#""VersionTLS12""#]), "TLS 1.2 and 1.3 are served"),
    ("tracing", Only(&[]), "the kubelet sends no traces"),
    ("userNamespaces", Only(&[r#"{"idsPerPod":65536}"#]), "each pod has 65536 users"),
    ("volumePluginDir", Anything, "there are no flexvolumes"),
    ("volumeStatsAggPeriod", Anything, EVENTS),
];

/// Whether it is as if the field was not there.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_unset),
    }
}

/// Whether it is one of these.
pub(super) fn is_field(name: &str) -> bool {
    matches!(name, "authentication" | "authorization") || FIELDS.iter().any(|(field, ..)| *field == name)
}

/// Takes these fields out of a configuration. Returns what has no effect, and what is refused.
pub(super) fn take(object: &mut Map) -> (Vec<String>, Vec<String>) {
    let (mut without_effect, mut refused) = (Vec::new(), Vec::new());
    for (field, rule, why) in FIELDS {
        let Some(value) = object.remove(field) else { continue };
        if is_unset(&value) {
            continue;
        }
        match rule {
            Only(values) if values.contains(&value.to_string().as_str()) => {}
            Only(_) => refused.push(format!("invalid configuration: {field} {value}: {why}")),
            Anything => without_effect.push(format!("{field} has no effect: {why}")),
        }
    }
    let delegated = Value::Object(object.clone());
    for (path, wanted, why) in [
        ("/authentication/anonymous/enabled", "false", "nobody is let in without a name"),
        ("/authentication/webhook/enabled", "true", "the API server is asked who somebody is"),
        ("/authorization/mode", r#""Webhook""#, "the API server is asked what somebody may"),
        ("/authentication/x509/clientCAFile", r#""""#, "the cluster's own authority is believed"),
    ] {
        let Some(value) = delegated.pointer(path).filter(|value| !is_unset(value)) else { continue };
        if !serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *value) {
            let field = path.trim_start_matches('/').replace('/', ".");
            refused.push(format!("invalid configuration: {field} {value}: {why}"));
        }
    }
    object.remove("authentication");
    object.remove("authorization");
    (without_effect, refused)
}
