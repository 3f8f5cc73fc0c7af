//! `apiserver_validating_admission_policy_check_*`, `apiserver_mutating_admission_policy_check_*` and `apiserver_cel_*`: what
//! came of policies' expressions, and how long they took.

use component::metrics::{CounterVec, Histogram, HistogramVec, Opts, Registry, Stability};
use std::time::{Duration, Instant};

/// From what accessing a member takes to an expression that spends its whole budget.
const BOUNDS: [f64; 5] = [0.0000005, 0.001, 0.01, 0.1, 1.0];

/// Upstream's default bounds.
const DEFAULT_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What kind of error a message is of.
pub(super) fn error_type(message: &str) -> &'static str {
    match message {
        _ if message.starts_with("compilation") => "compile_error",
        _ if message.starts_with("validation failed due to running out of cost budget") => "out_of_budget",
        _ => "invalid_error",
    }
}

/// Those of one kind of policies.
#[derive(Clone)]
pub(super) struct Measures {
    checks: CounterVec,
    durations: HistogramVec,
    compilation: Histogram,
    evaluation: Histogram,
}

impl Measures {
    pub(super) fn validating(registry: &Registry) -> Self {
        let beta = |name, help| Opts { name, help, stability: Stability::Beta };
        let labels = ["policy", "policy_binding", "error_type", "enforcement_action"];
        let checks = beta(
            "apiserver_validating_admission_policy_check_total",
            "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
        );
        let durations = beta(
            "apiserver_validating_admission_policy_check_duration_seconds",
            "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
        );
        Self::new(registry, checks, durations, &labels)
    }

    pub(super) fn mutating(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        let labels = ["policy", "policy_binding", "error_type"];
        let checks = alpha(
            "apiserver_mutating_admission_policy_check_total",
            "Mutation admission policy check total, labeled by policy and further identified by binding.",
        );
        let durations = alpha(
            "apiserver_mutating_admission_policy_check_duration_seconds",
            "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
        );
        Self::new(registry, checks, durations, &labels)
    }

    fn new(registry: &Registry, checks: Opts<'_>, durations: Opts<'_>, labels: &[&str]) -> Self {
        let cel =
            |name, help| registry.histogram(Opts { name, help, stability: Stability::Beta }, &DEFAULT_BOUNDS);
        Measures {
            checks: registry.counter_vec(checks, labels),
            durations: registry.histogram_vec(durations, labels, &BOUNDS),
            compilation: cel(
                "apiserver_cel_compilation_duration_seconds",
                "CEL compilation time in seconds.",
            ),
            evaluation: cel("apiserver_cel_evaluation_duration_seconds", "CEL evaluation time in seconds."),
        }
    }

    /// Counts a check, its label values being in the order in which they were declared.
    pub(super) fn checked(&self, labels: &[&str], took: Duration) {
        self.checks.with(labels).inc();
        self.durations.with(labels).observe(took.as_secs_f64());
    }

    /// Compiles a policy, and counts how long that takes.
    pub(super) fn compiling<T>(&self, compile: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let compiled = compile();
        self.compilation.observe_since(start);
        compiled
    }

    /// Counts an evaluation that began at `start`.
    pub(super) fn evaluated(&self, start: Instant) {
        self.evaluation.observe_since(start);
    }
}
