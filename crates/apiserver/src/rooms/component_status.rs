//! `componentstatuses`: how the parts of the control plane are, as they are asked for.

use crate::body::Answer;
use crate::handlers::form;
use crate::registry::Stored;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use http::StatusCode;
use schema::encode::Body;
use std::sync::Arc;

/// A part of the control plane, by upstream's name: well, or why not.
pub struct Component {
    pub name: &'static str,
    pub check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

fn status_of(component: &Component) -> Value {
    let condition = match (component.check)() {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": why, "error": why}),
    };
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": component.name, "creationTimestamp": null}, "conditions": [condition],
    })
}

fn stored(resource: &Served, component: &Component) -> Stored {
    let value = status_of(component);
    let body = Body::encode(&resource.table, resource.ty, &value);
    Stored { value, body, revision: 0, stale: false }
}

pub(super) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let components = &server.rooms.components;
    match call.info.verb.as_str() {
        "get" => {
            let name = call.info.name.as_str();
            let found = components.iter().find(|component| component.name == name);
            let mut group_resource = resource.group_resource();
            // Upstream names it so.
            group_resource.resource = "componentstatus".into();
            let found = found.ok_or_else(|| Status::not_found(&group_resource, name))?;
            Ok(server.object(resource, &stored(resource, found), StatusCode::OK, form(resource, &call)?))
        }
        "list" => {
            let all = components.iter().map(|component| stored(resource, component)).collect();
            server.list_of(resource, &call, all)
        }
        verb => Err(Status::method_not_supported(&resource.group_resource(), verb)),
    }
}
