//! The requests: content deleted and counted, conditions written, the namespace let go.

use super::FINALIZER;
use super::plan::{Found, Outcome, grace, judge};
use super::status;
use crate::support::now;
use api::core::v1::Namespace;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Time;
use client::discovery::{ApiResource, discover};
use client::{Client, Error, ListParams, ListResult, Resource, Result, metadata};
use futures::{FutureExt as _, StreamExt as _};
use serde::Deserialize;

/// How many resources of a namespace are emptied at the same time.
const TOGETHER: usize = 16;

pub(super) struct Act {
    pub client: Client,
}

/// What is read of pods for the estimate.
#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

apimachinery::decode!(Pod);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

/// A verb that the server does not have for a resource is no failure.
fn unsupported(error: &Error) -> bool {
    error.is_not_found() || error.code() == Some(405)
}

impl Act {
    /// The namespace, with its phase saying what happens to it; none if there is nothing left to do.
    pub(super) async fn terminating(&self, name: &str) -> Result<Option<Namespace>> {
        let api = self.client.all::<Namespace>();
        loop {
            let Some(mut namespace) = api.get_opt(name).await? else { return Ok(None) };
            if namespace.metadata.deletion_timestamp.is_none() || namespace.spec.finalizers.is_empty() {
                return Ok(None);
            }
            if namespace.status.phase == "Terminating" {
                return Ok(Some(namespace));
            }
            namespace.status.phase = "Terminating".into();
            match api.update_status(&namespace).await {
                Ok(namespace) => return Ok(Some(namespace)),
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes all that is in the namespace; what else there is only once its pods are gone.
    pub(super) async fn delete_content(&self, namespace: &str, deleted_at: Time) -> Found {
        let mut found = Found::default();
        let discovered = match discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                found.discovery = Some(error.to_string());
                found.errors.push(error.to_string());
                return found;
            }
        };
        if let Some(failure) = discovered.failure() {
            let text =
                format!("Discovery failed for some groups, {} failing: {failure}", discovered.failed.len());
            found.discovery = Some(text);
            found.errors.push(failure);
        }
        let (pods, others): (Vec<&ApiResource>, Vec<&ApiResource>) = discovered
            .preferred()
            .filter(|resource| resource.namespaced && resource.supports("delete"))
            .partition(|r| r.resource.group.is_empty() && r.resource.resource == "pods");
        // KEP-5080: pods go first, for what they use may be what keeps them from harm.
        for resource in pods {
            let estimate = match self.pods_take(namespace, deleted_at).await {
                Ok(estimate) => estimate,
                Err(error) => {
                    found.add(Outcome { error: Some(error.to_string()), ..Default::default() });
                    continue;
                }
            };
            found.add(self.empty(resource, namespace, estimate).await);
        }
        if !found.remaining.is_empty() {
            found.pods_first = true;
            return found;
        }
        let each: Vec<_> =
            others.into_iter().map(|resource| self.empty(resource, namespace, 0).boxed()).collect();
        let mut outcomes = futures::stream::iter(each).buffer_unordered(TOGETHER);
        while let Some(outcome) = outcomes.next().await {
            found.add(outcome);
        }
        found
    }

    /// In how many seconds the pods should have ended.
    async fn pods_take(&self, namespace: &str, deleted_at: Time) -> Result<i64> {
        let pods = self.client.resource(Resource::new("", "v1", "pods"), Some(namespace));
        let pods: ListResult<Pod> = pods.list(&ListParams::default()).await?;
        let alive =
            pods.items.iter().filter(|pod| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"));
        let periods = alive.filter_map(|pod| pod.spec.termination_grace_period_seconds);
        Ok(grace(periods, deleted_at, now()))
    }

    /// Deletes all objects of a resource in the namespace.
    async fn empty(&self, resource: &ApiResource, namespace: &str, estimate: i64) -> Outcome {
        match self.try_empty(resource, namespace, estimate).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome { estimate, error: Some(error.to_string()), remaining: None },
        }
    }

    async fn try_empty(&self, resource: &ApiResource, namespace: &str, estimate: i64) -> Result<Outcome> {
        let objects = self.client.resource(resource.resource.clone(), Some(namespace)).metadata();
        let list = async || match metadata::list(&objects).await {
            Err(error) if unsupported(&error) => Ok(None),
            listed => listed.map(Some),
        };
        let can_list = resource.supports("list");
        if can_list {
            match list().await? {
                Some(there) if !there.is_empty() => {}
                _ => return Ok(Outcome::default()),
            }
        }
        // The garbage collector must not orphan what a generic deletion takes away.
        let options = DeleteOptions { propagation_policy: Some("Background".into()), ..Default::default() };
        let mut together = resource.supports("deletecollection");
        if together {
            match objects.delete_collection(&options, &ListParams::default()).await {
                Err(error) if unsupported(&error) => together = false,
                done => drop(done?),
            }
        }
        if !can_list {
            return Ok(Outcome { estimate, ..Default::default() });
        }
        if !together {
            for object in list().await?.unwrap_or_default() {
                match objects.delete(&object.name, &options).await {
                    Err(error) if !unsupported(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(match list().await? {
            Some(left) => judge(&resource.resource, namespace, &left, estimate),
            None => Outcome { estimate, ..Default::default() },
        })
    }

    /// Writes what was found into the conditions. Returns the namespace as it is then; none if it is gone.
    pub(super) async fn write_conditions(
        &self,
        mut namespace: Namespace,
        found: &Found,
    ) -> Result<Option<Namespace>> {
        let before = namespace.status.clone();
        status::update(&mut namespace.status, found, now());
        if namespace.status == before {
            return Ok(Some(namespace));
        }
        match self.client.all::<Namespace>().update_status(&namespace).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => {
                // The next look writes them again.
                tracing::warn!(namespace = namespace.metadata.name, %error, "could not update the conditions");
                Ok(Some(namespace))
            }
        }
    }

    /// Takes this controller's finalizer from the namespace.
    pub(super) async fn finalize(&self, mut namespace: Namespace) -> Result<()> {
        let api = self.client.all::<Namespace>();
        let uid = namespace.metadata.uid.clone();
        loop {
            namespace.spec.finalizers.retain(|finalizer| finalizer != FINALIZER);
            let name = namespace.metadata.name.clone();
            let written: Result<Namespace> = api.dynamic().update(&name, Some("finalize"), &namespace).await;
            match written {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if !error.is_conflict() => return Err(error),
                Err(_) => {}
            }
            match api.get_opt(&name).await? {
                Some(newer) if newer.metadata.uid == uid => namespace = newer,
                _ => return Ok(()),
            }
        }
    }
}
