//! `/logs/…`: the files beneath `/var/log`, and, where that was turned on, what services of the node logged. Links that lead
//! out of the directory lead nowhere. Upstream: `kubelet_server_journal.go`, `http.FileServer`.

mod query;
mod services;

use super::Inner;
use super::answer::{Response, full, text, with_type};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use linux::path::Root;
use query::Query;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Bytes by which a file's kind is told.
const HEAD: usize = 512;
const CHUNK: usize = 64 << 10;

pub(super) async fn answer(inner: &Arc<Inner>, path: &str, request: Request<Incoming>) -> Response {
    let config = &inner.context.config;
    let dir = config.system_logs_dir.clone();
    let mut path = path.to_owned();
    if config.system_log_query {
        let query = match Query::parse(&super::answer::query(request.uri().query())) {
            Ok(query) => query,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        if let Some(error) = query.validate(&dir).aggregate() {
            return text(StatusCode::NOT_ACCEPTABLE, format!("{error}\n"));
        }
        if !query.services.is_empty() || path == "journal" || path == "journal/" {
            let said = services::read(&query, &dir).await;
            return with_type(StatusCode::OK, "text/plain;charset=UTF-8", said);
        }
        if let Some(file) = query.files.first() {
            path = file.replace('\\', "/");
        }
    }
    let served = tokio::task::spawn_blocking(move || serve(&dir, path.trim_start_matches('/'))).await;
    served.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A file, or the list of a directory.
fn serve(dir: &Path, path: &str) -> Response {
    let absent = || text(StatusCode::NOT_FOUND, "404 page not found\n");
    let Ok(root) = Root::open(dir) else { return absent() };
    let relative = Path::new(if path.is_empty() { "." } else { path });
    let Ok(handle) = root.handle(relative) else { return absent() };
    match rustix::fs::fstat(&handle).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode)) {
        Ok(rustix::fs::FileType::Directory) => list(Path::new(&linux::path::by_fd(&handle))),
        Ok(rustix::fs::FileType::RegularFile) => root.open_file(relative).map_or_else(|_| absent(), send),
        _ => absent(),
    }
}

fn list(dir: &Path) -> Response {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let mut page =
        String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        page += &format!("<a href=\"{}\">{}</a>\n", link(&name), escaped(&name));
    }
    page += "</pre>\n";
    with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// A name as part of an URL.
fn link(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/$&+=:@".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A file as it is now, piece by piece.
fn send(mut file: File) -> Response {
    let mut head = vec![0; HEAD];
    let length = file.metadata().map_or(0, |meta| meta.len());
    let count = match file.read(&mut head) {
        Ok(count) => count,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    head.truncate(count);
    let kind = kind(&head);
    let (chunks, waiting) = tokio::sync::mpsc::channel::<Bytes>(4);
    tokio::task::spawn_blocking(move || {
        // It may grow meanwhile: what was there is what is sent.
        let mut left = length.saturating_sub(head.len() as u64);
        let mut next = Bytes::from(head);
        while chunks.blocking_send(next).is_ok() && left > 0 {
            let mut buffer = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            match file.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    buffer.truncate(count);
                    left -= count as u64;
                    next = buffer.into();
                }
            }
        }
    });
    let frames = futures::stream::unfold(waiting, |mut waiting| async move {
        let chunk = waiting.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(chunk)), waiting))
    });
    let mut response = http::Response::new(full(""));
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// What a file seems to be, as browsers tell.
fn kind(head: &[u8]) -> &'static str {
    let binary = |byte: &u8| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31);
    if head.starts_with(&[0x1f, 0x8b, 8]) {
        "application/x-gzip"
    } else if head.iter().any(binary) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/a b.log"), "one\n").unwrap();
        std::fs::write(at("bin"), [0, 1]).unwrap();
        let long = "x".repeat(3 * CHUNK);
        std::fs::write(at("long"), &long).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("out")).unwrap();
        std::os::unix::fs::symlink("sub/a b.log", at("in")).unwrap();
        let get = async |path: &str| {
            let response = serve(dir.path(), path);
            let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, kind, String::from_utf8_lossy(&body).into_owned())
        };
        let (status, kind, page) = get("").await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
        assert!(
            page.contains("<a href=\"bin\">bin</a>\n") && page.contains("<a href=\"sub/\">sub/</a>\n"),
            "{page}"
        );
        assert!(get("sub/").await.2.contains("<a href=\"a%20b.log\">a b.log</a>"));
        assert_eq!(get("sub/a b.log").await, (200, "text/plain; charset=utf-8".into(), "one\n".into()));
        assert_eq!(get("in").await.2, "one\n");
        assert_eq!(get("bin").await.1, "application/octet-stream");
        assert_eq!(get("long").await.2, long);
        for nowhere in ["out", "../etc/passwd", "absent", "sub/../../x"] {
            assert_eq!(get(nowhere).await.0, 404, "{nowhere}");
        }
    }
}
