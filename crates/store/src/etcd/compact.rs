//! Compaction as upstream's API servers do it, and together with them: whoever moves `compact_rev_key` from the
//! version it last saw compacts to the revision that the round before began with. So what is younger than a round
//! stays, and one server of many does the work.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;

use super::connect::{self, led};
use super::core::{Core, revision};
use super::generated::compare::{CompareResult, CompareTarget, TargetUnion};
use super::generated::{
    CompactionRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op, response_op,
};
use crate::model::Revision;

/// Where API servers agree on who compacts; outside of every prefix.
pub(super) const KEY: &str = "compact_rev_key";

/// What a server knows of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// The version of the key as last seen: the rounds' clock.
    version: i64,
    /// The revision when this server saw it.
    revision: Revision,
}

/// Compacts every `interval` until the store is closed.
pub(super) async fn run(core: Arc<Core>, interval: Duration) {
    let mut round = Round::default();
    loop {
        tokio::select! {
            () = core.closed.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match attempt(&core, &mut round).await {
            Ok(Some(compacted)) => tracing::debug!(%compacted, "etcd was compacted"),
            Ok(None) => {}
            Err(status) => tracing::error!(%status, "compacting etcd failed"),
        }
    }
}

/// One round; the revision that was compacted to, if this server did it.
async fn attempt(core: &Core, round: &mut Round) -> Result<Option<Revision>, Status> {
    let key = Bytes::from_static(KEY.as_bytes());
    let put = PutRequest { key: key.clone(), value: round.revision.to_string().into(), ..Default::default() };
    let get = RangeRequest { key: key.clone(), ..Default::default() };
    let txn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key,
            target_union: Some(TargetUnion::Version(round.version)),
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get)) }],
    };
    let answer = core
        .cluster
        .attempt(|channel| async move { connect::kv(channel).txn(led(txn)).await })
        .await?
        .into_inner();
    let now = revision(answer.header.map_or(0, |header| header.revision));
    if !answer.succeeded {
        let seen = answer.responses.into_iter().find_map(|op| match op.response {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        *round = Round { version: seen.map_or(0, |kv| kv.version), revision: now };
        return Ok(None);
    }
    let before = std::mem::replace(round, Round { version: round.version + 1, revision: now }).revision;
    // The first round only begins to count.
    if before == Revision(0) {
        return Ok(None);
    }
    compact(core, before).await?;
    Ok(Some(before))
}

/// Compacts to a revision.
pub(super) async fn compact(core: &Core, to: Revision) -> Result<(), Status> {
    let request = CompactionRequest { revision: to.0 as i64, physical: false };
    core.cluster
        .attempt(|channel| async move { connect::kv(channel).compact(led(request)).await })
        .await
        .map(drop)
}
