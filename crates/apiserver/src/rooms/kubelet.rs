//! What goes on between a client and a kubelet: exec, attach and port-forward.

use super::backend::{Backend, node_backend_of, upgrade, upgrade_over, with_query};
use crate::body::{self, Answer};
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::errors::ResponseBody;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::value::Value;
use component::gates::FeatureGates;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use std::sync::Arc;
use streaming::negotiate::{V5, asks_for};
use streaming::{Endpoint, Outcome, Session, Streams};

/// Hands a connection through to the kubelet.
pub(super) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let pod = server.registry.get(resource, &call.info.namespace, &call.info.name)?.value;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let backend = || {
        node_backend_of(server, resource, &pod)?
            .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
    };
    let what = call.info.subresource.as_str();
    let counts = &server.rooms.stream_counts;
    if !matches!(what, "exec" | "attach") {
        let path = with_query(&format!("/portForward/{namespace}/{name}"), &ports(&call)?);
        let backend = backend()?;
        counts.handed(&server.metrics, "portforward");
        return upgrade(server, &backend, call, &path).await;
    }
    let path = format!("/{what}/{namespace}/{name}/{}", container(&pod, &call)?);
    let (backend, path) = (backend()?, with_query(&path, &streams(&call)));
    let reached = backend.connect().await;
    if let Err(failure) = &reached
        && server.rooms.translation.is_ours(&backend, &call)
    {
        let why = format!("error sending request: Post \"https://{}{path}\": {failure}", backend.address());
        let subresource = call.info.subresource.clone();
        let told = tell(call, why);
        counts.ended(&server.metrics, &subresource, if told.is_ok() { "500" } else { "400" });
        return told;
    }
    if server.rooms.translation != Translation::Theirs {
        counts.handed(&server.metrics, what);
    }
    match reached {
        Ok(io) => upgrade_over(io, server, &backend, call, &path).await,
        Err(failure) => Err(failure.dialing()),
    }
}

/// Who understands those clients of exec and attach that can close streams over WebSocket. Here kubelets are handed all
/// connections, whatever they understand; but upstream's API server has switched protocols with the client before it
/// turns to the kubelet, where it translates, and says in the stream of errors what went wrong then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Translation {
    /// The kubelet, if it says so; else the API server.
    #[default]
    AsDeclared,
    /// The API server: `ExtendWebSocketsToKubelet` is off.
    Ours,
    /// The kubelet: `TranslateStreamCloseWebsocketRequests` is off.
    Theirs,
}

impl Translation {
    /// As the gates say.
    pub fn of(gates: &FeatureGates) -> Self {
        if !gates.enabled("TranslateStreamCloseWebsocketRequests") {
            Translation::Theirs
        } else if gates.enabled(EXTENDED) {
            Translation::AsDeclared
        } else {
            Translation::Ours
        }
    }

    fn is_ours(self, kubelet: &Backend, call: &Call) -> bool {
        let declares = || kubelet.declared.iter().any(|feature| feature == EXTENDED);
        asks_for(&call.parts.headers, V5)
            && match self {
                Translation::AsDeclared => !declares(),
                Translation::Ours => true,
                Translation::Theirs => false,
            }
    }
}

const EXTENDED: &str = "ExtendWebSocketsToKubelet";

/// Switches protocols to say in the stream of errors why nothing comes of it.
fn tell(call: Call, why: String) -> Result<Answer, Status> {
    let wanted = |stream| call.info.query.flag(stream);
    let (stdin, stdout, stderr, tty) = (wanted("stdin"), wanted("stdout"), wanted("stderr"), wanted("tty"));
    let mut request = Request::from_parts(call.parts, ());
    let endpoint = Endpoint::RemoteCommand(Streams { stdin, stdout, stderr, tty });
    let refused = |refusal: streaming::negotiate::Refusal| Status::bad_request(refusal.message);
    let (response, session) = streaming::upgrade(&mut request, endpoint).map_err(refused)?;
    let held = crate::context::hold();
    tokio::spawn(async move {
        let _held = held;
        let told = match session.await {
            Ok(Session::RemoteCommand(command)) => command.finish(Outcome::Failed(why)).await,
            Ok(Session::PortForward(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a client was not told that the kubelet is not there");
        }
    });
    Ok(response.map(|()| body::full("")))
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

/// The kubelet's names of the streams that the API calls `stdin`, `stdout`, `stderr`; by name, as upstream has them.
fn streams(call: &Call) -> String {
    let query = &call.info.query;
    let mut out: Vec<_> = query.all("command").map(|c| ("command", c.to_owned())).collect();
    for (ours, theirs) in [("stderr", "error"), ("stdin", "input"), ("stdout", "output"), ("tty", "tty")] {
        if query.flag(ours) {
            out.push((theirs, "1".to_owned()));
        }
    }
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
