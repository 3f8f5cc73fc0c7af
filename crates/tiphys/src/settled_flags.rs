//! Flags of kube-apiserver by which nothing can be chosen here: what they are given, in manifests and by hardening guides,
//! is let in where it says what is the case anyway, and refused where it does not.

use std::time::Duration;

/// Upstream's flags of both API server commands. Nobody reads them: to have been parsed is all that they are for.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SettledFlags {
    /// There is no profiling by a web interface.
    #[arg(long, value_parser = ["false"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<String>,
    /// Nor any of contention.
    #[arg(long, value_parser = ["false"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    contention_profiling: Option<String>,
    /// There is no handler for logs.
    #[arg(long, value_parser = ["false"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_logs_handler: Option<String>,
    /// Reads and watches are served from memory.
    #[arg(long, value_parser = ["true"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    watch_cache: Option<String>,
    /// The memory for watches grows and shrinks by itself; resource#size, comma separated.
    #[arg(long, value_delimiter = ',', value_parser = watch_cache_size)]
    watch_cache_sizes: Vec<String>,
    /// Collections are deleted concurrently as it is.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    delete_collection_workers: Option<u32>,
    /// Objects are collected.
    #[arg(long, value_parser = ["true"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_garbage_collector: Option<String>,
    /// Aggregated requests go to endpoints.
    #[arg(long, value_parser = ["true"], num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_aggregator_routing: Option<String>,
    /// No request to a kubelet is ended by it, as upstream.
    #[arg(long, value_parser = crate::cli::duration)]
    kubelet_timeout: Option<Duration>,
    /// Logs are written as they come.
    #[arg(long, value_parser = crate::cli::duration)]
    log_flush_frequency: Option<Duration>,
    /// The version that is emulated is the server's own.
    #[arg(long, value_delimiter = ',', value_parser = ["1.36", "kube=1.36"])]
    emulated_version: Vec<String>,
    /// The oldest version of other servers that this one gets on with.
    #[arg(long, value_delimiter = ',', value_parser = ["1.35", "1.36", "kube=1.35", "kube=1.36"])]
    min_compatibility_version: Vec<String>,
    /// No metric of the previous version is hidden.
    #[arg(long, value_parser = ["1.35", ""])]
    show_hidden_metrics_for_version: Option<String>,
}

/// As upstream, where a size other than zero has no effect.
fn watch_cache_size(text: &str) -> Result<String, String> {
    match text.split_once('#').map(|(resource, size)| (resource, size.parse::<u32>())) {
        Some((resource, Ok(size))) if !resource.is_empty() && size > 0 => Ok(text.to_owned()),
        Some((_, Ok(0))) => Err("a resource is always served from memory".into()),
        _ => Err("a size is resource[.group]#size".into()),
    }
}
