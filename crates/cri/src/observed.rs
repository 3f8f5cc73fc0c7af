//! The services with somebody who is told of every call: its name, how long it took, whether it failed.

use crate::v1::*;
use crate::{EventStream, ImageService, Result, RuntimeService};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who is told.
pub type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// A service that tells.
pub struct Observed<S: ?Sized> {
    inner: Arc<S>,
    observer: Observer,
}

impl<S: ?Sized> Observed<S> {
    pub fn new(inner: Arc<S>, observer: Observer) -> Self {
        Observed { inner, observer }
    }

    async fn told<T>(&self, name: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let answer = call.await;
        (self.observer)(name, began.elapsed(), answer.is_err());
        answer
    }
}

macro_rules! observed_runtime {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl RuntimeService for Observed<dyn RuntimeService> {
            $(
                async fn $name(&self, request: $request) -> Result<$response> {
                    self.told(stringify!($name), self.inner.$name(request)).await
                }
            )*

            async fn get_container_events(&self, request: GetEventsRequest) -> Result<EventStream> {
                self.told("get_container_events", self.inner.get_container_events(request)).await
            }
        }
    };
}
runtime_methods!(observed_runtime);

macro_rules! observed_images {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl ImageService for Observed<dyn ImageService> {
            $(
                async fn $name(&self, request: $request) -> Result<$response> {
                    self.told(stringify!($name), self.inner.$name(request)).await
                }
            )*
        }
    };
}
image_methods!(observed_images);
