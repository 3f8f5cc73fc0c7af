//! Upstream's `KubeletConfiguration` as a file. Every field of v1.36 is known: it counts, or what it says is what happens
//! anyway, or it is said that it has no effect, or it is refused.

mod file;
mod fixed;
mod known;
mod load;
#[cfg(test)]
mod tests;
mod validate;

use crate::config::{
    Config, ImageVerification, SwapBehavior, check_allowed_sysctls, default_eviction, thresholds,
};
use crate::cpus;
use crate::memory::Reserved;
use crate::node_shutdown::plan::by_criticality;
use crate::topology::{Options, Policy, Scope, Settings};
use apimachinery::quantity::Quantity;
use apimachinery::time::Duration;
use apimachinery::value::{Map, Value};
use file::{File, Texts};
use std::path::Path;

/// Tells a kubelet what a file says, and the files of a directory over it; what they do not say stays as it is. Returns
/// what they say in vain.
pub fn load(
    file: Option<&Path>,
    drop_ins: Option<&Path>,
    config: &mut Config,
) -> Result<Vec<String>, String> {
    let (object, mut warnings) = load::merged(file, drop_ins)?;
    warnings.extend(take(object, config)?);
    Ok(warnings)
}

fn take(mut object: Map, config: &mut Config) -> Result<Vec<String>, String> {
    let (without_effect, mut errors) = fixed::take(&mut object);
    // What is null is not said.
    let mut present = Value::Object(Map::new());
    schema::patch::merge(&mut present, &Value::Object(object));
    let file: File =
        apimachinery::value::from_value(present).map_err(|error| format!("failed to decode: {error}"))?;
    validate::validate(&file, &mut errors);
    if let Some(errors) = apimachinery::field::aggregate(errors) {
        return Err(errors);
    }
    config.features.extend(file.feature_gates.clone());
    evictions(&file, config)?;
    managers(&file, config)?;
    images(&file, config)?;
    limits(&file, config)?;
    shutdown(&file, config);
    check_allowed_sysctls(&file.allowed_unsafe_sysctls)?;
    config.allowed_unsafe_sysctls = file.allowed_unsafe_sysctls;
    config.swap = match file.memory_swap.swap_behavior.as_str() {
        "LimitedSwap" => SwapBehavior::LimitedSwap,
        _ => SwapBehavior::NoSwap,
    };
    if let Some(address) = file.address {
        config.address.set_ip(address);
    }
    if !file.healthz_bind_address.is_empty() {
        let address = file.healthz_bind_address.parse();
        let named = |_| format!("healthzBindAddress {:?} is no IP address", file.healthz_bind_address);
        config.healthz.set_ip(address.map_err(named)?);
    }
    if let Some(port) = file.healthz_port.and_then(|port| port.try_into().ok()) {
        config.healthz.set_port(port);
    }
    if let Ok(port @ 1..) = u16::try_from(file.port) {
        config.address.set_port(port);
    }
    if !file.cluster_dns.is_empty() {
        config.cluster_dns = file.cluster_dns;
    }
    put(&mut config.cluster_domain, said(file.cluster_domain));
    put(&mut config.resolv_conf, file.resolv_conf.map(Into::into));
    put(&mut config.pod_logs_dir, said(file.pod_logs_dir).map(Into::into));
    config.container_runtime_endpoint = said(file.container_runtime_endpoint);
    config.image_service_endpoint = said(file.image_service_endpoint);
    put(&mut config.provider_id, file.provider_id);
    put(&mut config.register_with_taints, file.register_with_taints);
    put(&mut config.rotate_certificates, file.rotate_certificates);
    put(&mut config.server_tls_bootstrap, file.server_tls_bootstrap);
    config.tls_files = match (said(file.tls_cert_file), said(file.tls_private_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err("tlsCertFile and tlsPrivateKeyFile need each other".into()),
    };
    put(&mut config.seccomp_default, file.seccomp_default);
    put(&mut config.debugging_handlers, file.enable_debugging_handlers);
    put(&mut config.system_log_handler, file.enable_system_log_handler);
    put(&mut config.system_log_query, file.enable_system_log_query);
    put(&mut config.fail_cgroup_v1, file.fail_cgroup_v1);
    put(&mut config.fail_swap_on, file.fail_swap_on);
    put(&mut config.container_log_max_files, file.container_log_max_files.and_then(|n| n.try_into().ok()));
    put(&mut config.container_log_max_size, file.container_log_max_size.map(|size| bytes(&size)));
    put(&mut config.container_log_interval, file.container_log_monitor_interval.and_then(period));
    // As upstream: who looks more often reports as often.
    let update = period(file.node_status_update_frequency);
    put(&mut config.node_status_update_frequency, update);
    put(&mut config.node_status_report_frequency, period(file.node_status_report_frequency).or(update));
    put(&mut config.node_status_max_images, file.node_status_max_images);
    let lease = file.node_lease_duration_seconds.and_then(|seconds| seconds.try_into().ok());
    put(&mut config.node_lease_duration, lease.map(std::time::Duration::from_secs));
    if let Some(path) = file.static_pod_path.and_then(said) {
        config.static_pod_path = Some(path.into());
    }
    Ok(without_effect)
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A time that was said: none is the default.
fn period(time: Duration) -> Option<std::time::Duration> {
    time.to_std().filter(|time| !time.is_zero())
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
    let told = file.eviction_hard.is_some()
        || !file.eviction_soft.is_empty()
        || !file.eviction_minimum_reclaim.is_empty();
    if told {
        let mut hard = pairs(file.eviction_hard.as_ref().unwrap_or(&Texts::new()));
        if file.eviction_hard.is_none() || file.merge_default_eviction_settings == Some(true) {
            let known = |signal: &str| hard.iter().any(|(said, _)| said == signal);
            let default: Vec<_> =
                default_eviction().into_iter().filter(|(signal, _)| !known(signal)).collect();
            hard.extend(default);
        }
        let grace = file
            .eviction_soft_grace_period
            .iter()
            .filter_map(|(signal, period)| Some((signal.clone(), period.to_std()?)));
        config.eviction_thresholds = thresholds(
            &hard,
            &pairs(&file.eviction_soft),
            &grace.collect::<Vec<_>>(),
            &pairs(&file.eviction_minimum_reclaim),
        )?;
    }
    put(&mut config.eviction_max_grace, file.eviction_max_pod_grace_period);
    put(&mut config.eviction_transition, period(file.eviction_pressure_transition_period));
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
    if !file.cpu_manager_policy_options.is_empty() {
        config.set_cpu_manager_options(&file.cpu_manager_policy_options)?;
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
    let count = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    match (file.serialize_image_pulls, file.max_parallel_image_pulls) {
        (Some(true), _) => config.parallel_image_pulls = 1,
        (_, Some(number)) => config.parallel_image_pulls = count(number),
        (Some(false), None) => config.parallel_image_pulls = tokio::sync::Semaphore::MAX_PERMITS,
        (None, None) => {}
    }
    let percent = |number: Option<i64>| number.and_then(|number| number.try_into().ok());
    put(&mut config.image_gc_high, percent(file.image_gc_high_threshold_percent));
    put(&mut config.image_gc_low, percent(file.image_gc_low_threshold_percent));
    put(&mut config.image_gc_min_age, period(file.image_minimum_gc_age));
    config.image_gc_max_age = period(file.image_maximum_gc_age);
    config.image_verification = ImageVerification::parse(
        &file.image_pull_credentials_verification_policy,
        &file.preloaded_images_verification_allowlist,
    )?;
    Ok(())
}

/// How many pods, how many processes, how soon again.
fn limits(file: &File, config: &mut Config) -> Result<(), String> {
    put(&mut config.max_pods, Some(file.max_pods).filter(|pods| *pods != 0));
    config.pods_per_core = file.pods_per_core;
    put(&mut config.pod_pids_limit, file.pod_pids_limit.map(|limit| Some(limit).filter(|limit| *limit > 0)));
    put(&mut config.cpu_cfs_quota, file.cpu_cfs_quota);
    put(&mut config.single_process_oom_kill, file.single_process_oom_kill);
    if let Some(enforced) = &file.enforce_node_allocatable {
        config.enforce_pods = enforced.iter().any(|what| what == "pods");
    }
    let most = file.crash_loop_back_off.max_container_restart_period;
    if config.feature("ReduceDefaultCrashLoopBackOffDecay") {
        (config.restart_initial, config.restart_most) =
            (std::time::Duration::from_secs(1), std::time::Duration::from_secs(60));
    }
    if config.feature("KubeletCrashLoopBackOffMax") {
        // What is configured, or its default, counts before what the other gate says.
        let most = most.and_then(period).unwrap_or(std::time::Duration::from_secs(300));
        (config.restart_initial, config.restart_most) = (config.restart_initial.min(most), most);
    } else if most.is_some() {
        return Err("invalid configuration: FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set".into());
    }
    Ok(())
}

fn shutdown(file: &File, config: &mut Config) {
    let by_priority = &file.shutdown_grace_period_by_pod_priority;
    config.shutdown_periods = match by_priority.is_empty() {
        false => by_priority.iter().copied().map(Into::into).collect(),
        true => by_criticality(
            file.shutdown_grace_period.to_std().unwrap_or_default(),
            file.shutdown_grace_period_critical_pods.to_std().unwrap_or_default(),
        ),
    };
}
