//! Upstream's `KubeletConfiguration` as a file, as far as this kubelet can be told otherwise; fields that it does not have
//! are refused rather than passed over.

use crate::config::{Config, ImageVerification, SwapBehavior, check_allowed_sysctls, thresholds};
use crate::cpus;
use crate::memory::Reserved;
use crate::topology::{Options, Policy, Scope, Settings};
use apimachinery::quantity::Quantity;
use apimachinery::time::Duration;
use schema::decode::{FieldValidation, free_yaml};
use serde::Deserialize;
use std::collections::BTreeMap;

type Texts = BTreeMap<String, String>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    kind: String,
    api_version: String,
    allowed_unsafe_sysctls: Vec<String>,
    container_log_max_files: Option<usize>,
    container_log_max_size: Option<Quantity>,
    cpu_manager_policy: String,
    eviction_hard: Option<Texts>,
    eviction_max_pod_grace_period: Option<i64>,
    eviction_minimum_reclaim: Texts,
    eviction_pressure_transition_period: Option<Duration>,
    eviction_soft: Texts,
    eviction_soft_grace_period: BTreeMap<String, Duration>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<u64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<u64>,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Option<Duration>,
    image_pull_credentials_verification_policy: String,
    kube_reserved: BTreeMap<String, Quantity>,
    max_parallel_image_pulls: Option<usize>,
    max_pods: Option<i64>,
    memory_manager_policy: String,
    memory_swap: MemorySwap,
    node_lease_duration_seconds: Option<u64>,
    node_status_report_frequency: Option<Duration>,
    node_status_update_frequency: Option<Duration>,
    preloaded_images_verification_allowlist: Vec<String>,
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    register_with_taints: Option<Vec<api::core::v1::Taint>>,
    reserved_memory: Vec<MemoryReservation>,
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: String,
    seccomp_default: Option<bool>,
    static_pod_path: Option<String>,
    system_reserved: BTreeMap<String, Quantity>,
    topology_manager_policy: String,
    topology_manager_policy_options: Texts,
    topology_manager_scope: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MemorySwap {
    swap_behavior: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MemoryReservation {
    numa_node: u32,
    limits: BTreeMap<String, Quantity>,
}

/// Tells a kubelet what a file says; what it does not say stays as it is.
pub fn apply(text: &str, config: &mut Config) -> Result<(), String> {
    let decoded = free_yaml(text, FieldValidation::Strict).map_err(|error| error.to_string())?;
    let file: File = serde_json::from_value(decoded.value).map_err(|error| error.to_string())?;
    if (file.kind.as_str(), file.api_version.as_str())
        != ("KubeletConfiguration", "kubelet.config.k8s.io/v1beta1")
    {
        return Err(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version));
    }
    evictions(&file, config)?;
    managers(&file, config)?;
    images(&file, config)?;
    check_allowed_sysctls(&file.allowed_unsafe_sysctls)?;
    config.allowed_unsafe_sysctls = file.allowed_unsafe_sysctls;
    config.swap = match file.memory_swap.swap_behavior.as_str() {
        "" | "NoSwap" => SwapBehavior::NoSwap,
        "LimitedSwap" => SwapBehavior::LimitedSwap,
        other => {
            return Err(format!(
                "invalid configuration: memorySwap.swapBehavior {other:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""
            ));
        }
    };
    put(&mut config.max_pods, file.max_pods);
    put(&mut config.provider_id, file.provider_id);
    put(&mut config.register_with_taints, file.register_with_taints);
    put(&mut config.seccomp_default, file.seccomp_default);
    put(&mut config.container_log_max_files, file.container_log_max_files);
    put(&mut config.container_log_max_size, file.container_log_max_size.map(|size| bytes(&size)));
    put(
        &mut config.node_status_update_frequency,
        file.node_status_update_frequency.and_then(Duration::to_std),
    );
    put(
        &mut config.node_status_report_frequency,
        file.node_status_report_frequency.and_then(Duration::to_std),
    );
    let lease = file.node_lease_duration_seconds.map(std::time::Duration::from_secs);
    put(&mut config.node_lease_duration, lease);
    if let Some(path) = file.static_pod_path.filter(|path| !path.is_empty()) {
        config.static_pod_path = Some(path.into());
    }
    Ok(())
}

fn put<T>(to: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *to = said;
    }
}

fn bytes(size: &Quantity) -> u64 {
    u64::try_from(size.value()).unwrap_or(0)
}

fn evictions(file: &File, config: &mut Config) -> Result<(), String> {
    if let Some(hard) = &file.eviction_hard {
        let grace = file
            .eviction_soft_grace_period
            .iter()
            .filter_map(|(signal, period)| Some((signal.clone(), period.to_std()?)));
        config.eviction_thresholds = thresholds(
            &pairs(hard),
            &pairs(&file.eviction_soft),
            &grace.collect::<Vec<_>>(),
            &pairs(&file.eviction_minimum_reclaim),
        )?;
    } else if !file.eviction_soft.is_empty() || !file.eviction_minimum_reclaim.is_empty() {
        return Err("evictionSoft and evictionMinimumReclaim need evictionHard beside them".into());
    }
    put(&mut config.eviction_max_grace, file.eviction_max_pod_grace_period);
    put(&mut config.eviction_transition, file.eviction_pressure_transition_period.and_then(Duration::to_std));
    Ok(())
}

fn pairs(texts: &Texts) -> Vec<(String, String)> {
    texts.iter().map(|(name, text)| (name.clone(), text.clone())).collect()
}

fn managers(file: &File, config: &mut Config) -> Result<(), String> {
    for (name, amount) in file.system_reserved.iter().chain(&file.kube_reserved) {
        match config.reserved.get_mut(name) {
            Some(known) => known.add(amount),
            None => drop(config.reserved.insert(name.clone(), amount.clone())),
        }
    }
    match file.cpu_manager_policy.as_str() {
        "" => {}
        "none" => config.cpu_manager_policy = cpus::Policy::None,
        "static" => config.cpu_manager_policy = cpus::Policy::Static,
        other => return Err(format!("unknown policy: {other:?}")),
    }
    if !file.reserved_system_cpus.is_empty() {
        config.reserved_cpus = file.reserved_system_cpus.parse()?;
    }
    match file.memory_manager_policy.as_str() {
        "" | "None" => {}
        "Static" => {
            let mut reserved = Reserved::new();
            for reservation in &file.reserved_memory {
                let limits = reservation.limits.iter().map(|(name, amount)| (name.clone(), bytes(amount)));
                reserved.entry(reservation.numa_node).or_default().extend(limits);
            }
            config.memory_manager = Some(reserved);
        }
        other => return Err(format!("unknown policy: {other:?}")),
    }
    let policy = match file.topology_manager_policy.as_str() {
        "" | "none" => Policy::None,
        "best-effort" => Policy::BestEffort,
        "restricted" => Policy::Restricted,
        "single-numa-node" => Policy::SingleNumaNode,
        other => return Err(format!("unknown policy: {other:?}")),
    };
    let scope = match file.topology_manager_scope.as_str() {
        "" | "container" => Scope::Container,
        "pod" => Scope::Pod,
        other => return Err(format!("unknown scope: {other:?}")),
    };
    let options = Options::parse(&file.topology_manager_policy_options)?;
    config.topology = Settings { policy, scope, options };
    Ok(())
}

fn images(file: &File, config: &mut Config) -> Result<(), String> {
    put(&mut config.parallel_image_pulls, file.max_parallel_image_pulls);
    put(&mut config.image_gc_high, file.image_gc_high_threshold_percent);
    put(&mut config.image_gc_low, file.image_gc_low_threshold_percent);
    put(&mut config.image_gc_min_age, file.image_minimum_gc_age.and_then(Duration::to_std));
    config.image_verification = ImageVerification::parse(
        &file.image_pull_credentials_verification_policy,
        &file.preloaded_images_verification_allowlist,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, show: impl Fn(&Config) -> String, expected: Expect) {
        let mut config = Config::new("n", "127.0.0.1");
        let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
        let told = match apply(&format!("{head}{text}"), &mut config) {
            Ok(()) => show(&config),
            Err(error) => error,
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn what_is_said_counts() {
        check(
            "systemReserved: {memory: 100Mi}\nkubeReserved: {memory: 28Mi}\nmemoryManagerPolicy: Static\nreservedMemory: [{numaNode: 0, limits: {memory: 128Mi}}]\ntopologyManagerPolicy: restricted\ntopologyManagerScope: pod\ntopologyManagerPolicyOptions: {prefer-closest-numa-nodes: \"true\"}",
            |c| format!("{:?} {:?} {}", c.memory_manager, c.topology, c.reserved["memory"]),
            expect![[
                r#"Some({0: {"memory": 134217728}}) Settings { policy: Restricted, scope: Pod, options: Options { prefer_closest: true, max_nodes: 8 } } 128Mi"#
            ]],
        );
        check(
            "evictionHard: {memory.available: 1Gi}\nevictionSoft: {nodefs.available: 10%}\nevictionSoftGracePeriod: {nodefs.available: 90s}\nevictionPressureTransitionPeriod: 2s",
            |c| {
                format!(
                    "{} {:?} {:?}",
                    c.eviction_thresholds.len(),
                    c.eviction_thresholds[1].grace,
                    c.eviction_transition
                )
            },
            expect!["2 Some(90s) 2s"],
        );
        check(
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist: [r.io/x]\nmemorySwap: {swapBehavior: LimitedSwap}\nmaxPods: 7",
            |c| format!("{:?} {:?} {}", c.image_verification, c.swap, c.max_pods),
            expect![[r#"NeverVerifyAllowlistedImages(["r.io/x"]) LimitedSwap 7"#]],
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let fails = |text: &str, expected: Expect| check(text, |_| "accepted".into(), expected);
        fails("topologyManagerPolicy: fast", expect![[r#"unknown policy: "fast""#]]);
        fails(
            "allowedUnsafeSysctls: [vm.swappiness]",
            expect![[r#"the sysctls "vm.swappiness" are not known to be namespaced"#]],
        );
        fails(
            "topologyManagerPolicyOptions: {x: z}",
            expect![[r#"unknown Topology Manager Policy option: "x""#]],
        );
        fails(
            "topologyManagerPolicyOptions: {max-allowable-numa-nodes: \"4\"}",
            expect![[r#"the minimum value of "max-allowable-numa-nodes" should not be less than 8"#]],
        );
        fails(
            "imagePullCredentialsVerificationPolicy: Sometimes",
            expect!["unknown image pull credential verification policy: Sometimes"],
        );
        fails(
            "memorySwap: {swapBehavior: UnlimitedSwap}",
            expect![[
                r#"invalid configuration: memorySwap.swapBehavior "UnlimitedSwap" must be one of: "", "LimitedSwap" or "NoSwap""#
            ]],
        );
        let mut config = Config::new("n", "127.0.0.1");
        let error = apply(
            "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nrunOnce: true",
            &mut config,
        );
        assert!(error.unwrap_err().starts_with("unknown field `runOnce`"));
    }
}
