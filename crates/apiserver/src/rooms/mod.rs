//! The exceptions: what is asked of some resources only, one file each.

pub mod reviews;
pub mod token;

use crate::body::Answer;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use std::sync::Arc;

/// What the rooms need beside the server.
#[derive(Debug, Clone, Default)]
pub struct Rooms {}

impl Server {
    /// Hands a request to the room of its resource.
    pub(crate) async fn room(self: &Arc<Self>, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let info = &call.info;
        let create = info.verb == "create";
        match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("authentication.k8s.io" | "authorization.k8s.io", _, "") if create => {
                reviews::create(self, resource, call).await
            }
            ("", "serviceaccounts", "token") if create => token::create(self, resource, call).await,
            _ => Err(Status::method_not_supported(&resource.group_resource(), &call.info.verb)),
        }
    }
}
