//! Reading watches: line by line for what happens to a few objects.

use crate::target::{Call, Connection, Target};
use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use std::time::Duration;

/// A watch, event by event. Its connection is its own.
pub(crate) struct Watching {
    // Dropping it would end the body.
    _connection: Connection,
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
}

impl Watching {
    /// Opens a watch; without a revision it begins with everything that is there. `path` may have a query.
    pub(crate) async fn open(target: &Target, path: &str, revision: Option<&str>) -> Result<Self> {
        let mut connection = target.connect().await?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let from = revision.map(|r| format!("&resourceVersion={r}")).unwrap_or_default();
        let path = format!("{path}{joint}watch=true&timeoutSeconds=3600{from}");
        let response = connection.open(Call::get(&path)).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        Ok(Watching {
            _connection: connection,
            body: response.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    /// The next line.
    pub(crate) async fn line(&mut self) -> Result<BytesMut> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
            if let Some(at) = found {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            let frame = self.body.frame().await.context("the server ended the watch")??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    /// Reads until an event's object is as wanted; returns it.
    pub(crate) async fn until(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&str, &Value) -> bool,
    ) -> Result<Value> {
        let found = async {
            loop {
                let mut event: Value = serde_json::from_slice(&self.line().await?)?;
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                let object = event["object"].take();
                if kind == "ERROR" {
                    bail!("the watch failed: {}", object["message"]);
                }
                if wanted(&kind, &object) {
                    return Ok(object);
                }
            }
        };
        tokio::time::timeout(patience, found).await.context("it did not happen in time")?
    }

    /// The rest, frame by frame, and what was read of it.
    pub(crate) fn into_frames(self) -> (Connection, Incoming, BytesMut) {
        (self._connection, self.body, self.buffer)
    }
}

/// Whether an object has a condition that is true.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}
