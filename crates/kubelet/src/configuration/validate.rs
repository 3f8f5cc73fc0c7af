//! What a configuration may not say, in upstream's words. Upstream: `pkg/kubelet/apis/config/validation`.

use super::file::File;

/// All that is wrong with a file.
pub(super) fn validate(file: &File, errors: &mut Vec<String>) {
    let mut wrong = |when: bool, what: String| {
        if when {
            errors.push(format!("invalid configuration: {what}"));
        }
    };
    let lease = file.node_lease_duration_seconds;
    wrong(lease.is_some_and(|seconds| seconds < 0), "nodeLeaseDurationSeconds must be greater than 0".into());
    let healthz = file.healthz_port.unwrap_or(0);
    wrong(
        !(0..=65535).contains(&healthz),
        format!("healthzPort (--healthz-port) {healthz} must be between 1 and 65535, inclusive"),
    );
    let (high, low) = (
        file.image_gc_high_threshold_percent.unwrap_or(85),
        file.image_gc_low_threshold_percent.unwrap_or(80),
    );
    for (name, flag, percent) in [
        ("imageGCHighThresholdPercent", "--image-gc-high-threshold", high),
        ("imageGCLowThresholdPercent", "--image-gc-low-threshold", low),
    ] {
        let outside = !(0..=100).contains(&percent);
        wrong(outside, format!("{name} ({flag}) {percent} must be between 0 and 100, inclusive"));
    }
    wrong(
        low >= high,
        format!(
            "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
        ),
    );
    let (least, most) = (file.image_minimum_gc_age, file.image_maximum_gc_age);
    let default = apimachinery::time::Duration::from_seconds(120);
    let least = if least.nanoseconds() == 0 { default } else { least };
    wrong(least.nanoseconds() < 0, format!("imageMinimumGCAge {least} must not be negative"));
    wrong(most.nanoseconds() < 0, format!("imageMaximumGCAge {most} must not be negative"));
    wrong(
        most.nanoseconds() > 0 && most.nanoseconds() <= least.nanoseconds(),
        format!("imageMaximumGCAge {most} must be greater than imageMinimumGCAge {least}"),
    );
    let images = file.node_status_max_images.unwrap_or(50);
    let flag = "nodeStatusMaxImages (--node-status-max-images)";
    wrong(images < -1, format!("{flag} {images} must be -1 or greater"));
    for (name, flag, number) in
        [("maxPods", "--max-pods", file.max_pods), ("podsPerCore", "--pods-per-core", file.pods_per_core)]
    {
        wrong(number < 0, format!("{name} ({flag}) {number} must not be a negative number"));
    }
    let port = file.port;
    wrong(
        !(0..=65535).contains(&port),
        format!("port (--port) {port} must be between 1 and 65535, inclusive"),
    );
    if let Some(pulls) = file.max_parallel_image_pulls {
        wrong(pulls < 1, format!("maxParallelImagePulls {pulls} must be a positive number"));
        wrong(
            pulls > 1 && file.serialize_image_pulls == Some(true),
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false".into(),
        );
    }
    let (all, critical) = (file.shutdown_grace_period, file.shutdown_grace_period_critical_pods);
    wrong(
        critical.nanoseconds() > all.nanoseconds(),
        format!("shutdownGracePeriodCriticalPods {{{critical}}} must be <= shutdownGracePeriod {{{all}}}"),
    );
    for (name, time) in [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)] {
        let strange = time.nanoseconds() < 0 || (1..1_000_000_000).contains(&time.nanoseconds());
        wrong(strange, format!("{name} {{{time}}} must be either zero or otherwise >= 1 sec"));
    }
    wrong(
        !file.shutdown_grace_period_by_pod_priority.is_empty()
            && (all.nanoseconds() > 0 || critical.nanoseconds() > 0),
        "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
            .into(),
    );
    let swap = file.memory_swap.swap_behavior.as_str();
    wrong(
        !["", "NoSwap", "LimitedSwap"].contains(&swap),
        format!("memorySwap.swapBehavior {swap:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""),
    );
    if let Some(most) = file.crash_loop_back_off.max_container_restart_period {
        let seconds = most.seconds_f64();
        wrong(
            !(1.0..=300.0).contains(&seconds),
            format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set between 1s and 300s"
            ),
        );
    }
    enforcements(file, &mut wrong);
    wrong(
        file.enable_system_log_query == Some(true) && file.enable_system_log_handler == Some(false),
        "enableSystemLogHandler is required for enableSystemLogQuery".into(),
    );
    let interval = file.container_log_monitor_interval;
    wrong(
        interval.is_some_and(|interval| interval.seconds_f64() < 3.0),
        "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s".into(),
    );
    let files = file.container_log_max_files;
    wrong(files.is_some_and(|files| files <= 1), "containerLogMaxFiles must be greater than 1".into());
    let logs = file.pod_logs_dir.as_str();
    if !logs.is_empty() {
        wrong(!logs.starts_with('/'), format!("pod logs path {logs:?} must be absolute path"));
        let parts = || logs.split('/').skip(1);
        let clean = logs == "/" || parts().all(|part| !["", ".", ".."].contains(&part));
        wrong(!clean, format!("pod logs path {logs:?} must be normalized"));
        wrong(!logs.is_ascii(), format!("pod logs path {logs:?} mut contains ASCII characters only"));
    }
}

/// `enforceNodeAllocatable`: the pods' share is enforced or not; cgroups of others are none of ours.
fn enforcements(file: &File, wrong: &mut impl FnMut(bool, String)) {
    let flag = "enforceNodeAllocatable (--enforce-node-allocatable)";
    let all = file.enforce_node_allocatable.as_deref().unwrap_or_default();
    for (at, what) in all.iter().enumerate() {
        if all[..at].contains(what) {
            wrong(true, format!("duplicated enforcements {what:?} in {flag}"));
            continue;
        }
        match what.as_str() {
            "pods" => {}
            "none" => wrong(
                all.len() > 1,
                format!("{flag} may not contain additional enforcements when \"none\" is specified"),
            ),
            "system-reserved" | "system-reserved-compressible" => wrong(
                true,
                format!(
                    "systemReservedCgroup (--system-reserved-cgroup) must be specified when \"system-reserved\" or \"system-reserved-compressible\" included in {flag}"
                ),
            ),
            "kube-reserved" | "kube-reserved-compressible" => wrong(
                true,
                format!(
                    "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when \"kube-reserved\" or \"kube-reserved-compressible\" included in {flag}"
                ),
            ),
            other => wrong(
                true,
                format!(
                    "option {other:?} specified for {flag}. Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
                ),
            ),
        }
    }
}
