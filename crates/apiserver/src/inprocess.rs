//! The in-process transport: a client of this process enters behind authentication, as its own user, and passes every
//! later station. Its informers are authorized when they are opened, then read the store's own bytes.

use crate::authz::Attributes;
use crate::body;
use crate::cache::StoreSource;
use crate::server::Server;
use crate::user::User;
use bytes::Bytes;
use client::error::{Error, Result};
use client::recent::Recent;
use client::source::{Feed, Query, Source};
use client::transport::{ResponseBody, Transport};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use std::sync::Arc;

/// A door to the server for one user.
#[derive(Debug, Clone)]
pub struct InProcess {
    server: Arc<Server>,
    user: User,
}

impl InProcess {
    pub fn new(server: Arc<Server>, user: User) -> Self {
        InProcess { server, user }
    }
}

impl Transport for InProcess {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>>> {
        let (server, user) = (self.server.clone(), self.user.clone());
        Box::pin(async move { Ok(server.serve_as(user, request.map(body::full)).await) })
    }

    fn source(&self) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.clone()))
    }
}

impl Source for InProcess {
    fn recent(&self) -> Option<Arc<Recent>> {
        Some(self.server.registry.resources.recent.clone())
    }

    fn open(&self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>> {
        let this = self.clone();
        stream::once(async move { this.authorized(query).await }).flatten().boxed()
    }
}

impl InProcess {
    async fn authorized(self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>> {
        for verb in ["list", "watch"] {
            let of = &query.resource;
            let attributes = Attributes {
                namespace: query.namespace.as_deref().unwrap_or_default(),
                name: query.field_selector.strip_prefix("metadata.name=").unwrap_or_default(),
                label_selector: &query.label_selector,
                field_selector: &query.field_selector,
                ..Attributes::about(&self.user, verb, (&of.group, &of.version, &of.resource))
            };
            if let Err(status) = self.server.require(&attributes).await {
                return stream::once(std::future::ready(Err(Error::Api(Box::new(status))))).boxed();
            }
        }
        let source = StoreSource {
            store: self.server.registry.store.clone(),
            resources: self.server.registry.resources.clone(),
        };
        source.open(query)
    }
}
