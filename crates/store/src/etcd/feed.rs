//! Feeds the view by one watch over all our keys: one order, one revision for everything.
//!
//! The watch resumes after the last revision that the view has, at another member if need be. When that revision has
//! been compacted meanwhile, the state is loaded anew, and every bucket loses its history.
//!
//! Where a member's progress reports are not to be trusted (before 3.4.31 and 3.5.13 they ran ahead of events) the
//! whole key space is watched, so that every revision shows itself by an event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Progress;
use super::connect::{Member, led};
use super::core::{Core, now_ms, revision};
use super::generated::event::EventType;
use super::generated::watch_request::RequestUnion;
use super::generated::{
    self as pb, StatusRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use super::keys::end_of;
use crate::model::{Entry, Event, EventKind, Key, Revision};

/// How long a member may take to open the watch.
const OPEN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A watch that has said nothing for so long is given up when somebody knows of a change that it does not show.
pub(super) const SILENT: Duration = Duration::from_secs(1);

/// The newest entries of keys that a response changed and that are not in the view yet.
type Changes = HashMap<Key, Option<Arc<Entry>>>;

/// The task that alone changes the view.
pub(super) struct Feed {
    core: Arc<Core>,
    /// The bucket's own `Arc` of its prefix, which its events share.
    prefixes: HashSet<Arc<str>>,
    seen: Revision,
    member: usize,
}

/// Why a watch ended.
enum End {
    Compacted,
    Broken(String),
}

impl Feed {
    pub(super) fn new(core: Arc<Core>, prefixes: HashSet<Arc<str>>, seen: Revision) -> Self {
        Self { core, prefixes, seen, member: 0 }
    }

    /// Goes to another member: to the one that answers requests, if that is another, else to the next.
    fn leave(&mut self) {
        let current = self.core.cluster.current();
        let same = current % self.core.cluster.len() == self.member % self.core.cluster.len();
        self.member = if same { self.member + 1 } else { current };
    }

    /// Runs until the store is closed.
    pub(super) async fn run(mut self) {
        let (mut pause, mut tried) = (PAUSE, 0);
        loop {
            let before = self.seen;
            let core = self.core.clone();
            let end = tokio::select! {
                // Closing first: nothing is published after it was asked for.
                biased;
                () = core.closed.cancelled() => return core.view.close(),
                end = self.follow() => end,
            };
            self.core.down.lock().get_or_insert_with(Instant::now);
            match end {
                End::Compacted => {
                    if let Err(status) = self.reload().await {
                        tracing::warn!(%status, "the state cannot be loaded");
                    }
                }
                End::Broken(cause) => {
                    let url = &self.core.cluster.member(self.member).url;
                    tracing::warn!(url, cause, "the watch of etcd broke; another member is tried");
                    self.leave();
                }
            }
            (pause, tried) = match self.seen > before {
                true => (PAUSE, 0),
                false => ((pause * 2).min(LONGEST_PAUSE), tried + 1),
            };
            // The first round through the members is quick.
            if tried >= self.core.cluster.len() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.core.closed.cancelled() => return self.core.view.close(),
                }
            }
        }
    }

    async fn follow(&mut self) -> End {
        let core = self.core.clone();
        let member = core.cluster.member(self.member);
        let trusted = match progress_is_right(member).await {
            Ok(right) => right && core.progress_counts == Progress::ByVersion,
            Err(cause) => return End::Broken(cause),
        };
        core.trusted.store(trusted, Ordering::Release);
        let (requests, queue) = mpsc::channel(16);
        let (key, range_end) = match trusted {
            true => {
                let key = Bytes::copy_from_slice(core.keys.root().as_bytes());
                (key.clone(), end_of(&key))
            }
            false => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.seen.0 as i64 + 1,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        if requests.send(create).await.is_err() {
            return End::Broken("its requests end".into());
        }
        let mut client = member.watch();
        let opening = client.watch(led(ReceiverStream::new(queue)));
        let mut stream = match tokio::time::timeout(OPEN, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return End::Broken(status.to_string()),
            Err(_) => return End::Broken("it does not open".into()),
        };
        let mut partial: Vec<pb::Event> = Vec::new();
        let mut heard = Instant::now();
        loop {
            let response = tokio::select! {
                () = core.restart.notified() => {
                    // It may be the watch before this one that was suspected: this one gets the same time.
                    if heard.elapsed() >= SILENT {
                        return End::Broken("it is silent".into());
                    }
                    continue;
                }
                response = stream.message() => response,
                () = core.progress.notified() => {
                    let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // A full queue holds such a request already.
                    let _ = requests.try_send(WatchRequest { request_union: Some(ask) });
                    continue;
                }
            };
            let response = match response {
                Ok(Some(response)) => response,
                Ok(None) => return End::Broken("it ended".into()),
                Err(status) => return End::Broken(status.to_string()),
            };
            if response.canceled {
                if response.compact_revision != 0 {
                    return End::Compacted;
                }
                return End::Broken(format!("it was canceled: {}", response.cancel_reason));
            }
            *core.down.lock() = None;
            heard = Instant::now();
            self.take(response, &mut partial, trusted);
        }
    }

    fn take(&mut self, response: WatchResponse, partial: &mut Vec<pb::Event>, trusted: bool) {
        let is_progress = response.events.is_empty() && partial.is_empty() && !response.created;
        partial.extend(response.events);
        if response.fragment {
            return;
        }
        if is_progress {
            let at = revision(response.header.map_or(0, |header| header.revision));
            if trusted && at > self.seen {
                self.seen = at;
                self.core.view.publish(at, now_ms(), &[]);
            }
            return;
        }
        let mut events = Vec::with_capacity(partial.len());
        let mut changes = Changes::new();
        let mut newest = self.seen;
        for event in partial.drain(..) {
            let kind = event.r#type();
            let Some(kv) = event.kv else { continue };
            let at = revision(kv.mod_revision);
            // What a watch repeats after it was resumed is known already.
            if at <= self.seen {
                continue;
            }
            newest = newest.max(at);
            events.extend(self.event(kind, kv, at, &mut changes));
        }
        if newest > self.seen {
            self.seen = newest;
            self.core.view.publish(newest, now_ms(), &events);
        }
    }

    /// The event of a changed key, which joins the changes; nothing for a key that is not ours.
    fn event(
        &mut self,
        kind: EventType,
        kv: pb::KeyValue,
        at: Revision,
        changes: &mut Changes,
    ) -> Option<Arc<Event>> {
        let key = self.core.keys.inner(&kv.key)?;
        let prefix = match self.prefixes.get(&key.prefix) {
            Some(own) => own.clone(),
            None => {
                self.prefixes.insert(key.prefix.clone());
                key.prefix.clone()
            }
        };
        let previous = match changes.get(&key) {
            Some(newest) => newest.clone(),
            None => self.core.view.get(&key.prefix, &key.name),
        };
        let (kind, entry) = match kind {
            EventType::Put => (EventKind::Put, self.core.entry(&key, kv, previous.as_ref())),
            // A delete of what we never had cannot be: the state was loaded before the watch began.
            EventType::Delete => (EventKind::Delete, previous.clone()?),
        };
        let event = Arc::new(Event { revision: at, kind, prefix, entry, previous });
        changes.insert(key, event.current().cloned());
        Some(event)
    }

    async fn reload(&mut self) -> Result<(), tonic::Status> {
        tracing::warn!(after = %self.seen, "the history after the view was compacted: the state is loaded anew");
        let (at, buckets) = self.core.load(None).await?;
        self.core.view.replace(at, &buckets);
        self.prefixes.extend(buckets.into_keys());
        self.seen = at;
        Ok(())
    }
}

/// Whether a member's progress reports never run ahead of its events.
async fn progress_is_right(member: &Member) -> Result<bool, String> {
    let mut client = member.maintenance();
    let status = tokio::time::timeout(OPEN, client.status(StatusRequest {})).await;
    let status = status.map_err(|_| "it does not say its version".to_owned())?;
    let status = status.map_err(|status| status.to_string())?.into_inner();
    if status.leader == 0 {
        return Err("it has no leader".into());
    }
    Ok(is_right_in(&status.version))
}

/// Upstream's table: from 3.4.31 and 3.5.13 on.
fn is_right_in(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 31,
        (Some(3), Some(5), Some(patch)) => patch >= 13,
        (Some(major), Some(minor), Some(_)) => (major, minor) > (3, 5),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_report_progress_rightly() {
        for (version, right) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("3.3.99", false),
            ("4.0.0", true),
            ("unknown", false),
        ] {
            assert_eq!(is_right_in(version), right, "{version}");
        }
    }
}
