//! What a request is made of, and what it is told with.

use apimachinery::value::Value;
use http::Method;

pub enum Body {
    None,
    Json(Value),
    Text(String),
    Bytes(Vec<u8>),
}

pub struct Case {
    pub name: String,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// Later requests refer to its answer.
    pub referred: bool,
    /// It makes a definition, which is waited for.
    pub established: bool,
    /// Its answer is a stream, which is read until this is in it.
    pub until: Option<String>,
}

/// Requests that are sent in this order; what is before and after is not compared.
pub struct Story {
    pub file: String,
    pub before: Vec<Case>,
    pub cases: Vec<Case>,
    pub after: Vec<Case>,
}

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

pub fn case(name: impl Into<String>, method: Method, path: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        method,
        path: path.into(),
        headers: Vec::new(),
        body: Body::None,
        referred: false,
        established: false,
        until: None,
    }
}

impl Case {
    pub fn accept(mut self, media: &str) -> Case {
        self.headers.push(("accept", media.into()));
        self
    }

    pub fn json(self, body: Value) -> Case {
        self.sent(JSON, Body::Json(body))
    }

    pub fn sent(mut self, media: &str, body: Body) -> Case {
        self.headers.push(("content-type", media.into()));
        self.body = body;
        self
    }

    pub fn referred(mut self) -> Case {
        self.referred = true;
        self
    }
}
