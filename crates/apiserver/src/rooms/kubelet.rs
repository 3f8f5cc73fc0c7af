//! What goes on between a client and a kubelet: exec, attach and port-forward.

use super::backend::{node_backend_of, upgrade, with_query};
use crate::body::Answer;
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::errors::ResponseBody;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::value::Value;
use http::Response;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use std::sync::Arc;

/// Hands a connection through to the kubelet.
pub(super) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let pod = server.registry.get(resource, &call.info.namespace, &call.info.name)?.value;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let (what, query) = match call.info.subresource.as_str() {
        "exec" => ("exec", streams(&call)),
        "attach" => ("attach", streams(&call)),
        _ => ("portForward", ports(&call)?),
    };
    let mut path = format!("/{what}/{namespace}/{name}");
    if what != "portForward" {
        path = format!("{path}/{}", container(&pod, &call)?);
    }
    let backend = node_backend_of(server, resource, &pod)?
        .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    upgrade(server, &backend, call, &with_query(&path, &query)).await
}

/// What a kubelet says in place of an answer, as clients know it.
pub(super) async fn refusal(answer: Response<Incoming>, resource: &GroupResource, name: &str) -> Status {
    /// More is not read of it.
    const LONGEST: usize = 50_000;
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), LONGEST).collect().await {
        Ok(text) => String::from_utf8_lossy(&text.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        500 => Status::internal_error(text),
        400 => Status::bad_request(text),
        _ => Status::generic_server_response(code, "", resource, name, &text, 0, ResponseBody::Expected),
    }
}

/// The kubelet's names of the streams that the API calls `stdin`, `stdout`, `stderr`.
fn streams(call: &Call) -> String {
    let mut out = Vec::new();
    let query = &call.info.query;
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            out.push((theirs, "1".to_owned()));
        }
    }
    out.extend(query.all("command").map(|c| ("command", c.to_owned())));
    client::client::uri("", &out).trim_start_matches('?').to_owned()
}

/// The kubelet's name of the ports that the API calls `ports`. Only WebSocket clients without the tunnel name them here.
fn ports(call: &Call) -> Result<String, Status> {
    let values = call.info.query.all("ports");
    let ports: Vec<&str> = values.flat_map(|list| list.split(',')).filter(|port| !port.is_empty()).collect();
    if let Some(wrong) = ports.iter().find(|port| port.parse::<i32>().is_err()) {
        let text = format!("strconv.ParseInt: parsing {wrong:?}: invalid syntax");
        return Err(Status::bad_request(text));
    }
    Ok(if ports.is_empty() { String::new() } else { format!("port={}", ports.join(",")) })
}

/// The container asked for, or the pod's only one.
pub(super) fn container(pod: &Value, call: &Call) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = object::name(pod);
    match call.info.query.get("container").filter(|c| !c.is_empty()) {
        Some(wanted)
            if containers.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) =>
        {
            Ok(wanted.to_owned())
        }
        Some(wanted) => {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
        }
        None => match containers[..] {
            [only] => Ok(only.to_owned()),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    containers.join(" ")
                );
                if !init.is_empty() {
                    text = format!("{text} or one of the init containers: [{}]", init.join(" "));
                }
                Err(Status::bad_request(text))
            }
        },
    }
}
