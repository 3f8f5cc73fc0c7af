//! What the metrics APIs say: of resources, of pods and objects, and of things outside the cluster.

use super::replicas::{Sample, Samples};
use api::autoscaling::v2::CrossVersionObjectReference;
use apimachinery::decode::Decode;
use apimachinery::quantity::Quantity;
use apimachinery::time::Time;
use apimachinery::value::Value;
use bytes::Bytes;
use client::{Client, ListResult, Resource, Result};
use http::Method;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The window of a sample that does not tell, in seconds.
const WINDOW: i64 = 60;

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    #[serde(default)]
    timestamp: Time,
    #[serde(default)]
    window: apimachinery::time::Duration,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    #[serde(default)]
    described_object: Named,
    #[serde(default)]
    timestamp: Time,
    window_seconds: Option<i64>,
    value: Quantity,
}

apimachinery::decode!(PodMetrics, MetricValue);

/// Asks the metrics APIs. Errors are told as upstream words them.
pub(super) struct Metrics(pub Client);

impl Metrics {
    async fn get<T: Decode>(&self, path: &str, query: &[(&str, String)]) -> Result<T> {
        let query: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
        self.0.request(Method::GET, path, &query, "", Bytes::new()).await
    }

    /// What pods, or one container of each, use of a resource.
    pub(super) async fn resource(
        &self,
        resource: &str,
        namespace: &str,
        selector: &str,
        container: &str,
    ) -> std::result::Result<Samples, String> {
        let failed = |why: String| format!("unable to get metrics for resource {resource}: {why}");
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let listed: Result<ListResult<PodMetrics>> =
            self.get(&path, &[("labelSelector", selector.into())]).await;
        let listed = listed
            .map_err(|error| failed(format!("unable to fetch metrics from resource metrics API: {error}")))?;
        if listed.items.is_empty() {
            return Err(failed("no metrics returned from resource metrics API".into()));
        }
        let mut samples = Samples::new();
        for pod in listed.items {
            let name = pod.metadata.name;
            let found = pod.containers.iter().any(|c| c.name == container);
            if !container.is_empty() && !found {
                return Err(failed(format!(
                    "container {container} not present in metrics for pod {}/{name}",
                    pod.metadata.namespace
                )));
            }
            let counted = pod.containers.iter().filter(|c| container.is_empty() || c.name == container);
            let values: Option<Vec<i64>> =
                counted.map(|c| Some(c.usage.get(resource)?.milli_value())).collect();
            // A pod that lacks a part is missing as a whole.
            if let Some(values) = values.filter(|values| !values.is_empty()) {
                let window = pod.window.nanoseconds() / 1_000_000_000;
                samples.insert(name, Sample { value: values.iter().sum(), at: pod.timestamp, window });
            }
        }
        Ok(samples)
    }

    /// The version of the custom metrics API that is served.
    async fn custom(&self) -> Result<String> {
        let group: Value = self.get("/apis/custom.metrics.k8s.io", &[]).await?;
        let version = group["preferredVersion"]["groupVersion"].as_str();
        Ok(format!("/apis/{}", version.unwrap_or("custom.metrics.k8s.io/v1beta1")))
    }

    /// A metric of each of some pods.
    pub(super) async fn pods(
        &self,
        metric: &str,
        namespace: &str,
        selector: &str,
        metric_selector: &str,
    ) -> std::result::Result<Samples, String> {
        let failed = |why: String| format!("unable to get metric {metric}: {why}");
        let listed = async {
            let path = format!("{}/namespaces/{namespace}/pods/*/{metric}", self.custom().await?);
            let query = [("labelSelector", selector.into()), ("metricLabelSelector", metric_selector.into())];
            self.get::<ListResult<MetricValue>>(&path, &query).await
        };
        let listed = listed
            .await
            .map_err(|error| failed(format!("unable to fetch metrics from custom metrics API: {error}")))?;
        if listed.items.is_empty() {
            return Err(failed("no metrics returned from custom metrics API".into()));
        }
        let samples = listed.items.into_iter().map(|item| {
            let window = item.window_seconds.unwrap_or(WINDOW);
            let sample = Sample { value: item.value.milli_value(), at: item.timestamp, window };
            (item.described_object.name, sample)
        });
        Ok(samples.collect())
    }

    /// A metric of one object.
    pub(super) async fn object(
        &self,
        metric: &str,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric_selector: &str,
    ) -> std::result::Result<i64, String> {
        let (kind, name) = (&object.kind, &object.name);
        let failed =
            |why: String| format!("unable to get metric {metric}: {why} on {kind} {namespace}/{name}");
        let got = async {
            let base = self.custom().await?;
            let path = if kind == "Namespace" {
                format!("{base}/namespaces/{name}/metrics/{metric}")
            } else {
                let resource = super::scale::resource(&self.0, &object.api_version, kind).await?;
                let resource = resource.map(|Resource { group, resource, .. }| match group.is_empty() {
                    true => resource,
                    false => format!("{resource}.{group}"),
                });
                let resource = resource.unwrap_or_else(|| kind.to_lowercase());
                format!("{base}/namespaces/{namespace}/{resource}/{name}/{metric}")
            };
            self.get::<ListResult<MetricValue>>(&path, &[("metricLabelSelector", metric_selector.into())])
                .await
        };
        let listed = got
            .await
            .map_err(|error| failed(format!("unable to fetch metrics from custom metrics API: {error}")))?;
        let first = listed.items.first();
        let first = first.ok_or_else(|| failed("no metrics returned from custom metrics API".into()))?;
        Ok(first.value.milli_value())
    }

    /// A metric from outside, summed up.
    pub(super) async fn external(
        &self,
        metric: &str,
        namespace: &str,
        selector: &str,
    ) -> std::result::Result<i64, String> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let listed: Result<ListResult<MetricValue>> =
            self.get(&path, &[("labelSelector", selector.into())]).await;
        let listed =
            listed.map_err(|error| format!("unable to fetch metrics from external metrics API: {error}"))?;
        if listed.items.is_empty() {
            return Err("no metrics returned from external metrics API".into());
        }
        Ok(listed.items.iter().fold(0, |sum: i64, item| sum.saturating_add(item.value.milli_value())))
    }
}
