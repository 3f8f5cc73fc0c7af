//! Not served yet.

use crate::body::Answer;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use std::sync::Arc;

pub(crate) async fn create(_server: &Server, resource: &Arc<Served>, _call: Call) -> Result<Answer, Status> {
    Err(Status::method_not_supported(&resource.group_resource(), "create"))
}
