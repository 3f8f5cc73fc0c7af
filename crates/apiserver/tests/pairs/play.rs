//! Sends the requests of a story, one after the other.

use crate::answer::Answer;
use crate::case::{Body, Case, Story};
use apimachinery::value::Value;
use bytes::Bytes;
use client::transport::Transport;
use http::Request;
use http_body_util::BodyExt as _;
use regex::{Captures, Regex};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// `{{case /pointer}}`: what an earlier answer has there.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{\{([^{}/]+) (/[^{}]+)\}\}").unwrap());

pub async fn play(transport: &Arc<dyn Transport>, story: &Story) -> Vec<(String, Answer)> {
    for case in story.before.iter() {
        let (parts, body) = send(transport, case, &HashMap::new()).await;
        if case.established {
            assert!(parts.status.is_success(), "{}", String::from_utf8_lossy(&body));
            established(transport, case).await;
        }
    }
    let (mut answers, mut known) = (Vec::new(), HashMap::new());
    for case in &story.cases {
        let (parts, body) = send(transport, case, &known).await;
        if case.referred {
            known.insert(case.name.clone(), serde_json::from_slice::<Value>(&body).unwrap_or_default());
        }
        answers.push((case.name.clone(), Answer::new(&parts, &body)));
    }
    for case in story.after.iter() {
        send(transport, case, &known).await;
    }
    answers
}

/// Waits until a definition that was made is established.
async fn established(transport: &Arc<dyn Transport>, case: &Case) {
    let Body::Json(definition) = &case.body else { return };
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{}?watch=1&fieldSelector=metadata.name%3D{name}", case.path);
    let request = Request::get(path).body(Bytes::new()).unwrap();
    let wait = async {
        let mut events = transport.send(request).await.unwrap().into_body();
        let mut seen = String::new();
        while let Some(frame) = events.frame().await {
            let data = frame.unwrap().into_data().unwrap_or_default();
            seen.push_str(&String::from_utf8_lossy(&data));
            let is_whole = seen.ends_with('\n');
            if is_whole && ESTABLISHED.is_match(&seen) {
                break;
            }
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{name} was not established"));
}

static ESTABLISHED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""type":"Established","status":"True""#).unwrap());

/// A stream up to the frame that holds `end`; all of it where none does.
async fn read_until(mut body: client::transport::ResponseBody, end: &[u8]) -> Bytes {
    let mut seen = Vec::new();
    while !seen.windows(end.len()).any(|part| part == end)
        && let Some(frame) = body.frame().await
    {
        seen.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    seen.into()
}

async fn send(
    transport: &Arc<dyn Transport>,
    case: &Case,
    known: &HashMap<String, Value>,
) -> (http::response::Parts, Bytes) {
    let filled = |text: &str| {
        let of = |c: &Captures<'_>| match known.get(&c[1]).and_then(|v| v.pointer(&c[2])) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => format!("<no {} {}>", &c[1], &c[2]),
        };
        REFERENCE.replace_all(text, of).into_owned()
    };
    let body: Bytes = match &case.body {
        Body::None => Bytes::new(),
        Body::Json(value) => filled(&value.to_string()).into(),
        Body::Text(text) => filled(text).into(),
        Body::Bytes(bytes) => bytes.clone().into(),
    };
    let path = filled(&case.path).replace(' ', "%20");
    let mut request = Request::builder().method(case.method.as_str()).uri(&path);
    let headers = request.headers_mut().unwrap();
    headers.insert("user-agent", http::HeaderValue::from_static("pairs/1.0"));
    for (name, value) in &case.headers {
        headers.insert(*name, value.parse().unwrap());
    }
    let request = request.body(body).unwrap_or_else(|e| panic!("{} {path}: {e}", case.name));
    let answer = async {
        let response = transport.send(request).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let (parts, body) = response.into_parts();
        let body = match &case.until {
            None => body.collect().await.unwrap().to_bytes(),
            Some(end) => read_until(body, end.as_bytes()).await,
        };
        (parts, body)
    };
    match tokio::time::timeout(std::time::Duration::from_secs(30), answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("{}: {} {path} was not answered", case.name, case.method),
    }
}
