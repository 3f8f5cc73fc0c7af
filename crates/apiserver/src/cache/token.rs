//! Continue tokens: where a paged list goes on, at which revision.

use apimachinery::status::Status;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use serde::Serialize;

/// The content of a continue token; the text is upstream's (base64 of this JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Continue {
    v: String,
    /// The list's revision; -1 for an inconsistent continuation at the newest one.
    pub rv: i64,
    /// The next key below the scope, inclusive.
    pub start: String,
}

impl Continue {
    pub fn new(revision: i64, start: &str) -> Self {
        Continue { v: "meta.k8s.io/v1".into(), rv: revision, start: start.into() }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub fn parse(text: &str) -> Result<Self, Status> {
        let invalid = |why: &dyn std::fmt::Display| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| {
            let at = match e {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // Groups of four are read at once.
                _ => text.len() / 4 * 4,
            };
            invalid(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token = schema::decode::free_json(&bytes, schema::decode::FieldValidation::Ignore);
        let token = token.map_err(|e| invalid(&e))?.value;
        let text = |name: &str| token[name].as_str().unwrap_or_default().to_owned();
        let token = Continue { v: text("v"), rv: token["rv"].as_i64().unwrap_or(0), start: text("start") };
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid(&"incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
            return Err(invalid(&token.start));
        }
        Ok(token)
    }
}
