//! The feed over a network: list, then watch from the list's revision, resumed after a broken connection and started
//! over when the revision is gone (upstream's reflector).

use crate::client::{Client, collect, uri};
use crate::error::{Error, Result};
use crate::key::ObjectKey;
use crate::source::{Feed, Query, Raw, Source};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// Lists and watches through a client.
pub(crate) struct ListWatch(pub Client);

const PAGE: u64 = 500;

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: apimachinery::meta::ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct HeadMeta {
    name: String,
    namespace: String,
    resource_version: String,
}

fn raw(text: &RawValue) -> Result<Raw> {
    let head: Head = serde_json::from_str(text.get())
        .map_err(|source| Error::Decode { what: "an object's metadata".into(), source })?;
    Ok(Raw {
        key: ObjectKey::new(&head.metadata.namespace, &head.metadata.name),
        revision: revision(&head.metadata.resource_version)?,
        bytes: Bytes::copy_from_slice(text.get().as_bytes()),
    })
}

fn revision(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Request(format!("the server's resourceVersion {text:?} is not a number")))
}

fn selectors(query: &Query) -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("labelSelector", query.label_selector.clone()),
        ("fieldSelector", query.field_selector.clone()),
    ];
    out.retain(|(_, v)| !v.is_empty());
    out
}

impl ListWatch {
    async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<http::Response<crate::transport::ResponseBody>> {
        let request = http::Request::get(uri(path, query))
            .header(http::header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|e| Error::Request(e.to_string()))?;
        self.0.send(request).await
    }

    async fn list(&self, query: &Query) -> Result<(Vec<Raw>, u64)> {
        let path = query.resource.path(query.namespace.as_deref(), None, None);
        let (mut objects, mut token) = (Vec::new(), String::new());
        loop {
            let mut params = selectors(query);
            params.push(("limit", PAGE.to_string()));
            if !token.is_empty() {
                params.push(("continue", token.clone()));
            }
            let body = collect(self.get(&path, &params).await?.into_body()).await?;
            let list: RawList = serde_json::from_slice(&body).map_err(|source| Error::Decode {
                what: format!("the list of {}", query.resource),
                source,
            })?;
            for item in list.items.unwrap_or_default() {
                objects.push(raw(item)?);
            }
            let at = revision(&list.metadata.resource_version)?;
            token = list.metadata.continue_token;
            if token.is_empty() {
                return Ok((objects, at));
            }
        }
    }

    async fn watch(&self, query: &Query, from: u64) -> Result<Lines> {
        let mut params = selectors(query);
        params.extend([
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", from.to_string()),
        ]);
        let path = query.resource.path(query.namespace.as_deref(), None, None);
        Ok(Lines { body: self.get(&path, &params).await?.into_body(), buffer: BytesMut::new() })
    }
}

/// Newline-separated JSON documents of a streaming body.
struct Lines {
    body: crate::transport::ResponseBody,
    buffer: BytesMut,
}

impl Lines {
    /// All complete lines at hand; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Result<Vec<Bytes>>> {
        loop {
            let mut lines = Vec::new();
            while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                if line.iter().any(|b| !b.is_ascii_whitespace()) {
                    lines.push(line);
                }
            }
            if !lines.is_empty() {
                return Some(Ok(lines));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(e) => return Some(Err(Error::transport("reading a watch", e))),
            }
        }
    }
}

fn feeds(lines: &[Bytes]) -> Result<Vec<Feed>> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines {
        let event: RawEvent = serde_json::from_slice(line)
            .map_err(|source| Error::Decode { what: "a watch event".into(), source })?;
        out.push(match event.kind.as_ref() {
            "ADDED" | "MODIFIED" => Feed::Put(raw(event.object)?),
            "DELETED" => Feed::Delete(raw(event.object)?),
            "BOOKMARK" => Feed::Progress(raw(event.object)?.revision),
            _ => {
                return Err(match serde_json::from_str(event.object.get()) {
                    Ok(status) => Error::Api(Box::new(status)),
                    Err(source) => Error::Decode { what: "a watch error".into(), source },
                });
            }
        });
    }
    Ok(out)
}

enum State {
    Start,
    Watching {
        lines: Lines,
        at: u64,
        /// Whether it has brought nothing yet.
        silent: bool,
    },
    Broken {
        at: u64,
    },
}

struct Feeder {
    from: ListWatch,
    query: Query,
    state: State,
    failures: u32,
}

impl Feeder {
    async fn pause(&mut self, error: &Error) {
        tracing::debug!(resource = %self.query.resource, %error, "watch interrupted");
        let delay =
            Duration::from_millis(100).saturating_mul(1 << self.failures.min(8)).min(Duration::from_secs(30));
        self.failures += 1;
        tokio::time::sleep(delay).await;
    }

    async fn next(&mut self) -> Result<Vec<Feed>> {
        loop {
            match std::mem::replace(&mut self.state, State::Start) {
                State::Start => match self.from.list(&self.query).await {
                    Ok((objects, at)) => {
                        self.state = State::Broken { at };
                        return Ok(vec![Feed::Snapshot { objects, revision: at }]);
                    }
                    Err(e) => self.pause(&e).await,
                },
                State::Broken { at } => match self.from.watch(&self.query, at).await {
                    Ok(lines) => self.state = State::Watching { lines, at, silent: true },
                    Err(e) if e.is_expired() => {}
                    Err(e) => {
                        self.state = State::Broken { at };
                        self.pause(&e).await;
                    }
                },
                State::Watching { mut lines, mut at, silent } => match lines.next().await {
                    None => {
                        self.state = State::Broken { at };
                        if silent {
                            // A server that is going ends them as they begin: asking on and on helps nobody.
                            self.pause(&Error::Request("a watch ended without an event".into())).await;
                        }
                    }
                    Some(Err(e)) => {
                        self.state = State::Broken { at };
                        self.pause(&e).await;
                    }
                    Some(Ok(text)) => match feeds(&text) {
                        Ok(feeds) => {
                            self.failures = 0;
                            for feed in &feeds {
                                if let Feed::Put(r) | Feed::Delete(r) = feed {
                                    at = at.max(r.revision);
                                } else if let Feed::Progress(r) = feed {
                                    at = at.max(*r);
                                }
                            }
                            self.state = State::Watching { lines, at, silent: false };
                            return Ok(feeds);
                        }
                        Err(e) => {
                            if !e.is_expired() {
                                self.state = State::Broken { at };
                            }
                            self.pause(&e).await;
                        }
                    },
                },
            }
        }
    }
}

impl ListWatch {
    /// From a revision on, or from the beginning.
    pub(crate) fn open_at(&self, query: Query, at: Option<u64>) -> BoxStream<'static, Result<Vec<Feed>>> {
        let state = at.map_or(State::Start, |at| State::Broken { at });
        let feeder = Feeder { from: ListWatch(self.0.clone()), query, state, failures: 0 };
        futures::stream::unfold(feeder, |mut feeder| async move {
            let item = feeder.next().await;
            Some((item, feeder))
        })
        .boxed()
    }
}

impl Source for ListWatch {
    fn open(&self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>> {
        self.open_at(query, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{ResponseBody, Transport};
    use futures::future::BoxFuture;
    use http_body_util::Full;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A server that is going: it still lists, and ends every watch as it begins.
    struct Going(Arc<AtomicU32>);

    impl Transport for Going {
        fn send(
            &self,
            request: http::Request<Bytes>,
        ) -> BoxFuture<'static, Result<http::Response<ResponseBody>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let watch = request.uri().query().unwrap_or_default().contains("watch=true");
            let text = if watch { "" } else { r#"{"metadata":{"resourceVersion":"7"},"items":[]}"# };
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
            Box::pin(std::future::ready(Ok(http::Response::new(body))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_not_asked_for_on_and_on() {
        let asked = Arc::new(AtomicU32::new(0));
        let client = Client::new(Arc::new(Going(asked.clone())), "test");
        let mut feed = ListWatch(client).open(Query::of::<api::core::v1::Pod>());
        assert!(matches!(feed.next().await, Some(Ok(feeds)) if feeds.len() == 1));
        let more = tokio::time::timeout(Duration::from_secs(10), feed.next()).await;
        assert!(more.is_err(), "nothing happens");
        assert!(asked.load(Ordering::Relaxed) < 12, "{asked:?} requests");
    }
}
