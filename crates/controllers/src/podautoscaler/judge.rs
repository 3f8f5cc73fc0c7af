//! What one metric asks for.

use super::metrics::Metrics;
use super::replicas::{Query, by_share, by_total, by_utilization, by_value};
use crate::disruption::printed_selector;
use api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use apimachinery::labels::format_label_selector;
use apimachinery::quantity::{Format, Quantity};

/// A size, what it is told to come from, and the metric's status.
pub(super) struct Proposal {
    pub size: i32,
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric has nothing to say.
pub(super) struct Failure {
    /// Of condition and event.
    pub reason: &'static str,
    /// In condition and event.
    pub why: String,
    /// As the error of all metrics tells it.
    pub error: String,
}

/// What a metric is asked about.
pub(super) struct Target<'a> {
    pub namespace: &'a str,
    /// The target's label selector.
    pub selector: &'a str,
    pub status_replicas: i32,
    pub query: Query<'a>,
}

fn milli(value: i64) -> Quantity {
    Quantity::from_milli(value, Format::DecimalSI)
}

fn of_resource(resource: &str, value: i64) -> Quantity {
    let format = if resource == "memory" { Format::BinarySI } else { Format::DecimalSI };
    Quantity::from_milli(value, format)
}

/// The selector of a metric, as requests carry it.
fn selector(metric: &MetricIdentifier) -> String {
    match &metric.selector {
        Some(selector) => format_label_selector(Some(selector)).replace("<none>", ""),
        None => String::new(),
    }
}

impl Metrics {
    /// Asks one metric.
    pub(super) async fn judge(&self, spec: &MetricSpec, target: &Target<'_>) -> Result<Proposal, Failure> {
        let missing = || Failure {
            reason: "InvalidMetricSourceType",
            why: format!("unknown metric source type {:?}", spec.type_),
            error: format!("unknown metric source type {:?}", spec.type_),
        };
        match spec.type_.as_str() {
            "Resource" => {
                let source = spec.resource.as_ref().ok_or_else(missing)?;
                let name = &source.name;
                let (size, current, percent) =
                    self.resource_value(name, "", &source.target, target).await.map_err(|why| Failure {
                        reason: "FailedGetResourceMetric",
                        error: format!("failed to get {name} resource metric value: {why}"),
                        why,
                    })?;
                let status = ResourceMetricStatus { name: name.clone(), current };
                let told = if percent {
                    format!("{name} resource utilization (percentage of request)")
                } else {
                    format!("{name} resource")
                };
                let status =
                    MetricStatus { type_: spec.type_.clone(), resource: Some(status), ..Default::default() };
                Ok(Proposal { size, name: told, status })
            }
            "ContainerResource" => {
                let source = spec.container_resource.as_ref().ok_or_else(missing)?;
                let (name, container) = (&source.name, &source.container);
                let (size, current, percent) = self
                    .resource_value(name, container, &source.target, target)
                    .await
                    .map_err(|why| Failure {
                        reason: "FailedGetContainerResourceMetric",
                        error: format!("failed to get {container} container metric value: {why}"),
                        why,
                    })?;
                let container_resource = Some(ContainerResourceMetricStatus {
                    name: name.clone(),
                    container: container.clone(),
                    current,
                });
                let told = if percent {
                    format!("{name} container resource utilization (percentage of request)")
                } else {
                    format!("{name} resource")
                };
                let status =
                    MetricStatus { type_: spec.type_.clone(), container_resource, ..Default::default() };
                Ok(Proposal { size, name: told, status })
            }
            "Pods" => {
                let source = spec.pods.as_ref().ok_or_else(missing)?;
                let failed = |why: String| Failure {
                    reason: "FailedGetPodsMetric",
                    error: format!("failed to get pods metric value: {why}"),
                    why,
                };
                let name = &source.metric.name;
                let samples = self
                    .pods(name, target.namespace, target.selector, &selector(&source.metric))
                    .await
                    .map_err(failed)?;
                let wanted = source.target.average_value.as_ref().map_or(0, Quantity::milli_value);
                let (size, mean) = by_value(&target.query, samples, "", wanted).map_err(failed)?;
                let current = MetricValueStatus { average_value: Some(milli(mean)), ..Default::default() };
                let pods = Some(PodsMetricStatus { metric: source.metric.clone(), current });
                let status = MetricStatus { type_: spec.type_.clone(), pods, ..Default::default() };
                Ok(Proposal { size, name: format!("pods metric {name}"), status })
            }
            "Object" => self.object_value(spec, target).await.map_err(|(why, error)| Failure {
                reason: "FailedGetObjectMetric",
                error: format!("failed to get object metric value: {error}"),
                why,
            }),
            "External" => {
                let name = spec.external.as_ref().map(|e| e.metric.name.clone()).unwrap_or_default();
                self.external_value(spec, target).await.map_err(|(why, error)| Failure {
                    reason: "FailedGetExternalMetric",
                    error: format!("failed to get {name} external metric value: {error}"),
                    why,
                })
            }
            _ => Err(missing()),
        }
    }

    /// Size, status, and whether the target is a share of requests.
    async fn resource_value(
        &self,
        resource: &str,
        container: &str,
        wanted: &MetricTarget,
        target: &Target<'_>,
    ) -> Result<(i32, MetricValueStatus, bool), String> {
        let samples = || self.resource(resource, target.namespace, target.selector, container);
        if let Some(value) = &wanted.average_value {
            let failed = |why: String| format!("failed to get {resource} usage: {why}");
            let samples = samples().await.map_err(failed)?;
            let (size, mean) =
                by_value(&target.query, samples, resource, value.milli_value()).map_err(failed)?;
            let average_value = Some(of_resource(resource, mean));
            return Ok((size, MetricValueStatus { average_value, ..Default::default() }, false));
        }
        let Some(percent) = wanted.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".into());
        };
        let failed = |why: String| format!("failed to get {resource} utilization: {why}");
        let samples = samples().await.map_err(failed)?;
        let (size, used, mean) =
            by_utilization(&target.query, samples, resource, container, percent).map_err(failed)?;
        let current = MetricValueStatus {
            average_utilization: Some(used),
            average_value: Some(of_resource(resource, mean)),
            ..Default::default()
        };
        Ok((size, current, true))
    }

    /// Fails with what condition and event tell, and with what the error tells.
    async fn object_value(
        &self,
        spec: &MetricSpec,
        target: &Target<'_>,
    ) -> Result<Proposal, (String, String)> {
        let twice = |why: String| (why.clone(), why);
        let Some(source) = &spec.object else { return Err(twice("no object".into())) };
        let (name, object) = (&source.metric.name, &source.described_object);
        let wanted = &source.target;
        let of = selector(&source.metric);
        let value = || self.object(name, target.namespace, object, &of);
        let (size, current, told) = match (wanted.type_.as_str(), &wanted.value, &wanted.average_value) {
            ("Value", Some(wanted), _) => {
                let value = value().await.map_err(twice)?;
                let size = by_total(&target.query, value, wanted.milli_value()).map_err(twice)?;
                let current = MetricValueStatus { value: Some(milli(value)), ..Default::default() };
                (size, current, format!("{} metric {name}", object.kind))
            }
            ("AverageValue", _, Some(wanted)) => {
                let value = value()
                    .await
                    .map_err(|why| (why.clone(), format!("failed to get {name} object metric: {why}")))?;
                let tolerances = target.query.tolerances;
                let (size, each) = by_share(tolerances, target.status_replicas, value, wanted.milli_value());
                let current = MetricValueStatus { average_value: Some(milli(each)), ..Default::default() };
                let of = printed_selector(source.metric.selector.as_ref());
                (size, current, format!("external metric {name}({of})"))
            }
            _ => {
                let why = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(twice(why.into()));
            }
        };
        let object = Some(ObjectMetricStatus {
            metric: source.metric.clone(),
            current,
            described_object: object.clone(),
        });
        let status = MetricStatus { type_: spec.type_.clone(), object, ..Default::default() };
        Ok(Proposal { size, name: told, status })
    }

    async fn external_value(
        &self,
        spec: &MetricSpec,
        target: &Target<'_>,
    ) -> Result<Proposal, (String, String)> {
        let twice = |why: String| (why.clone(), why);
        let Some(source) = &spec.external else { return Err(twice("no metric".into())) };
        let name = &source.metric.name;
        let of = printed_selector(source.metric.selector.as_ref());
        let value = async {
            let value = self.external(name, target.namespace, &selector(&source.metric)).await;
            value.map_err(|why| {
                format!("unable to get external metric {}/{name}/{of}: {why}", target.namespace)
            })
        };
        let (size, current) = match (&source.target.average_value, &source.target.value) {
            (Some(wanted), _) => {
                let value = value
                    .await
                    .map_err(|why| (why.clone(), format!("failed to get {name} external metric: {why}")))?;
                let tolerances = target.query.tolerances;
                let (size, each) = by_share(tolerances, target.status_replicas, value, wanted.milli_value());
                (size, MetricValueStatus { average_value: Some(milli(each)), ..Default::default() })
            }
            (None, Some(wanted)) => {
                let failed =
                    |why: String| (why.clone(), format!("failed to get external metric {name}: {why}"));
                let value = value.await.map_err(failed)?;
                let size = by_total(&target.query, value, wanted.milli_value()).map_err(failed)?;
                (size, MetricValueStatus { value: Some(milli(value)), ..Default::default() })
            }
            (None, None) => {
                let why = "invalid external metric source: neither a value target nor an average value target was set";
                return Err(twice(why.into()));
            }
        };
        let external = Some(ExternalMetricStatus { metric: source.metric.clone(), current });
        let status = MetricStatus { type_: spec.type_.clone(), external, ..Default::default() };
        Ok(Proposal { size, name: format!("external metric {name}({of})"), status })
    }
}
