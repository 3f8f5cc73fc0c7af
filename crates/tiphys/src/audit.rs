//! `--audit-*`: the flags of the audit log, and what they come to.

use anyhow::{Context as _, Result};
use apimachinery::clock::Clock;
use apiserver::audit::backend::Backend;
use apiserver::audit::backend::batch;
use apiserver::audit::backend::config::{Delivery, LogOptions, WebhookOptions};
use apiserver::audit::policy::Policy;
use apiserver::audit::{Audit, Metrics};
use apiserver::egress::Way;
use component::metrics::Registry;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AuditFlags {
    /// Path to the file that defines the audit policy configuration.
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// If set, all requests coming to the apiserver will be logged to this file. '-' means standard out.
    #[arg(long)]
    audit_log_path: Option<String>,
    /// The maximum number of days to retain old audit log files; 0 keeps them whatever their age.
    #[arg(long, default_value_t = 366, allow_negative_numbers = true)]
    audit_log_maxage: i64,
    /// The maximum number of old audit log files to retain; 0 keeps all.
    #[arg(long, default_value_t = 100, allow_negative_numbers = true)]
    audit_log_maxbackup: i64,
    /// The maximum size in megabytes of the audit log file before it gets rotated; 0 never rotates it.
    #[arg(long, default_value_t = 100, allow_negative_numbers = true)]
    audit_log_maxsize: i64,
    /// If set, the rotated log files will be compressed using gzip.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_compress: bool,
    /// Format of saved audits: legacy, one line of text each, or json.
    #[arg(long, default_value = "json")]
    audit_log_format: String,
    /// API group and version used for serializing audit events written to log.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_log_version: String,
    /// Strategy for sending audit events to the log: batch, blocking, blocking-strict.
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// The size of the buffer to store events before batching and writing. Only used in batch mode.
    #[arg(long, default_value_t = 10000)]
    audit_log_batch_buffer_size: usize,
    /// The maximum size of a batch. Only used in batch mode.
    #[arg(long, default_value_t = 1)]
    audit_log_batch_max_size: usize,
    /// The amount of time to wait before writing a batch that is not full. Only used in batch mode.
    #[arg(long, default_value = "0s", value_parser = crate::cli::duration)]
    audit_log_batch_max_wait: Duration,
    /// Whether batching throttling is enabled. Only used in batch mode.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Maximum average number of batches per second. Only used in batch mode.
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f32,
    /// Maximum number of batches at the same moment if the rate was not used before. Only used in batch mode.
    #[arg(long, default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Whether event and batch truncating is enabled.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    /// Maximum size of the batch sent to the log.
    #[arg(long, default_value_t = 10 << 20, allow_negative_numbers = true)]
    audit_log_truncate_max_batch_size: i64,
    /// Maximum size of the audit event sent to the log; a larger one loses its objects, or is discarded.
    #[arg(long, default_value_t = 100 << 10, allow_negative_numbers = true)]
    audit_log_truncate_max_event_size: i64,
    /// Path to a kubeconfig formatted file that defines the audit webhook configuration.
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// The amount of time to wait before retrying the first failed request.
    #[arg(long, alias = "audit-webhook-batch-initial-backoff", default_value = "10s", value_parser = crate::cli::duration)]
    audit_webhook_initial_backoff: Duration,
    /// API group and version used for serializing audit events written to webhook.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_webhook_version: String,
    /// Strategy for sending audit events to the webhook: batch, blocking, blocking-strict.
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: String,
    /// The size of the buffer to store events before batching and writing. Only used in batch mode.
    #[arg(long, default_value_t = 10000)]
    audit_webhook_batch_buffer_size: usize,
    /// The maximum size of a batch. Only used in batch mode.
    #[arg(long, default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// The amount of time to wait before writing a batch that is not full. Only used in batch mode.
    #[arg(long, default_value = "30s", value_parser = crate::cli::duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether batching throttling is enabled. Only used in batch mode.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Maximum average number of batches per second. Only used in batch mode.
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f32,
    /// Maximum number of batches at the same moment if the rate was not used before. Only used in batch mode.
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// Whether event and batch truncating is enabled.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    /// Maximum size of the batch sent to the webhook.
    #[arg(long, default_value_t = 10 << 20, allow_negative_numbers = true)]
    audit_webhook_truncate_max_batch_size: i64,
    /// Maximum size of the audit event sent to the webhook; a larger one loses its objects, or is discarded.
    #[arg(long, default_value_t = 100 << 10, allow_negative_numbers = true)]
    audit_webhook_truncate_max_event_size: i64,
}

impl AuditFlags {
    fn log(&self, path: &str) -> LogOptions {
        let throttle = (self.audit_log_batch_throttle_qps, self.audit_log_batch_throttle_burst);
        LogOptions {
            path: path.to_owned(),
            max_age: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_size: self.audit_log_maxsize,
            compress: self.audit_log_compress,
            format: self.audit_log_format.clone(),
            delivery: Delivery {
                plugin: "log",
                mode: self.audit_log_mode.clone(),
                batch: batch::Options {
                    buffer_size: self.audit_log_batch_buffer_size,
                    max_size: self.audit_log_batch_max_size,
                    max_wait: self.audit_log_batch_max_wait,
                    throttle: self.audit_log_batch_throttle_enable.then_some(throttle),
                    together: false,
                },
                truncate: self.audit_log_truncate_enabled,
                truncate_max_event: self.audit_log_truncate_max_event_size,
                truncate_max_batch: self.audit_log_truncate_max_batch_size,
                version: self.audit_log_version.clone(),
            },
        }
    }

    fn webhook(&self, config_file: PathBuf) -> WebhookOptions {
        let throttle = (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
        WebhookOptions {
            config_file,
            initial_backoff: self.audit_webhook_initial_backoff,
            delivery: Delivery {
                plugin: "webhook",
                mode: self.audit_webhook_mode.clone(),
                batch: batch::Options {
                    buffer_size: self.audit_webhook_batch_buffer_size,
                    max_size: self.audit_webhook_batch_max_size,
                    max_wait: self.audit_webhook_batch_max_wait,
                    throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
                    together: true,
                },
                truncate: self.audit_webhook_truncate_enabled,
                truncate_max_event: self.audit_webhook_truncate_max_event_size,
                truncate_max_batch: self.audit_webhook_truncate_max_batch_size,
                version: self.audit_webhook_version.clone(),
            },
        }
    }

    /// What they come to: nothing, without a policy or without anybody to tell. To be called inside the runtime.
    pub(crate) fn audit(
        &self,
        registry: &Registry,
        clock: &Arc<dyn Clock>,
        way: Way,
    ) -> Result<Option<Arc<Audit>>> {
        let metrics = Metrics::new(registry);
        let Some(path) = &self.audit_policy_file else {
            if self.audit_log_path.is_some() || self.audit_webhook_config_file.is_some() {
                tracing::info!("no audit policy file provided, no events will be recorded");
            }
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("loading audit policy file: failed to read file path {}", path.display())
        })?;
        let policy = Policy::parse(&text).map_err(|why| {
            anyhow::anyhow!("loading audit policy file: {why}: from file {}", path.display())
        })?;
        let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
        if let Some(path) = self.audit_log_path.as_ref().filter(|path| !path.is_empty()) {
            backends.push(self.log(path).backend(&metrics).map_err(anyhow::Error::msg)?);
        }
        if let Some(file) = &self.audit_webhook_config_file {
            let webhook = self.webhook(file.clone()).backend(&metrics, way);
            backends.push(webhook.map_err(anyhow::Error::msg)?);
        }
        if backends.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Audit::new(policy, backends, metrics, clock.clone()))))
    }
}
