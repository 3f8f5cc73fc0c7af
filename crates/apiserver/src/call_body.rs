//! A request's body: read at most once, by whoever serves the request; and what becomes of a body that nobody wanted.

use crate::body;
use apimachinery::status::Status;
use bytes::Bytes;
use client::transport::ResponseBody;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The largest body of a request (upstream's limit), and how long it may take to come.
pub const MAX_BODY: usize = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read of a body that nobody wants, so that its connection can go on, and how long it may take.
const MOST_UNREAD: usize = 256 << 10;
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);

/// See the module. There is none where there is nothing to read.
pub struct CallBody(Option<Arc<Mutex<Slot>>>);

/// What of a body is yet to be read.
struct Slot {
    body: Option<ResponseBody>,
    /// Nobody need see to the rest: there is none, or it is another's business.
    settled: bool,
}

impl std::fmt::Debug for CallBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallBody")
    }
}

impl CallBody {
    pub fn new(body: ResponseBody) -> Self {
        if http_body::Body::is_end_stream(&body) {
            return CallBody(None);
        }
        CallBody(Some(Arc::new(Mutex::new(Slot { body: Some(body), settled: false }))))
    }

    /// Takes the body; empty the second time. Who takes it reads it to its end, or gives the connection up.
    pub fn take(&self) -> ResponseBody {
        let taken = self.0.as_ref().and_then(|slot| {
            let mut slot = slot.lock();
            slot.settled = true;
            slot.body.take()
        });
        taken.unwrap_or_else(|| body::full(""))
    }

    /// Reads the whole body within the limits of size and time.
    pub async fn read(&self) -> Result<Bytes, Status> {
        let Some(slot) = &self.0 else {
            crate::context::body_read(0);
            return Ok(Bytes::new());
        };
        let Some(mut body) = slot.lock().body.take() else { return Ok(Bytes::new()) };
        let read = match tokio::time::timeout(PATIENCE, whole(&mut body)).await {
            Ok(read) => read,
            Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0)),
        };
        let mut slot = slot.lock();
        slot.settled = read.is_ok();
        match &read {
            Ok(read) => crate::context::body_read(read.len()),
            Err(_) => slot.body = Some(body),
        }
        read
    }

    /// The same body, for who looks after it when the request is served.
    pub(crate) fn share(&self) -> Self {
        CallBody(self.0.clone())
    }

    /// Reads what nobody wanted to read, if it is little; whether the connection can go on behind it.
    pub(crate) async fn settle(self, waits_to_send: bool) -> bool {
        let Some(slot) = self.0 else { return true };
        let (body, settled) = {
            let mut slot = slot.lock();
            (slot.body.take(), slot.settled)
        };
        let Some(mut body) = body else { return settled };
        // To read would be to ask for it.
        if waits_to_send {
            return false;
        }
        let rest = async {
            let mut left = MOST_UNREAD;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(UNREAD_PATIENCE, rest).await.unwrap_or(false)
    }
}

async fn whole(body: &mut ResponseBody) -> Result<Bytes, Status> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("reading the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(Status::request_entity_too_large(format!("limit is {MAX_BODY}")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    /// A body of so many pieces of 64 KiB.
    fn pieces(count: usize) -> CallBody {
        let piece = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; 64 << 10])));
        CallBody::new(body::stream(StreamBody::new(stream::iter((0..count).map(move |_| piece())))))
    }

    #[tokio::test]
    async fn what_nobody_reads() {
        // Nothing, a little, too much.
        assert!(CallBody::new(body::full("")).settle(true).await);
        assert!(pieces(4).settle(false).await);
        assert!(!pieces(5).settle(false).await);
        assert!(!pieces(1).settle(true).await);
        // Read to its end, or given to somebody else.
        let body = pieces(5);
        let rest = body.share();
        assert_eq!(body.read().await.unwrap().len(), 5 << 16);
        assert!(rest.settle(false).await);
        let body = pieces(50);
        let rest = body.share();
        drop(body.take());
        assert!(rest.settle(false).await);
        // Too large: the rest is too much as well, or little.
        for (count, goes_on) in [(200, false), (50, true)] {
            let body = pieces(count);
            let rest = body.share();
            let status = body.read().await.unwrap_err();
            assert_eq!(status.message, "Request entity too large: limit is 3145728");
            assert_eq!(rest.settle(false).await, goes_on);
        }
    }
}
