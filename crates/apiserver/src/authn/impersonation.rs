//! Impersonation: acting as another user, where authorized.

use crate::server::{Call, Server};
use crate::user::User;
use apimachinery::status::Status;

/// The user that the request's `Impersonate-*` headers ask for.
pub async fn requested(_server: &Server, call: &Call) -> Result<Option<User>, Status> {
    if call.parts.headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Err(Status::bad_request("impersonation is not served"));
    }
    Ok(None)
}
