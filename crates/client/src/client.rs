//! Requests: [`Client`] sends them, [`Api`] types them by kind, [`Dynamic`] by resource name.

use crate::error::{Error, Result};
use crate::key::Resource;
use crate::params::{ListParams, ListResult, Patch, PatchParams};
use crate::transport::{ResponseBody, Transport};
use api::Kind;
use apimachinery::decode::Decode;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use apimachinery::value::Value;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use serde::Serialize;
use std::marker::PhantomData;
use std::sync::Arc;

/// Sends requests as one user. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("user_agent", &self.user_agent).finish_non_exhaustive()
    }
}

impl Client {
    /// `user_agent` becomes the field manager of writes that name none, up to its first slash, as upstream does.
    pub fn new(transport: Arc<dyn Transport>, user_agent: &str) -> Self {
        Client { transport, user_agent: user_agent.into() }
    }

    /// The same transport under another user agent.
    pub fn named(&self, user_agent: &str) -> Self {
        Client { transport: self.transport.clone(), user_agent: user_agent.into() }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Objects of kind `K` in all namespaces, or of a kind that has none.
    pub fn all<K: Kind>(&self) -> Api<K> {
        Api { dynamic: self.resource(Resource::of::<K>(), None), kind: PhantomData }
    }

    /// Objects of kind `K` in one namespace (ignored for a kind that has none).
    pub fn namespaced<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api {
            dynamic: self.resource(Resource::of::<K>(), K::NAMESPACED.then_some(namespace)),
            kind: PhantomData,
        }
    }

    /// Objects of a resource that is known by name only.
    pub fn resource(&self, resource: Resource, namespace: Option<&str>) -> Dynamic {
        Dynamic { client: self.clone(), resource, namespace: namespace.map(Into::into), accept: JSON }
    }

    /// Sends a request and returns the response, whose body may stream; an error status becomes [`Error::Api`].
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<ResponseBody>> {
        if let Ok(agent) = http::HeaderValue::from_str(&self.user_agent) {
            request.headers_mut().entry(http::header::USER_AGENT).or_insert(agent);
        }
        let response = self.transport.send(request).await?;
        if response.status().is_success() || response.status().is_informational() {
            return Ok(response);
        }
        let code = response.status();
        let body = collect(response.into_body()).await?;
        let status = Status::from_json(&body).unwrap_or_else(|_| Status {
            code: i32::from(code.as_u16()),
            message: String::from_utf8_lossy(&body[..body.len().min(2048)]).into_owned(),
            status: "Failure".into(),
            ..Default::default()
        });
        Err(Error::Api(Box::new(status)))
    }

    /// Sends a request with an optional JSON body and decodes the answer.
    pub async fn request<T: Decode>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Bytes,
    ) -> Result<T> {
        let answer = self.raw(method, path, query, content_type, body).await?;
        decode(path, &answer)
    }

    /// Sends a request and returns the bytes of the answer.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        self.raw_as(JSON, method, path, query, content_type, body).await
    }

    /// As [`Client::raw`], with the answer in a form that the caller accepts.
    pub async fn raw_as(
        &self,
        accept: &str,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let mut builder =
            Request::builder().method(method).uri(uri(path, query)).header(http::header::ACCEPT, accept);
        if !body.is_empty() {
            builder = builder.header(http::header::CONTENT_TYPE, content_type);
        }
        let request = builder.body(body).map_err(|e| Error::Request(e.to_string()))?;
        collect(self.send(request).await?.into_body()).await
    }
}

fn decode<T: Decode>(path: &str, answer: &[u8]) -> Result<T> {
    T::from_json(answer).map_err(|source| Error::Decode { what: format!("the answer to {path}"), source })
}

/// Reads a body to its end.
pub async fn collect(body: ResponseBody) -> Result<Bytes> {
    body.collect().await.map(|b| b.to_bytes()).map_err(|e| Error::transport("reading the answer", e))
}

/// A path and its query, percent-encoded.
pub fn uri(path: &str, query: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (i, (key, value)) in query.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte))
                }
                _ => {
                    out.push('%');
                    for nibble in [byte >> 4, byte & 15] {
                        out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase());
                    }
                }
            }
        }
    }
    out
}

/// Objects of one resource, as trees.
#[derive(Debug, Clone)]
pub struct Dynamic {
    client: Client,
    resource: Resource,
    namespace: Option<Arc<str>>,
    accept: &'static str,
}

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const JSON: &str = "application/json";

impl Dynamic {
    fn path(&self, name: Option<&str>, subresource: Option<&str>) -> String {
        self.resource.path(self.namespace.as_deref(), name, subresource)
    }

    /// The same objects, answered with no more than their metadata: see [`crate::metadata::Partial`].
    pub fn metadata(mut self) -> Self {
        self.accept = METADATA;
        self
    }

    async fn request<T: Decode>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Bytes,
    ) -> Result<T> {
        let answer = self.client.raw_as(self.accept, method, path, query, content_type, body).await?;
        decode(path, &answer)
    }

    pub async fn get<T: Decode>(&self, name: &str, subresource: Option<&str>) -> Result<T> {
        self.request(Method::GET, &self.path(Some(name), subresource), &[], JSON, Bytes::new()).await
    }

    pub async fn list<T: Decode>(&self, params: &ListParams) -> Result<T> {
        let accept = if self.accept == METADATA { METADATA_LIST } else { self.accept };
        let (path, query) = (self.path(None, None), params.query());
        let answer = self.client.raw_as(accept, Method::GET, &path, &query, JSON, Bytes::new()).await?;
        decode(&path, &answer)
    }

    /// Creates an object, or posts to a subresource of an existing one.
    pub async fn create<B: Serialize, T: Decode>(
        &self,
        name: Option<&str>,
        subresource: Option<&str>,
        body: &B,
    ) -> Result<T> {
        self.request(Method::POST, &self.path(name, subresource), &[], JSON, encode(body)?).await
    }

    pub async fn update<B: Serialize, T: Decode>(
        &self,
        name: &str,
        subresource: Option<&str>,
        body: &B,
    ) -> Result<T> {
        self.request(Method::PUT, &self.path(Some(name), subresource), &[], JSON, encode(body)?).await
    }

    pub async fn patch<T: Decode>(
        &self,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
        params: &PatchParams,
    ) -> Result<T> {
        let mut query = Vec::new();
        if !params.field_manager.is_empty() {
            query.push(("fieldManager", params.field_manager.clone()));
        }
        if params.force {
            query.push(("force", "true".to_owned()));
        }
        if params.strict {
            query.push(("fieldValidation", "Strict".to_owned()));
        }
        let path = self.path(Some(name), subresource);
        self.request(Method::PATCH, &path, &query, patch.content_type(), encode(patch.value())?).await
    }

    /// Deletes an object; the answer is the object (still there, being deleted) or a `Status`. It is never asked for by
    /// metadata alone, as upstream's metadata client does: a collection that is deleted is answered as a list.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Value> {
        let path = self.path(Some(name), None);
        self.client.request(Method::DELETE, &path, &[], JSON, encode(options)?).await
    }

    pub async fn delete_collection(&self, options: &DeleteOptions, params: &ListParams) -> Result<Value> {
        let path = self.path(None, None);
        self.client.request(Method::DELETE, &path, &params.query(), JSON, encode(options)?).await
    }
}

fn encode<B: Serialize>(body: &B) -> Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| Error::Request(e.to_string()))
}

/// Objects of kind `K`.
#[derive(Debug, Clone)]
pub struct Api<K> {
    dynamic: Dynamic,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Api<K> {
    pub async fn get(&self, name: &str) -> Result<K> {
        self.dynamic.get(name, None).await
    }

    /// As [`Api::get`], with absence as `None`.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub async fn list(&self, params: &ListParams) -> Result<ListResult<K>> {
        self.dynamic.list(params).await
    }

    pub async fn create(&self, object: &K) -> Result<K> {
        self.dynamic.create(None, None, &Typed(object)).await
    }

    pub async fn update(&self, object: &K) -> Result<K> {
        self.dynamic.update(&object.metadata().name, None, &Typed(object)).await
    }

    pub async fn update_status(&self, object: &K) -> Result<K> {
        self.dynamic.update(&object.metadata().name, Some("status"), &Typed(object)).await
    }

    pub async fn patch(&self, name: &str, patch: &Patch, params: &PatchParams) -> Result<K> {
        self.dynamic.patch(name, None, patch, params).await
    }

    pub async fn patch_status(&self, name: &str, patch: &Patch, params: &PatchParams) -> Result<K> {
        self.dynamic.patch(name, Some("status"), patch, params).await
    }

    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Value> {
        self.dynamic.delete(name, options).await
    }

    pub async fn delete_collection(&self, options: &DeleteOptions, params: &ListParams) -> Result<Value> {
        self.dynamic.delete_collection(options, params).await
    }

    /// Posts to a subresource (`binding`, `eviction`, `token`) and decodes its answer.
    pub async fn post<B: Serialize, T: Decode>(&self, name: &str, subresource: &str, body: &B) -> Result<T> {
        self.dynamic.create(Some(name), Some(subresource), body).await
    }

    /// The untyped form.
    pub fn dynamic(&self) -> &Dynamic {
        &self.dynamic
    }
}

/// Writes an object with its `kind` and `apiVersion`, which decoded list items and informer objects lack.
struct Typed<'a, K>(&'a K);

impl<K: Kind> Serialize for Typed<'_, K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut value = apimachinery::value::to_value(self.0).map_err(serde::ser::Error::custom)?;
        if let Some(map) = value.as_object_mut() {
            map.insert("kind", K::KIND.into());
            map.insert("apiVersion", K::api_version().into());
        }
        value.serialize(serializer)
    }
}
