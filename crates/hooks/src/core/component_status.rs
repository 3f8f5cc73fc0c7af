//! ComponentStatus: how columns show it.

use crate::Column;
use crate::plain::Plain;
use crate::templates::NAME;
use crate::tree::{column, list, name};
use apimachinery::value::Value;

pub(super) static COMPONENT_STATUS: Plain =
    Plain { columns: COLUMNS, cells: |status, _| cells(status), ..Plain::NEW };

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", 0, "Status of the component conditions"),
    column("Message", "string", 0, "Message of the component conditions"),
    column("Error", "string", 0, "Error of the component conditions"),
];

fn cells(status: &Value) -> Vec<Value> {
    let healthy = list(status, &["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
    let word = match healthy {
        None => "Unknown",
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
    };
    let text = |key: &str| healthy.and_then(|c| c[key].as_str()).unwrap_or_default().into();
    vec![name(status), word.into(), text("message"), text("error")]
}
