//! The drivers of claims: each is known by what registers for it, once or more often while one takes over from another,
//! and is of use as long as somebody listens. What a driver offers on this node is taken away when it stays away, so that
//! no pod comes for it. Upstream: `cm/dra/plugin/dra_plugin_manager.go`.

use super::{Claims, health};
use crate::plugins::watcher::Handler;
use crate::plugins::{Connection, connect};
use api::resource::v1::ResourceSlice;
use apimachinery::meta::options::DeleteOptions;
use client::{Client, ListParams};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The services that this kubelet speaks, as drivers list them. Their messages are the same.
const SERVICES: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];
/// How long a driver may be away. Upstream: `defaultWipingDelay`.
const ABSENCE: Duration = Duration::from_secs(30);
/// Between attempts to reach a driver, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A driver that listens somewhere.
#[derive(Clone)]
pub(super) struct Driver {
    name: String,
    service: &'static str,
    channel: Channel,
}

impl Driver {
    /// Calls a method; the answer is counted.
    pub(super) async fn call<Q, A>(&self, claims: &Claims, method: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let path = format!("/k8s.io.kubelet.pkg.apis.dra.{}/{method}", self.service);
        let began = std::time::Instant::now();
        let calling = async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let at = http::uri::PathAndQuery::try_from(path.as_str())
                .map_err(|error| Status::internal(error.to_string()))?;
            grpc.unary(Request::new(request), at, tonic_prost::ProstCodec::default()).await
        };
        let answer = calling.await;
        claims.metrics.called(&self.name, &path, began, &answer);
        answer.map(tonic::Response::into_inner)
    }
}

/// What registered for a driver.
struct Instance {
    endpoint: PathBuf,
    service: &'static str,
    /// While somebody listens.
    channel: Option<Channel>,
    /// Goes with the instance.
    _following: AbortOnDropHandle<()>,
}

/// All of them, by the name of their driver.
#[derive(Default)]
pub(super) struct Drivers {
    instances: Mutex<BTreeMap<String, Vec<Instance>>>,
    /// What is to be taken away unless a driver comes back.
    wipes: Mutex<BTreeMap<String, AbortOnDropHandle<()>>>,
}

impl Drivers {
    /// A driver to be called: the latest that listens, or else the latest of all.
    pub(super) async fn get(&self, name: &str) -> Result<Driver, String> {
        let (service, channel, endpoint) = {
            let instances = self.instances.lock();
            let all = instances.get(name).map(Vec::as_slice).unwrap_or_default();
            let found = all.iter().rev().find(|one| one.channel.is_some()).or(all.last());
            let found = found.ok_or_else(|| format!("DRA driver {name} is not registered"))?;
            (found.service, found.channel.clone(), found.endpoint.clone())
        };
        let channel = match channel {
            Some(channel) => channel,
            None => crate::plugins::dial(&endpoint)
                .await
                .map_err(|error| format!("DRA driver {name}: {error}"))?,
        };
        Ok(Driver { name: name.into(), service, channel })
    }

    fn note(&self, name: &str, endpoint: &Path, channel: Option<Channel>) {
        let mut instances = self.instances.lock();
        let mut all = instances.get_mut(name).into_iter().flatten();
        if let Some(instance) = all.find(|one| one.endpoint == endpoint) {
            instance.channel = channel;
        }
    }

    fn is_usable(&self, name: &str) -> bool {
        let instances = self.instances.lock();
        instances.get(name).into_iter().flatten().any(|one| one.channel.is_some())
    }
}

impl Claims {
    /// Plans to take away what a driver offers, or no longer does, as the driver is there or not.
    fn weigh(self: &Arc<Self>, name: &str) {
        let mut wipes = self.drivers.wipes.lock();
        if self.drivers.is_usable(name) {
            wipes.remove(name);
        } else if !wipes.contains_key(name) {
            let (claims, driver) = (self.clone(), name.to_owned());
            let wiping = async move {
                tokio::time::sleep(ABSENCE).await;
                wipe(&claims.client, &claims.node, Some(&driver)).await;
                claims.drivers.wipes.lock().remove(&driver);
            };
            wipes.insert(name.to_owned(), self.spawn(wiping));
        }
    }

    /// Until it is dropped, or the kubelet ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
        let shutdown = self.shutdown.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        }))
    }

    /// Keeps a connection to an instance, and hears from it how its devices are.
    async fn follow(self: Arc<Self>, name: String, endpoint: PathBuf) {
        let mut pause = AGAIN.0;
        loop {
            match connect(&endpoint).await {
                Ok(Connection { channel, gone }) => {
                    pause = AGAIN.0;
                    self.drivers.note(&name, &endpoint, Some(channel.clone()));
                    self.weigh(&name);
                    tokio::select! {
                        () = gone.cancelled() => {}
                        () = health::listen(&self, &name, channel) => {}
                    }
                    tracing::info!(driver = name, "a DRA driver listens no longer");
                    self.drivers.note(&name, &endpoint, None);
                    self.forget_health(&name);
                }
                Err(error) => tracing::debug!(driver = name, %error, "a DRA driver is not reached"),
            }
            self.weigh(&name);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }
}

/// Takes away what drivers, or one, offer on a node; tries until it has succeeded.
pub(super) async fn wipe(client: &Client, node: &str, driver: Option<&str>) {
    let of_driver = driver.map(|driver| format!("spec.driver={driver},")).unwrap_or_default();
    let params = ListParams::fields(format!("{of_driver}spec.nodeName={node}"));
    let (mut pause, most) = (Duration::from_secs(1), Duration::from_secs(300));
    loop {
        let wiped = client.all::<ResourceSlice>().delete_collection(&DeleteOptions::default(), &params).await;
        match wiped {
            Err(error) if !error.is_not_found() => {
                tracing::debug!(driver, %error, "deleting ResourceSlices failed, retrying");
            }
            _ => return,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

/// Drivers, as they come by way of `plugins_registry`.
pub(crate) struct Registered(pub Arc<Claims>);

/// The first of a driver's services that this kubelet speaks.
fn chosen(versions: &[String]) -> Option<&'static str> {
    let ours = |version: &String| SERVICES.into_iter().find(|service| service == version);
    versions.iter().find_map(ours)
}

fn quoted(all: &[impl AsRef<str>]) -> String {
    let all: Vec<String> = all.iter().map(|one| format!("{:?}", one.as_ref())).collect();
    format!("[{}]", all.join(" "))
}

impl Handler for Registered {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    fn validate(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        if chosen(versions).is_some() {
            return Ok(());
        }
        let why = match versions {
            [] => "empty list of supported gRPC services (aka supported versions)".to_owned(),
            some => format!(
                "none of services supported by the plugin ({}) are supported by the kubelet ({})",
                quoted(some),
                quoted(&SERVICES)
            ),
        };
        let endpoint = endpoint.display();
        Err(format!(
            "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: {why}"
        ))
    }

    fn register<'a>(
        &'a self,
        name: &'a str,
        endpoint: &'a Path,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let Some(service) = chosen(versions) else { return Ok(()) };
            let mut instances = self.0.drivers.instances.lock();
            let all = instances.entry(name.to_owned()).or_default();
            if all.iter().any(|one| one.endpoint == endpoint) {
                let endpoint = endpoint.display();
                return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
            }
            tracing::info!(driver = name, service, "a DRA driver has registered");
            let following = self.0.clone().follow(name.to_owned(), endpoint.to_owned());
            all.push(Instance {
                endpoint: endpoint.to_owned(),
                service,
                channel: None,
                _following: self.0.spawn(following),
            });
            Ok(())
        })
    }

    fn deregister(&self, name: &str, endpoint: &Path) {
        {
            let mut instances = self.0.drivers.instances.lock();
            let Some(all) = instances.get_mut(name) else { return };
            all.retain(|one| one.endpoint != endpoint);
            if all.is_empty() {
                instances.remove(name);
            }
        }
        if !self.0.drivers.is_usable(name) {
            self.0.forget_health(name);
        }
        self.0.weigh(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use bytes::Bytes;
    use client::transport::{ResponseBody, Transport};
    use http_body_util::{BodyExt as _, Full};
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    /// An API server that notes what is asked of it.
    struct Noting(mpsc::UnboundedSender<String>);

    impl Transport for Noting {
        fn send(
            &self,
            request: http::Request<Bytes>,
        ) -> BoxFuture<'static, client::Result<http::Response<ResponseBody>>> {
            self.0.send(format!("{} {}", request.method(), request.uri())).unwrap();
            let body = Full::new(Bytes::from("{}")).map_err(|never| match never {}).boxed_unsync();
            Box::pin(std::future::ready(Ok(http::Response::new(body))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_absent_driver_offers_is_taken_away() {
        let (said, mut asked) = mpsc::unbounded_channel();
        let client = Client::new(Arc::new(Noting(said)), "test");
        let dir = tempfile::tempdir().unwrap();
        let config = Config { root_dir: dir.path().to_owned(), ..Config::new("n1", "127.0.0.1") };
        let claims = Claims::load(client, &config, Metrics::new().dra, CancellationToken::new());
        let drivers = Registered(claims.clone());
        let versions = ["v9.DRAPlugin".to_owned(), "v1beta1.DRAPlugin".to_owned()];
        let nowhere = dir.path().join("nowhere.sock");
        let began = tokio::time::Instant::now();
        drivers.register("oars", &nowhere, &versions).await.unwrap();
        let again = drivers.register("oars", &nowhere, &versions).await.unwrap_err();
        assert_eq!(
            again,
            format!("endpoint {} already registered for DRA driver plugin oars", nowhere.display())
        );
        let slices = "DELETE /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.driver%3Doars%2Cspec.nodeName%3Dn1";
        assert_eq!(asked.recv().await.unwrap(), slices);
        assert_eq!(began.elapsed().as_secs(), ABSENCE.as_secs());
        assert_eq!(
            drivers.validate("oars", &nowhere, &versions[..1]).unwrap_err(),
            format!(
                "invalid supported gRPC versions of DRA driver plugin oars at endpoint {}: none of services supported by the plugin ([\"v9.DRAPlugin\"]) are supported by the kubelet ([\"v1.DRAPlugin\" \"v1beta1.DRAPlugin\"])",
                nowhere.display()
            )
        );
        drivers.deregister("oars", &nowhere);
        let missing = claims.driver("oars").await.err();
        assert_eq!(missing.as_deref(), Some("DRA driver oars is not registered"));
    }
}
