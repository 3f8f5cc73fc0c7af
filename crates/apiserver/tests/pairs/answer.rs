//! An answer without what differs from run to run.

use crate::mask;
use bytes::Bytes;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub media: String,
    pub warnings: Vec<String>,
    pub body: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// JSON, as it was written but for spaces around it.
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
}

impl Answer {
    pub fn new(parts: &http::response::Parts, body: &Bytes) -> Self {
        let header = |name: &str| {
            let values = parts.headers.get_all(name).iter();
            values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect::<Vec<_>>()
        };
        let media = header("content-type").join("; ");
        let mut warnings: Vec<String> = header("warning").iter().map(|w| mask::text(w)).collect();
        warnings.sort();
        let body = match std::str::from_utf8(body) {
            Ok(text) if is_compact_json(text.trim()) => Content::Json(mask::json(text.trim())),
            Ok(text) if text.starts_with(r#"{"type":""#) => Content::Text(mask::json(text)),
            Ok(text) if !media.contains("protobuf") => Content::Text(mask::text(text)),
            _ if media.contains("stream=watch") => Content::Bytes(mask::frames(body)),
            _ => Content::Bytes(mask::protobuf(body)),
        };
        Answer { code: parts.status.as_u16(), media, warnings, body }
    }
}

fn is_compact_json(text: &str) -> bool {
    !text.contains('\n') && serde_json::from_str::<apimachinery::value::Value>(text).is_ok()
}
