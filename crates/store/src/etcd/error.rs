//! What etcd's refusals mean. They are told by their texts: the codes are shared by too many of them.

use tonic::{Code, Status};

use crate::contract::Error;

/// Whether a member failed, so that another may do better.
pub(super) fn is_members(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Internal | Code::Cancelled
    )
}

/// Whether the request certainly had no effect: it was never proposed.
pub(super) fn is_without_effect(status: &Status) -> bool {
    let text = status.message();
    text.contains("no leader") || text.contains("not leader") || text.contains("tcp connect error") || {
        // The channel's own failure to connect, before anything was sent.
        let mut source = std::error::Error::source(status);
        let mut found = false;
        while let Some(error) = source {
            found |= error.downcast_ref::<tonic::ConnectError>().is_some();
            source = error.source();
        }
        found
    }
}

pub(super) fn is_compacted(status: &Status) -> bool {
    status.message().contains("required revision has been compacted")
}

pub(super) fn is_future(status: &Status) -> bool {
    status.message().contains("required revision is a future revision")
}

pub(super) fn is_lease_not_found(status: &Status) -> bool {
    status.message().contains("requested lease not found")
}

pub(super) fn is_no_space(status: &Status) -> bool {
    status.message().contains("database space exceeded")
}

pub(super) fn is_too_large(status: &Status) -> bool {
    let text = status.message();
    text.contains("request is too large") || text.contains("message larger than max")
}

/// The refusals that mean the same wherever they come from.
pub(super) fn general(status: &Status) -> Error {
    if is_no_space(status) {
        return Error::NoSpace;
    }
    Error::Unavailable { cause: format!("etcd: {}: {}", status.code(), status.message()).into() }
}
