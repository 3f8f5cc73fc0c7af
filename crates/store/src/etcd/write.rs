//! Writes: one transaction that compares and writes, tried until its outcome is known.
//!
//! An attempt without an answer may have been carried out, or may still be. It is repeated with the same comparison:
//! of the two at most one succeeds, and when the comparison fails because our own bytes are there already, the first
//! has. When others have written over them since, the history tells (`settle`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Status;

use super::connect::{self, led};
use super::core::{Core, PATIENCE, revision};
use super::error;
use super::feed::SILENT;
use super::generated::compare::{CompareResult, CompareTarget, TargetUnion};
use super::generated::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    request_op, response_op,
};
use super::lease::Leases;
use crate::contract::{Error, Result};
use crate::model::{Entry, Event, EventKind, Expect, Key, LeaseId, Life, Op, Pin, Revision, Write};

const PAUSE: Duration = Duration::from_millis(50);
/// What etcd takes by default, and what upstream's API server lets through.
const LIMIT: usize = 3 << 19;

/// A write with its bytes at rest.
struct Prepared<'a> {
    write: &'a Write,
    key: Bytes,
    kept: Bytes,
    lease: Option<LeaseId>,
}

/// What a transaction came to.
enum Outcome {
    At(Revision),
    /// The comparison failed; what is at the keys instead, at which revision.
    Refused(Vec<Option<KeyValue>>, Revision),
}

/// Carries out `writes` at one revision, or none of them; only while the pin holds.
pub(super) async fn commit(
    core: &Core,
    leases: &Leases,
    writes: &[Write],
    pin: Option<&Pin>,
) -> Result<Vec<Arc<Event>>> {
    if core.closed.is_cancelled() {
        return Err(Error::Closed);
    }
    let mut prepared = Vec::with_capacity(writes.len());
    for write in writes {
        prepared.push(prepare(core, leases, write).await?);
    }
    let txn = transaction(core, &prepared, pin);
    let deadline = Instant::now() + PATIENCE;
    let begun = core.view.visible();
    let mut uncertain = false;
    loop {
        match attempt(core, txn.clone()).await {
            Ok(answer) => match outcome(answer) {
                Outcome::At(revision) => return Ok(shown(core, &prepared, revision).await),
                Outcome::Refused(current, _) if !uncertain => {
                    return Err(conflict(core, &prepared, pin, current));
                }
                Outcome::Refused(current, at) => {
                    let settled = match ours(&prepared, &current) {
                        Some(revision) => Settled::At(revision),
                        None => settle(core, &prepared, begun, at).await,
                    };
                    return match settled {
                        Settled::At(revision) => Ok(shown(core, &prepared, revision).await),
                        Settled::Never => Err(conflict(core, &prepared, pin, current)),
                        Settled::Unknown => Err(Error::Uncertain {
                            cause: "etcd did not answer at first, and the keys have changed since".into(),
                        }),
                    };
                }
            },
            Err(status) if error::is_members(&status) && !core.closed.is_cancelled() => {
                uncertain |= !error::is_without_effect(&status);
                if Instant::now() >= deadline {
                    return Err(if uncertain {
                        Error::Uncertain { cause: format!("etcd: {}", status.message()).into() }
                    } else {
                        error::general(&status)
                    });
                }
                tracing::debug!(%status, "a write is tried again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(refusal(core, leases, &prepared, &status)),
        }
    }
}

async fn prepare<'a>(core: &Core, leases: &Leases, write: &'a Write) -> Result<Prepared<'a>> {
    let key = core.keys.key(&write.key);
    let Op::Put { value, life } = &write.op else {
        return Ok(Prepared { write, key, kept: Bytes::new(), lease: None });
    };
    let lease = match life {
        Life::Forever => None,
        Life::Lease(lease) => Some(*lease),
        Life::Ttl(ttl) => Some(leases.lasting(core, *ttl).await?),
    };
    let saved = core.transform.save(&write.key, value);
    let kept = saved.map_err(|source| Error::Transform { key: write.key.clone(), source })?;
    Ok(Prepared { write, key, kept, lease })
}

/// Of a refused one the answer says what is at the keys, and at the pinned one after them.
fn transaction(core: &Core, prepared: &[Prepared<'_>], pin: Option<&Pin>) -> TxnRequest {
    let compare = |prepared: &Prepared<'_>| {
        let (result, target_union, target) = match (prepared.write.expect, &prepared.write.op) {
            (Expect::Any, Op::Put { .. }) => return None,
            (Expect::Any, Op::Delete) => {
                (CompareResult::Greater, TargetUnion::ModRevision(0), CompareTarget::Mod)
            }
            (Expect::Absent, _) => (CompareResult::Equal, TargetUnion::ModRevision(0), CompareTarget::Mod),
            (Expect::Revision(at), _) => {
                (CompareResult::Equal, TargetUnion::ModRevision(at.0 as i64), CompareTarget::Mod)
            }
        };
        let (result, target) = (result.into(), target.into());
        Some(Compare { result, target, key: prepared.key.clone(), target_union: Some(target_union) })
    };
    let pinned = pin.map(|pin| Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: core.keys.key(&pin.key),
        target_union: Some(TargetUnion::ModRevision(pin.revision.0 as i64)),
    });
    let operation = |prepared: &Prepared<'_>| {
        let key = prepared.key.clone();
        let request = match &prepared.write.op {
            Op::Put { .. } => request_op::Request::RequestPut(PutRequest {
                key,
                value: prepared.kept.clone(),
                lease: prepared.lease.map_or(0, |lease| lease.0 as i64),
                prev_kv: false,
            }),
            Op::Delete => {
                request_op::Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
            }
        };
        RequestOp { request: Some(request) }
    };
    let look = |key| RequestOp {
        request: Some(request_op::Request::RequestRange(RangeRequest { key, ..Default::default() })),
    };
    let keys = prepared.iter().map(|prepared| prepared.key.clone());
    TxnRequest {
        failure: keys.chain(pinned.iter().map(|compare| compare.key.clone())).map(look).collect(),
        compare: prepared.iter().filter_map(compare).chain(pinned).collect(),
        success: prepared.iter().map(operation).collect(),
    }
}

pub(super) async fn attempt(core: &Core, txn: TxnRequest) -> Result<TxnResponse, Status> {
    core.cluster
        .attempt(|channel| async move { connect::kv(channel).txn(led(txn)).await })
        .await
        .map(tonic::Response::into_inner)
}

fn outcome(answer: TxnResponse) -> Outcome {
    if answer.succeeded {
        return Outcome::At(revision(answer.header.map_or(0, |header| header.revision)));
    }
    let current = answer.responses.into_iter().map(|op| match op.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    let at = revision(answer.header.map_or(0, |header| header.revision));
    Outcome::Refused(current.collect(), at)
}

/// What became of an attempt that was not answered.
enum Settled {
    At(Revision),
    /// It was not carried out, and cannot be any more.
    Never,
    Unknown,
}

/// Finds out whether an attempt was carried out whose keys others have written over, from the history after `begun`, in
/// which it would lie, and from what etcd kept at its revision. `at` is a revision at which it was repeated in vain.
async fn settle(core: &Core, prepared: &[Prepared<'_>], begun: Revision, at: Revision) -> Settled {
    // A key's version has one successor: whoever compared with the version wrote that one, or nothing ever.
    let pinned = prepared.iter().find_map(|prepared| match (prepared.write.expect, &prepared.write.op) {
        (Expect::Revision(version), Op::Put { .. }) => Some((prepared, Some(version))),
        (Expect::Absent, Op::Put { .. }) => Some((prepared, None)),
        _ => None,
    });
    let Some((first, version)) = pinned else { return Settled::Unknown };
    let mut reached = false;
    for _ in 0..PATIENCE.as_secs() {
        match core.reach(at, SILENT).await {
            Ok(true) => {
                reached = true;
                break;
            }
            Ok(false) => core.restart.notify_one(),
            Err(_) => break,
        }
    }
    if !reached {
        return Settled::Unknown;
    }
    let key = &first.write.key;
    let Ok(events) = core.view.events_of(&key.prefix, &key.name, begun) else { return Settled::Unknown };
    let follows = |event: &&Arc<Event>| event.previous.as_ref().map(|entry| entry.mod_revision) == version;
    for event in events.iter().filter(follows) {
        match kept_at(core, first, event.revision).await {
            Ok(true) => return Settled::At(event.revision),
            Ok(false) => {}
            Err(_) => return Settled::Unknown,
        }
    }
    // A key that was absent may be so again, and the attempt may still be under way; a version never comes back. That
    // its successor is not ours has to have been seen: it may be older than the history that was looked at.
    match version {
        Some(_) if events.iter().any(|event| follows(&event)) => Settled::Never,
        _ => Settled::Unknown,
    }
}

/// Whether etcd kept this write's bytes at a revision.
async fn kept_at(core: &Core, prepared: &Prepared<'_>, at: Revision) -> Result<bool, Status> {
    let key = prepared.key.clone();
    let request = RangeRequest { key, limit: 1, revision: at.0 as i64, ..Default::default() };
    let found = core.range(request).await?.kvs.into_iter().next();
    Ok(found.is_some_and(|kv| revision(kv.mod_revision) == at && kv.value == prepared.kept))
}

/// The revision at which all keys are as this write leaves them, if they are.
fn ours(prepared: &[Prepared<'_>], current: &[Option<KeyValue>]) -> Option<Revision> {
    let mut at = None;
    for (prepared, kv) in prepared.iter().zip(current) {
        match (&prepared.write.op, kv) {
            (Op::Put { .. }, Some(kv)) if kv.value == prepared.kept => {
                at = at.max(Some(revision(kv.mod_revision)));
            }
            // Who deleted a key cannot be told.
            _ => return None,
        }
    }
    at
}

fn conflict(
    core: &Core,
    prepared: &[Prepared<'_>],
    pin: Option<&Pin>,
    mut current: Vec<Option<KeyValue>>,
) -> Error {
    let conflict = |key: Key, kv: Option<KeyValue>| {
        let known = core.view.get(&key.prefix, &key.name);
        Error::Conflict { current: kv.map(|kv| core.entry(&key, kv, known.as_ref())), key }
    };
    if let Some(pin) = pin {
        let kv = current.pop().flatten();
        if kv.as_ref().map(|kv| revision(kv.mod_revision)) != Some(pin.revision) {
            return conflict(pin.key.clone(), kv);
        }
    }
    let mut found = prepared.iter().zip(current);
    let failed = found.find(|(prepared, kv)| {
        let now = kv.as_ref().map(|kv| revision(kv.mod_revision));
        match (prepared.write.expect, &prepared.write.op) {
            (Expect::Any, Op::Put { .. }) => false,
            (Expect::Any, Op::Delete) => now.is_none(),
            (Expect::Absent, _) => now.is_some(),
            (Expect::Revision(at), _) => now != Some(at),
        }
    });
    let Some((prepared, kv)) = failed else {
        return Error::Uncertain { cause: "etcd refused a comparison that holds".into() };
    };
    conflict(prepared.write.key.clone(), kv)
}

fn refusal(core: &Core, leases: &Leases, prepared: &[Prepared<'_>], status: &Status) -> Error {
    let first = prepared.first().map(|prepared| prepared.write.key.clone());
    if error::is_lease_not_found(status)
        && let Some(lease) = prepared.iter().find_map(|prepared| prepared.lease)
    {
        leases.forget(lease);
        return Error::LeaseNotFound(lease);
    }
    if error::is_too_large(status)
        && let Some(key) = first
    {
        let size = prepared.iter().map(|prepared| prepared.kept.len()).sum();
        return Error::TooLarge { key, size, limit: LIMIT };
    }
    if error::is_no_space(status) {
        core.full.store(true, Ordering::Release);
    }
    error::general(status)
}

/// The events as watchers see them. A write is acknowledged also when the watch does not show it in time.
async fn shown(core: &Core, prepared: &[Prepared<'_>], at: Revision) -> Vec<Arc<Event>> {
    core.full.store(false, Ordering::Release);
    for _ in 0..2 {
        if let Ok(Ok(())) = tokio::time::timeout(SILENT, core.view.wait_for(at)).await {
            break;
        }
        core.restart.notify_one();
    }
    prepared.iter().map(|prepared| event(core, prepared, at)).collect()
}

fn event(core: &Core, prepared: &Prepared<'_>, at: Revision) -> Arc<Event> {
    let key: &Key = &prepared.write.key;
    if let Some(event) = core.view.event_at(&key.prefix, &key.name, at) {
        return event;
    }
    let previous = core.view.get(&key.prefix, &key.name).filter(|entry| entry.mod_revision < at);
    let (kind, value) = match &prepared.write.op {
        Op::Put { value, .. } => (EventKind::Put, value.clone()),
        Op::Delete => (EventKind::Delete, previous.as_ref().map_or_else(Bytes::new, |p| p.value.clone())),
    };
    let entry = Arc::new(Entry {
        name: key.name.clone(),
        value,
        create_revision: previous.as_ref().map_or(at, |previous| previous.create_revision),
        mod_revision: at,
        version: previous.as_ref().map_or(1, |previous| previous.version + 1),
        lease: prepared.lease,
        expires_ms: None,
        stale: false,
        projection: Default::default(),
    });
    Arc::new(Event { revision: at, kind, prefix: key.prefix.clone(), entry, previous })
}
