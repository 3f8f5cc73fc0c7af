//! The called end: a request becomes a 101 and, once the connection is the session's, a session. One door for exec,
//! attach and port-forward, whichever of the protocols the client speaks.

use hyper::{
    Request, Response,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::{
    Error, PortForward, RemoteCommand, Streams,
    negotiate::{
        Agreed, EXEC_SPDY, EXEC_WEBSOCKET, FORWARD_SPDY, FORWARD_WEBSOCKET, Refusal, TUNNELED_PORT_FORWARD,
        answer,
    },
    ws::{frame::Role, tunnel::Tunnel},
};

/// What was called.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// Exec or attach, with these streams.
    RemoteCommand(Streams),
    /// Port-forward; the ports are the query's, or what is wrong with them. Only plain WebSocket clients need them.
    PortForward { ports: Result<Vec<u16>, String> },
}

/// A session that runs.
#[derive(Debug)]
pub enum Session {
    RemoteCommand(RemoteCommand),
    PortForward(PortForward),
}

/// Answers a request to upgrade. Send the response (its status is 101); the future then gives the session. The request
/// must come from a hyper server connection that serves upgrades.
pub fn upgrade<B>(
    request: &mut Request<B>,
    endpoint: Endpoint,
) -> Result<(Response<()>, impl Future<Output = Result<Session, Error>> + Send + use<B>), Refusal> {
    let (websocket, spdy) = match &endpoint {
        Endpoint::RemoteCommand(_) => (EXEC_WEBSOCKET, EXEC_SPDY),
        Endpoint::PortForward { .. } => (FORWARD_WEBSOCKET, FORWARD_SPDY),
    };
    let (agreed, response) = answer(request.headers(), websocket, spdy)?;
    if let (Endpoint::PortForward { ports: Err(wrong) }, Agreed::WebSocket(protocol)) = (&endpoint, agreed)
        && protocol != TUNNELED_PORT_FORWARD
    {
        let status = http::StatusCode::BAD_REQUEST;
        return Err(Refusal { status, message: wrong.clone(), headers: Vec::new() });
    }
    let upgrade = hyper::upgrade::on(request);
    Ok((response, open(upgrade, agreed, endpoint)))
}

async fn open(upgrade: OnUpgrade, agreed: Agreed, endpoint: Endpoint) -> Result<Session, Error> {
    let io: TokioIo<Upgraded> = TokioIo::new(upgrade.await?);
    Ok(match (endpoint, agreed) {
        (Endpoint::RemoteCommand(streams), Agreed::WebSocket(_)) => {
            Session::RemoteCommand(RemoteCommand::websocket(io, agreed, streams))
        }
        (Endpoint::RemoteCommand(streams), Agreed::Spdy(_)) => {
            Session::RemoteCommand(RemoteCommand::spdy(io, agreed, streams).await?)
        }
        (Endpoint::PortForward { .. }, Agreed::WebSocket(TUNNELED_PORT_FORWARD)) => {
            Session::PortForward(PortForward::spdy(Tunnel::start(io, Role::Server)))
        }
        (Endpoint::PortForward { .. }, Agreed::Spdy(_)) => Session::PortForward(PortForward::spdy(io)),
        (Endpoint::PortForward { ports }, Agreed::WebSocket(_)) => {
            Session::PortForward(PortForward::websocket(io, agreed, &ports.unwrap_or_default()))
        }
    })
}
