//! A CRI runtime behind a Unix socket. Connects at the first call and again whenever the connection is lost.

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Error, EventStream, ImageService, Result, RuntimeService};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use tonic::transport::{Channel, Endpoint};

/// As upstream's `maxMsgSize`.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// Both services of the runtime that listens on a socket; cheap to clone.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl GrpcClient {
    /// `endpoint` is `unix:///path`, `unix:/path` or a bare path. Fails only on other schemes.
    pub fn new(endpoint: &str) -> Result<Self> {
        let path = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.contains("://") {
            return Err(Error::invalid_argument(format!(
                "endpoint {endpoint:?} is not the path of a Unix socket"
            )));
        }
        let path = PathBuf::from(path);
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_: http::Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        Ok(GrpcClient {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        })
    }
}

macro_rules! runtime_client {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl RuntimeService for GrpcClient {
            $(
                async fn $name(&self, request: $request) -> Result<$response> {
                    Ok(self.runtime.clone().$name(request).await?.into_inner())
                }
            )*

            async fn get_container_events(&self, request: GetEventsRequest) -> Result<EventStream> {
                let stream = self.runtime.clone().get_container_events(request).await?.into_inner();
                Ok(stream.map(|event| event.map_err(Error::from)).boxed())
            }
        }
    };
}
runtime_methods!(runtime_client);

macro_rules! image_client {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl ImageService for GrpcClient {
            $(
                async fn $name(&self, request: $request) -> Result<$response> {
                    Ok(self.images.clone().$name(request).await?.into_inner())
                }
            )*
        }
    };
}
image_methods!(image_client);
