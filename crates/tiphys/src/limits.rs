//! The flags that say how many requests are served at a time, and how long things may take.

use anyhow::{Result, bail};
use apimachinery::clock::Clock;
use apiserver::flowcontrol::Flow;
use apiserver::flowcontrol::max_in_flight::MaxInFlight;
use apiserver::gate::{Limit, Timing};
use component::metrics::Registry;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LimitFlags {
    /// If true, requests wait for their turn fairly; --max-requests-inflight and --max-mutating-requests-inflight are
    /// summed to the number of seats.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    enable_priority_and_fairness: bool,
    /// The maximum number of requests that read at a time, or a part of all seats.
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: u32,
    /// The maximum number of requests that write at a time, or a part of all seats.
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: u32,
    /// The time that a request has; watches and others that go on for long have more.
    #[arg(long, default_value = "1m0s", value_parser = crate::cli::duration)]
    request_timeout: Duration,
    /// The seconds at least that a watch goes on whose client says nothing.
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u64,
    /// How likely an HTTP/2 client is told to connect anew, so that several servers share their clients; at most .02.
    #[arg(long, default_value_t = 0.0)]
    goaway_chance: f64,
    /// The maximum amount of time it should take for the server to complete its startup sequence and become live: so long
    /// /livez assumes that unfinished post-start hooks will complete successfully.
    #[arg(long, default_value = "0s", value_parser = crate::cli::duration)]
    pub livez_grace_period: Duration,
    /// How long the server goes on after it was told to stop, unready, so that load balancers turn from it.
    #[arg(long, default_value = "0s", value_parser = crate::cli::duration)]
    pub shutdown_delay_duration: Duration,
    /// If true, who comes while the last requests are finished is told to come again.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    shutdown_send_retry_after: bool,
    /// Watches end one after the other within this time when the server stops.
    #[arg(long, default_value = "0s", value_parser = crate::cli::duration)]
    shutdown_watch_termination_grace_period: Duration,
}

impl LimitFlags {
    pub(crate) fn timing(&self) -> Result<Timing> {
        if !(0.0..=0.02).contains(&self.goaway_chance) {
            bail!("--goaway-chance can not be less than 0 or greater than 0.02");
        }
        if self.request_timeout.is_zero() {
            bail!("--request-timeout can not be zero");
        }
        Ok(Timing {
            request: self.request_timeout,
            watch: Duration::from_secs(self.min_request_timeout),
            goaway_chance: self.goaway_chance,
            watch_grace: self.shutdown_watch_termination_grace_period,
            send_retry_after: self.shutdown_send_retry_after,
        })
    }

    pub(crate) fn limit(&self, registry: &Registry, clock: &Arc<dyn Clock>) -> Result<Limit> {
        let (reads, writes) = (self.max_requests_inflight, self.max_mutating_requests_inflight);
        if !self.enable_priority_and_fairness {
            return Ok(Limit::MaxInFlight(MaxInFlight::new(reads, writes)));
        }
        let total = reads.saturating_add(writes);
        if total == 0 {
            bail!("--max-requests-inflight and --max-mutating-requests-inflight must be positive in sum");
        }
        Ok(Limit::Fair(Arc::new(Flow::new(total, self.request_timeout, registry, clock.clone()))))
    }
}
