//! The two services of CRI v1 as object-safe traits; requests and responses are the plain messages of `v1`.
//! A method that an implementation leaves out answers `Unimplemented`, as a gRPC server would.

use crate::v1::*;
use crate::{Error, Result};
use futures::stream::BoxStream;

/// Container events as they happen; ends when the runtime goes away.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse>>;

macro_rules! runtime_trait {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        /// Sandboxes and containers: `runtime.v1.RuntimeService`.
        #[async_trait::async_trait]
        pub trait RuntimeService: Send + Sync + 'static {
            $(
                #[doc = concat!("`", stringify!($request), "` to `", stringify!($response), "`.")]
                async fn $name(&self, request: $request) -> Result<$response> {
                    let _ = request;
                    Err(Error::unimplemented(concat!("unknown method ", stringify!($name))))
                }
            )*

            /// `GetContainerEvents`: everything that happens from now on.
            async fn get_container_events(&self, request: GetEventsRequest) -> Result<EventStream> {
                let _ = request;
                Err(Error::unimplemented("unknown method get_container_events"))
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
                    Err(Error::unimplemented(concat!("unknown method ", stringify!($name))))
                }
            )*
        }
    };
}
image_methods!(image_trait);
