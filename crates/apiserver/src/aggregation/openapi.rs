//! What other servers publish of their OpenAPI: documents of v3 are handed on as they are, what v2 says of their paths is
//! merged into the own document. Who has no v3 gets one made of its v2.

use super::Remote;
use super::controller::{Controller, Fetched};
use crate::outbound::Target;
use apimachinery::value::{Key, Value};
use bytes::Bytes;
use http::StatusCode;
use schema::openapi;
use std::collections::BTreeMap;
use std::sync::Arc;

const JSON: &str = "application/json";

/// What one server publishes; kept while it cannot be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Published {
    /// Where each document of v3 is, by what it is about (`apis/group/version`).
    pub v3: BTreeMap<String, String>,
    pub v2: Option<Spec>,
}

/// What a v2 document says of the paths of one group version.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The server's, or a hash: equal ones mean equal documents.
    etag: String,
    /// Set when it is not the server's own.
    hashed: bool,
    pub document: Arc<Value>,
    /// The document as v3, where the server has none.
    pub converted: Option<(Bytes, String)>,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        (&self.etag, self.converted.is_some()) == (&other.etag, other.converted.is_some())
    }
}

impl Controller {
    /// Asks a server for its documents.
    pub(super) async fn publishes(&self, target: &Target, group: &str, version: &str, remote: &mut Remote) {
        let path = format!("apis/{group}/{version}");
        let published = &mut remote.published;
        let legacy = match self.fetch(target, "/openapi/v3", JSON, None).await {
            Ok(Fetched { status: StatusCode::NOT_FOUND, .. }) => {
                published.v3.clear();
                true
            }
            Ok(Fetched { status: StatusCode::OK, bytes, .. }) => {
                let index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let listed = index["paths"].as_object().into_iter().flatten();
                // Of what is about nothing in particular the own documents speak.
                let url = |(key, item): (&Key, &Value)| {
                    let url = item["serverRelativeURL"].as_str()?;
                    key.starts_with("apis/").then(|| (key.to_string(), url.to_owned()))
                };
                published.v3 = listed.filter_map(url).collect();
                false
            }
            Ok(_) | Err(_) => return,
        };
        let known = published.v2.as_ref().filter(|spec| spec.converted.is_some() == legacy);
        let etag = known.filter(|spec| !spec.hashed).map(|spec| spec.etag.as_str());
        match self.fetch(target, "/openapi/v2", JSON, etag).await {
            Ok(Fetched { status: StatusCode::NOT_FOUND, .. }) => published.v2 = None,
            Ok(Fetched { status: StatusCode::OK, bytes, etag }) => {
                let hashed = etag.is_none();
                let etag = etag.unwrap_or_else(|| schema::discovery::etag(&bytes));
                if known.is_some_and(|spec| spec.etag == etag) {
                    return;
                }
                let Ok(document) = serde_json::from_slice(&bytes) else { return };
                let prefix = format!("/{path}/");
                let document = openapi::within(document, &|path| path.starts_with(&prefix));
                let converted = legacy.then(|| openapi::finish(&openapi::to_v3(&document)));
                published.v2 = Some(Spec { etag, hashed, document: Arc::new(document), converted });
            }
            Ok(_) | Err(_) => {}
        }
    }
}
