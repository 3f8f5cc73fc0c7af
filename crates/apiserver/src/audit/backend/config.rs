//! What flags say of backends, checked, and the backends they come to.

use super::batch::{self, Batch};
use super::log::{Format, Log};
use super::rotate::{Limits, Rotating};
use super::truncate::Truncate;
use super::webhook::Webhook;
use super::{Backend, IgnoreErrors};
use crate::audit::Metrics;
use crate::egress::Way;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MODES: [&str; 3] = ["batch", "blocking", "blocking-strict"];
const FORMATS: [&str; 2] = ["legacy", "json"];

/// How a backend is told.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `log` or `webhook`.
    pub plugin: &'static str,
    pub mode: String,
    pub batch: batch::Options,
    pub truncate: bool,
    pub truncate_max_event: i64,
    pub truncate_max_batch: i64,
    pub version: String,
}

#[derive(Debug, Clone)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: String,
    pub max_age: i64,
    pub max_backups: i64,
    /// Megabytes.
    pub max_size: i64,
    pub compress: bool,
    pub format: String,
    pub delivery: Delivery,
}

#[derive(Debug, Clone)]
pub struct WebhookOptions {
    pub config_file: PathBuf,
    pub initial_backoff: Duration,
    pub delivery: Delivery,
}

impl Delivery {
    fn check(&self) -> Result<(), String> {
        let plugin = self.plugin;
        if !MODES.contains(&self.mode.as_str()) {
            let modes = MODES.join(",");
            return Err(format!("invalid audit {plugin} mode {}, allowed modes are {modes:?}", self.mode));
        }
        if self.mode == "batch" {
            let positive = |what: &str, value: &dyn std::fmt::Display, ok: bool| match ok {
                true => Ok(()),
                false => {
                    Err(format!("invalid audit batch {plugin} {what} {value}, must be a positive number"))
                }
            };
            let batch = &self.batch;
            positive("buffer size", &batch.buffer_size, batch.buffer_size > 0)?;
            positive("max batch size", &batch.max_size, batch.max_size > 0)?;
            if let Some((rate, burst)) = batch.throttle {
                positive("throttle QPS", &rate, rate > 0.0)?;
                positive("throttle burst", &burst, burst > 0)?;
            }
        }
        let (event, batch) = (self.truncate_max_event, self.truncate_max_batch);
        if event <= 0 {
            return Err(format!(
                "invalid audit truncate {plugin} max event size {event}, must be a positive number"
            ));
        }
        if batch < event {
            return Err(format!(
                "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
            ));
        }
        if self.version != "audit.k8s.io/v1" {
            return Err("invalid group version, allowed versions are [\"audit.k8s.io/v1\"]".into());
        }
        Ok(())
    }

    fn wrap(&self, backend: Arc<dyn Backend>, metrics: &Metrics) -> Arc<dyn Backend> {
        let told: Arc<dyn Backend> = match self.mode.as_str() {
            "blocking-strict" => backend,
            "blocking" => Arc::new(IgnoreErrors(backend)),
            _ => Arc::new(Batch::new(backend, self.batch.clone(), metrics.clone())),
        };
        if !self.truncate {
            return told;
        }
        let size = |size: i64| usize::try_from(size).unwrap_or(usize::MAX);
        Arc::new(Truncate {
            inner: told,
            max_event: size(self.truncate_max_event),
            max_batch: size(self.truncate_max_batch),
            metrics: metrics.clone(),
        })
    }
}

impl LogOptions {
    pub fn backend(&self, metrics: &Metrics) -> Result<Arc<dyn Backend>, String> {
        self.delivery.check()?;
        let format = match self.format.as_str() {
            "json" => Format::Json,
            "legacy" => Format::Legacy,
            other => {
                let known = FORMATS.join(",");
                return Err(format!("invalid audit log format {other}, allowed formats are {known:?}"));
            }
        };
        let limit = |flag: &str, value: i64| {
            u64::try_from(value).map_err(|_| format!("--audit-log-{flag} {value} can't be a negative number"))
        };
        let limits = Limits {
            age: limit("maxage", self.max_age)?,
            backups: usize::try_from(limit("maxbackup", self.max_backups)?).unwrap_or(usize::MAX),
            size: limit("maxsize", self.max_size)?.saturating_mul(1 << 20),
            compress: self.compress,
        };
        let log = if self.path == "-" {
            Log::new(Box::new(std::io::stdout()), format, metrics.clone())
        } else {
            let file = Rotating::open(self.path.as_ref(), limits);
            let file = file.map_err(|error| format!("ensureLogFile: {}: {error}", self.path))?;
            Log::rotating(file, format, metrics.clone())
        };
        Ok(self.delivery.wrap(Arc::new(log), metrics))
    }
}

impl WebhookOptions {
    pub fn backend(&self, metrics: &Metrics, way: Way) -> Result<Arc<dyn Backend>, String> {
        self.delivery.check()?;
        let webhook = Webhook::load(&self.config_file, self.initial_backoff, metrics.clone(), way);
        let webhook = webhook.map_err(|why| format!("initializing audit webhook: {why}"))?;
        Ok(self.delivery.wrap(Arc::new(webhook), metrics))
    }
}
