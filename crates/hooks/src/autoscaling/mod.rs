//! Hooks of `autoscaling`.

mod annotations;
mod columns;
mod conversion;
mod horizontal_pod_autoscaler;
mod validation;

use super::{ConversionRow, Row};

pub(super) const STRATEGIES: &[Row] =
    &[("autoscaling", "HorizontalPodAutoscaler", &horizontal_pod_autoscaler::Autoscalers)];

pub(super) const CONVERSIONS: &[ConversionRow] = &[
    ("autoscaling", "HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2", conversion::from_v1),
    ("autoscaling", "HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1", conversion::to_v1),
];
