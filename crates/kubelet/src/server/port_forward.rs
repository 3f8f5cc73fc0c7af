//! `/portForward/{namespace}/{pod}`, and passing an upgrade on to a runtime's own streaming server.

use super::Inner;
use super::answer::{Response, full, query, text};
use crate::runtime_pod::{ExitedCache, observe};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::Arc;
use streaming::proxy::{Proxied, proxy_upgrade};
use streaming::{Endpoint, Session};
use tokio::net::TcpStream;

pub(super) async fn answer(
    inner: &Arc<Inner>,
    namespace: &str,
    pod: &str,
    mut request: Request<Incoming>,
) -> Response {
    let Some(mailbox) = inner.pods.named(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}\n"));
    };
    let uid = mailbox.letter().pod.metadata.uid.clone();
    let runtime = match observe(&*inner.context.runtime, &uid, &mut ExitedCache::new()).await {
        Ok(runtime) => runtime,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let Some(sandbox) = runtime.sandboxes.first().filter(|s| s.ready) else {
        return text(StatusCode::NOT_FOUND, format!("failed to find sandbox for pod {pod:?}"));
    };
    let id = sandbox.id.clone();
    let pairs = query(request.uri().query());
    let ports =
        streaming::ports(pairs.iter().filter(|(key, _)| key == "port").map(|(_, port)| port.as_str()));
    inner.count_web_socket(&request, "portforward");
    let Some(direct) = inner.streams.clone() else {
        let wanted = cri::v1::PortForwardRequest {
            pod_sandbox_id: id,
            port: ports.into_iter().flatten().map(i32::from).collect(),
        };
        return match inner.context.runtime.port_forward(wanted).await {
            Ok(answer) => pass_on(request, &answer.url).await,
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
    };
    let (response, session) = match streaming::upgrade(&mut request, Endpoint::PortForward { ports }) {
        Ok(agreed) => agreed,
        Err(refusal) => {
            let mut response = text(refusal.status, refusal.message);
            response.headers_mut().extend(refusal.headers);
            return response;
        }
    };
    tokio::spawn(async move {
        let Ok(Session::PortForward(forwards)) = session.await else { return };
        let connect = |port| {
            let (direct, id) = (direct.clone(), id.clone());
            async move {
                direct.port_forward_stream(&id, port).await.map_err(|error| {
                    format!("an error occurred forwarding {port}: error forwarding port {port} to pod {id}, uid : {error}")
                })
            }
        };
        forwards.join(connect).await;
    });
    response.map(|()| super::empty())
}

/// Passes an upgrade on to the URL that a runtime gave.
pub(super) async fn pass_on(mut request: Request<Incoming>, url: &str) -> Response {
    let bad = |message: String| text(StatusCode::BAD_GATEWAY, message);
    let Ok(uri) = url.parse::<http::Uri>() else { return bad(format!("the runtime's URL {url:?} is none")) };
    let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("http")) else {
        return bad(format!("the runtime's URL {url:?} is not plain HTTP"));
    };
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80));
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return bad(format!("error dialing backend: {error}")),
    };
    let head = Request::builder()
        .method(request.method().clone())
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(http::header::HOST, authority.as_str())
        .body(());
    let head = match head {
        Ok(head) => head,
        Err(error) => return bad(error.to_string()),
    };
    match proxy_upgrade(&mut request, head, stream).await {
        Ok(Proxied::Switched(response, tunnel)) => {
            tokio::spawn(async move {
                if let Err(error) = tunnel.run().await {
                    tracing::debug!(%error, "a tunnel to the runtime broke");
                }
            });
            response.map(|()| super::empty())
        }
        Ok(Proxied::Refused(response)) => {
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            Response::from_parts(parts, full(bytes))
        }
        Ok(Proxied::Redirected) => bad("the runtime answered with a redirect".into()),
        Err(error) => bad(format!("error dialing backend: {error}")),
    }
}
