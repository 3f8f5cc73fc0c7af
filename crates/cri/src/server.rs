//! Serves the two services on a Unix socket, for crictl, critest and foreign kubelets.

use crate::client::MAX_MESSAGE;
use crate::v1::image_service_server::{ImageService as ImageRpc, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService as RuntimeRpc, RuntimeServiceServer};
use crate::v1::*;
use crate::{ImageService, RuntimeService};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::future::Future;
use std::sync::Arc;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

/// Items per message of a streamed list.
const CHUNK: usize = 256;

/// Answers calls on `listener` until `shutdown` resolves; calls in flight are completed first.
pub async fn serve(
    listener: UnixListener,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tonic::transport::Server::builder()
        .add_service(
            RuntimeServiceServer::new(Runtime(runtime))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ImageServiceServer::new(Images(images))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}

struct Runtime(Arc<dyn RuntimeService>);
struct Images(Arc<dyn ImageService>);

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

/// A list as a stream of messages with at most `CHUNK` items each.
fn chunks<I, T>(items: Vec<I>, message: fn(Vec<I>) -> T) -> Response<Streamed<T>>
where
    I: Send + 'static,
    T: Send + 'static,
{
    Response::new(stream::iter(items).chunks(CHUNK).map(move |chunk| Ok(message(chunk))).boxed())
}

macro_rules! runtime_server {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl RuntimeRpc for Runtime {
            $(
                async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    Ok(Response::new(self.0.$name(request.into_inner()).await?))
                }
            )*

            type GetContainerEventsStream = Streamed<ContainerEventResponse>;
            async fn get_container_events(
                &self,
                request: Request<GetEventsRequest>,
            ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
                let events = self.0.get_container_events(request.into_inner()).await?;
                Ok(Response::new(events.map(|event| event.map_err(Status::from)).boxed()))
            }

            type StreamPodSandboxesStream = Streamed<StreamPodSandboxesResponse>;
            async fn stream_pod_sandboxes(
                &self,
                request: Request<StreamPodSandboxesRequest>,
            ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_pod_sandbox(ListPodSandboxRequest { filter }).await?;
                Ok(chunks(list.items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
            }

            type StreamContainersStream = Streamed<StreamContainersResponse>;
            async fn stream_containers(
                &self,
                request: Request<StreamContainersRequest>,
            ) -> Result<Response<Self::StreamContainersStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_containers(ListContainersRequest { filter }).await?;
                Ok(chunks(list.containers, |containers| StreamContainersResponse { containers }))
            }

            type StreamContainerStatsStream = Streamed<StreamContainerStatsResponse>;
            async fn stream_container_stats(
                &self,
                request: Request<StreamContainerStatsRequest>,
            ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_container_stats(ListContainerStatsRequest { filter }).await?;
                Ok(chunks(list.stats, |container_stats| StreamContainerStatsResponse { container_stats }))
            }

            type StreamPodSandboxStatsStream = Streamed<StreamPodSandboxStatsResponse>;
            async fn stream_pod_sandbox_stats(
                &self,
                request: Request<StreamPodSandboxStatsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter }).await?;
                Ok(chunks(list.stats, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            }

            type StreamPodSandboxMetricsStream = Streamed<StreamPodSandboxMetricsResponse>;
            async fn stream_pod_sandbox_metrics(
                &self,
                _: Request<StreamPodSandboxMetricsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
                let list = self.0.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await?;
                Ok(chunks(list.pod_metrics, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse {
                    pod_sandbox_metrics,
                }))
            }
        }
    };
}
runtime_methods!(runtime_server);

macro_rules! image_server {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl ImageRpc for Images {
            $(
                async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    Ok(Response::new(self.0.$name(request.into_inner()).await?))
                }
            )*

            type StreamImagesStream = Streamed<StreamImagesResponse>;
            async fn stream_images(
                &self,
                request: Request<StreamImagesRequest>,
            ) -> Result<Response<Self::StreamImagesStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_images(ListImagesRequest { filter }).await?;
                Ok(chunks(list.images, |images| StreamImagesResponse { images }))
            }
        }
    };
}
image_methods!(image_server);
