//! The two services of CRI v1 as object-safe traits; requests and responses are the plain messages of `v1`.
//! A method that an implementation leaves out answers `Unimplemented`, as a gRPC server would.

use crate::v1::*;
use crate::{Error, Result};
use futures::stream::BoxStream;

/// Container events as they happen; ends when the runtime goes away.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse>>;

/// What a gRPC server says that has no such method.
fn unknown(request: &str, service: &str) -> Error {
    let method = request.trim_end_matches("Request");
    Error::unimplemented(format!("unknown method {method} for service runtime.v1.{service}"))
}

macro_rules! runtime_trait {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        /// Sandboxes and containers: `runtime.v1.RuntimeService`.
        #[async_trait::async_trait]
        pub trait RuntimeService: Send + Sync + 'static {
            $(
                #[doc = concat!("`", stringify!($request), "` to `", stringify!($response), "`.")]
                async fn $name(&self, request: $request) -> Result<$response> {
                    let _ = request;
                    Err(unknown(stringify!($request), "RuntimeService"))
                }
            )*

            /// `GetContainerEvents`: everything that happens from now on.
            async fn get_container_events(&self, request: GetEventsRequest) -> Result<EventStream> {
                let _ = request;
                Err(unknown("GetContainerEventsRequest", "RuntimeService"))
            }
        }
    };
}
runtime_methods!(runtime_trait);

macro_rules! image_trait {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        /// Images: `runtime.v1.ImageService`.
        #[async_trait::async_trait]
        pub trait ImageService: Send + Sync + 'static {
            $(
                #[doc = concat!("`", stringify!($request), "` to `", stringify!($response), "`.")]
                async fn $name(&self, request: $request) -> Result<$response> {
                    let _ = request;
                    Err(unknown(stringify!($request), "ImageService"))
                }
            )*
        }
    };
}
image_methods!(image_trait);
