//! What is counted of autoscaling: looks, the metrics that were computed for them, and what they come to. Upstream:
//! `horizontal_pod_autoscaler_controller_*`.

use super::judge::Failure;
use client::ObjectKey;
use component::metrics::{
    CounterVec, Gauge, GaugeVec, HistogramVec, Opts, Registry, Stability, exponential_buckets,
};
use std::time::Duration;

/// What a look, or a metric, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub action: Action,
    /// The first mistake.
    pub fault: Fault,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Action {
    #[default]
    None,
    ScaleUp,
    ScaleDown,
}

/// Whose mistake kept a look from its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// That of who wrote the autoscaler.
    Spec,
    Internal,
}

impl Action {
    /// From one size to another.
    pub(super) fn of(from: i32, to: i32) -> Self {
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Action::ScaleUp,
            std::cmp::Ordering::Less => Action::ScaleDown,
            std::cmp::Ordering::Equal => Action::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::ScaleUp => "scale_up",
            Action::ScaleDown => "scale_down",
        }
    }
}

impl Fault {
    pub(super) fn of(failure: &Failure) -> Self {
        if failure.reason == "InvalidMetricSourceType" { Fault::Spec } else { Fault::Internal }
    }

    fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Spec => "spec",
            Fault::Internal => "internal",
        }
    }
}

pub(super) struct Monitor {
    looks: CounterVec,
    looked: HistogramVec,
    computations: CounterVec,
    computed: HistogramVec,
    desired: GaugeVec,
    autoscalers: Gauge,
}

impl Monitor {
    pub(super) fn new(registry: &Registry) -> Self {
        use Stability::{Alpha, Beta};
        let opts = |name, stability, help| Opts { name, help, stability };
        let buckets = exponential_buckets(0.001, 2.0, 15);
        Monitor {
            looks: registry.counter_vec(
                opts(
                    "horizontal_pod_autoscaler_controller_reconciliations_total",
                    Beta,
                    "Number of reconciliations of HPA controller. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'. Note that if both spec and internal errors happen during a reconciliation, the first one to occur is reported in `error` label.",
                ),
                &["action", "error"],
            ),
            looked: registry.histogram_vec(
                opts(
                    "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
                    Beta,
                    "The time(seconds) that the HPA controller takes to reconcile once. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'. Note that if both spec and internal errors happen during a reconciliation, the first one to occur is reported in `error` label.",
                ),
                &["action", "error"],
                &buckets,
            ),
            computations: registry.counter_vec(
                opts(
                    "horizontal_pod_autoscaler_controller_metric_computation_total",
                    Beta,
                    "Number of metric computations. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'. The label 'metric_type' corresponds to HPA.spec.metrics[*].type",
                ),
                &["action", "error", "metric_type"],
            ),
            computed: registry.histogram_vec(
                opts(
                    "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
                    Beta,
                    "The time(seconds) that the HPA controller takes to calculate one metric. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. The label 'error' should be either 'spec', 'internal', or 'none'. The label 'metric_type' corresponds to HPA.spec.metrics[*].type",
                ),
                &["action", "error", "metric_type"],
                &buckets,
            ),
            desired: registry.gauge_vec(
                opts(
                    "horizontal_pod_autoscaler_controller_desired_replicas",
                    Alpha,
                    "Current desired replica count for HPA objects.",
                ),
                &["namespace", "hpa_name"],
            ),
            autoscalers: registry.gauge(opts(
                "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
                Alpha,
                "Current number of controlled HPA objects.",
            )),
        }
    }

    pub(super) fn looked(&self, verdict: Verdict, took: Duration) {
        let labels = [verdict.action.name(), verdict.fault.name()];
        self.looks.with(&labels).inc();
        self.looked.with(&labels).observe(took.as_secs_f64());
    }

    /// A metric of a type was computed.
    pub(super) fn computed(&self, kind: &str, verdict: Verdict, took: Duration) {
        let labels = [verdict.action.name(), verdict.fault.name(), kind];
        self.computations.with(&labels).inc();
        self.computed.with(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn desired(&self, key: &ObjectKey, replicas: i32) {
        self.desired.with(&[&key.namespace, &key.name]).set(f64::from(replicas));
    }

    /// There is one autoscaler more, or one less.
    pub(super) fn counted(&self, by: f64) {
        self.autoscalers.add(by);
    }

    /// An autoscaler is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.desired.remove(&[&key.namespace, &key.name]);
    }
}
