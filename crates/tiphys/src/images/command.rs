//! The command's side.

use super::Listed;
use crate::cli::ImageCommand;
use crate::places::Places;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

type Body = BoxBody<Bytes, io::Error>;

/// Runs one `tiphys image` command against the server of `places`.
pub(crate) fn run(places: &Places, command: ImageCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ImageCommand::List => list(places).await,
            ImageCommand::Import { archives, name } => {
                let names: Vec<&str> = name.iter().map(String::as_str).collect();
                each(&archives, async |archive| import(places, archive, &names).await).await
            }
            ImageCommand::Pull { names } => {
                let pull = async |name: &String| {
                    let id = call(places, Method::POST, "/pull", &[name], empty()).await?;
                    println!("{name} {id}");
                    Ok(())
                };
                each(&names, pull).await
            }
            ImageCommand::Rm { names } => {
                let remove = async |name: &String| {
                    call(places, Method::DELETE, "/images", &[name], empty()).await.context(name.clone())?;
                    Ok(())
                };
                each(&names, remove).await
            }
        }
    })
}

/// Does something with each, and says what went wrong with some: the others need not wait for that to be mended.
async fn each<T>(items: &[T], act: impl AsyncFn(&T) -> Result<()>) -> Result<()> {
    let mut failed = 0;
    for item in items {
        match act(item).await {
            Err(error) if items.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed += 1;
            }
            Ok(()) => {}
        }
    }
    if failed > 0 {
        bail!("{failed} of {} failed", items.len());
    }
    Ok(())
}

async fn list(places: &Places) -> Result<()> {
    let mut images: Vec<Listed> =
        serde_json::from_str(&call(places, Method::GET, "/images", &[], empty()).await?)?;
    images.sort_by(|a, b| a.names.cmp(&b.names));
    println!("{:<60} {:<14} SIZE", "IMAGE", "ID");
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let size = format!("{:.1} MB", image.size as f64 / 1e6);
        for name in image.names {
            println!("{name:<60} {id:<14} {size}");
        }
    }
    Ok(())
}

async fn import(places: &Places, archive: &Path, names: &[&str]) -> Result<()> {
    let answer = send(places, archive, names).await.with_context(|| archive.display().to_string())?;
    let images: Vec<Listed> = serde_json::from_str(&answer)?;
    for image in images {
        println!("{} {}", image.names.join(" "), image.id);
    }
    Ok(())
}

/// Imports a file, or standard input for `-`. The server reads in place what it can open, and is sent anything else: a
/// pipe, or a file of a machine's part that it does not see.
async fn send(places: &Places, path: &Path, names: &[&str]) -> Result<String> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let file = std::fs::File::open(path)?;
    let query = |descriptor: &str| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(names.iter().map(|name| ("name", name)));
        query.extend_pairs(Some(descriptor).filter(|it| !it.is_empty()).map(|it| ("descriptor", it)));
        query.finish()
    };
    let here = query(&file.as_raw_fd().to_string());
    match ask(places, Method::POST, "/images", &here, empty()).await? {
        (StatusCode::FAILED_DEPENDENCY, _) => {}
        answer => return success(answer),
    }
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 17);
    let body = StreamBody::new(chunks.map_ok(Frame::data)).boxed();
    success(ask(places, Method::POST, "/images", &query(""), body).await?)
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

async fn call(places: &Places, method: Method, path: &str, names: &[&str], body: Body) -> Result<String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(names.iter().map(|name| ("name", name)));
    success(ask(places, method, path, &query.finish(), body).await?)
}

fn success((status, text): (StatusCode, String)) -> Result<String> {
    if !status.is_success() {
        bail!("{text}");
    }
    Ok(text)
}

async fn ask(
    places: &Places,
    method: Method,
    path: &str,
    query: &str,
    body: Body,
) -> Result<(StatusCode, String)> {
    let socket = places.images_socket();
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!("no server with a node runs on {}: {}", places.data_dir.display(), socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?{query}"))
        .header(http::header::HOST, "tiphys")
        .body(body)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    connection.abort();
    Ok((status, text))
}
