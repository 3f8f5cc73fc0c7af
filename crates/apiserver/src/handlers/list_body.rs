//! The body of a list of objects, written piece by piece from the entries as the connection takes it: a list of many
//! megabytes never stands in memory a second time.

use crate::registry;
use apimachinery::status::Status;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use schema::encode::ListHead;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use store::Entry;

/// How large a piece becomes before it is handed on: some TLS records.
const PIECE: usize = 128 << 10;

/// See the module.
pub(super) struct ListBody {
    head: Bytes,
    items: std::vec::IntoIter<Arc<Entry>>,
    tail: Bytes,
    begun: bool,
    /// Bytes that are still to come.
    left: u64,
}

impl ListBody {
    /// The list of these entries. Each must be an object in the served version.
    pub(super) fn new(head: &ListHead<'_>, entries: Vec<Arc<Entry>>) -> Result<Self, Status> {
        let (mut before, mut after) = (BytesMut::with_capacity(256), BytesMut::with_capacity(64));
        head.write_head(&mut before);
        head.write_tail(&mut after);
        // As Go's encoder ends every document.
        after.extend_from_slice(b"\n");
        let mut left = before.len() + after.len() + entries.len().saturating_sub(1);
        for entry in &entries {
            left += registry::body(entry)?.written_len(None, entry.mod_revision.0);
        }
        Ok(ListBody {
            head: before.freeze(),
            items: entries.into_iter(),
            tail: after.freeze(),
            begun: false,
            left: left as u64,
        })
    }

    fn piece(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(PIECE + (16 << 10));
        let mut first = !self.begun;
        if first {
            self.begun = true;
            out.extend_from_slice(&self.head);
        }
        while out.len() < PIECE {
            let Some(entry) = self.items.next() else {
                out.extend_from_slice(&self.tail);
                break;
            };
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b",");
            }
            // `new` has read every one of them.
            if let Ok(object) = registry::body(&entry) {
                object.write(&mut out, None, entry.mod_revision.0);
            }
        }
        self.left = self.left.saturating_sub(out.len() as u64);
        out.freeze()
    }
}

impl HttpBody for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready((self.left > 0).then(|| Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use http_body_util::BodyExt as _;
    use schema::encode::Body;
    use store::{Expect, Key, Store as _, Write, embedded::Embedded};

    #[test]
    fn pieces_make_up_the_list_and_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Embedded::open(directory.path(), Default::default()).unwrap();
        let table = api::table();
        let ty = table.kind("", "v1", "ConfigMap").unwrap();
        for n in 0..40 {
            let object =
                json!({"metadata": {"name": format!("n{n:02}")}, "data": {"k": "v".repeat(n * 400)}});
            let key = Key::new("/registry/configmaps/", format!("a/n{n:02}"));
            let write = Write::put(key, Body::encode(table, ty, &object).stored().clone(), Expect::Absent);
            runtime.block_on(store.commit(write)).unwrap();
        }
        for count in [0, 1, 40] {
            let snapshot = store.snapshot("/registry/configmaps/");
            let entries: Vec<_> = snapshot.range("", "").take(count).cloned().collect();
            let head = ListHead {
                kind: "ConfigMapList",
                api_version: "v1",
                revision: snapshot.revision.0,
                ..Default::default()
            };
            let body = ListBody::new(&head, entries).unwrap();
            let promised = body.size_hint().exact();
            let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
            assert_eq!(promised, Some(bytes.len() as u64));
            let list: Value = serde_json::from_slice(&bytes).unwrap();
            let names: Vec<_> =
                list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
            assert_eq!(names, (0..count).map(|n| json!(format!("n{n:02}"))).collect::<Vec<_>>());
        }
    }
}
