//! Serves the two services on a Unix socket, for crictl, critest and foreign kubelets.

use crate::client::MAX_MESSAGE;
use crate::v1::image_service_server::{ImageService as ImageRpc, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService as RuntimeRpc, RuntimeServiceServer};
use crate::v1::*;
use crate::{Error, ImageService, Result as CriResult, RuntimeService};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::util::MapRequestLayer;

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
        .layer(MapRequestLayer::new(with_deadline))
        .add_routes(routes(runtime, images))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}

fn routes(runtime: Arc<dyn RuntimeService>, images: Arc<dyn ImageService>) -> Routes {
    let runtime = RuntimeServiceServer::new(Runtime(runtime))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let images = ImageServiceServer::new(Images(images))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Routes::new(runtime).add_service(images)
}

/// Until when the caller waits.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

/// Notes the deadline when the request arrives, which is before tonic sets its own timer: that one would answer
/// `Canceled`, which callers take for their own doing.
fn with_deadline(mut request: http::Request<Body>) -> http::Request<Body> {
    let patience = request.headers().get("grpc-timeout").and_then(|value| patience(value.to_str().ok()?));
    if let Some(deadline) = patience.and_then(|patience| Instant::now().checked_add(patience)) {
        request.extensions_mut().insert(Deadline(deadline));
    }
    request
}

/// gRPC's form: at most eight digits and a unit.
fn patience(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Gives a call up when its caller does.
async fn in_time<T>(
    deadline: Option<Deadline>,
    call: impl Future<Output = CriResult<T>>,
) -> Result<Response<T>, Status> {
    let answer = match deadline {
        Some(Deadline(deadline)) => tokio::time::timeout_at(deadline, call)
            .await
            .unwrap_or_else(|_| Err(Error::deadline_exceeded("context deadline exceeded"))),
        None => call.await,
    };
    Ok(Response::new(answer?))
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
                    let deadline = request.extensions().get().copied();
                    in_time(deadline, self.0.$name(request.into_inner())).await
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
                    let deadline = request.extensions().get().copied();
                    in_time(deadline, self.0.$name(request.into_inner())).await
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use tower::{Layer as _, ServiceExt as _};

    /// Never answers.
    struct Never;

    macro_rules! never {
        ($($name:ident($request:ident) -> $response:ident;)*) => {
            #[async_trait::async_trait]
            impl ImageService for Never {
                $(
                    async fn $name(&self, _: $request) -> CriResult<$response> {
                        std::future::pending().await
                    }
                )*
            }
        };
    }
    image_methods!(never);

    /// critest's "public image should timeout if requested": whoever is first to see that the time is over says so alike.
    #[tokio::test]
    async fn a_deadline_that_passes_is_told_as_one() {
        let service = MapRequestLayer::new(with_deadline)
            .layer(routes(Arc::new(fake::Runtime::new()), Arc::new(Never)));
        let request = http::Request::post("/runtime.v1.ImageService/PullImage")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "1000u")
            .body(Body::new(String::from("\0\0\0\0\0")))
            .unwrap();
        let answer = service.oneshot(request).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("grpc-status"), (tonic::Code::DeadlineExceeded as i32).to_string());
        assert_eq!(header("grpc-message"), "context%20deadline%20exceeded");
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, read) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("00000004S", Some(Duration::from_secs(4))),
            ("998m", Some(Duration::from_millis(998))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("+1S", None),
            ("1s", None),
            ("100000000n", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(patience(text), read, "{text:?}");
        }
    }
}
