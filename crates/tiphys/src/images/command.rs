//! The command's side.

use super::Listed;
use crate::cli::ImageCommand;
use crate::places::Places;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Method, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use std::io;
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
            ImageCommand::Import { archives, name } => import(places, &archives, &name).await,
            ImageCommand::Pull { names } => {
                for name in names {
                    let id = call(places, Method::POST, "/pull", &[&name], empty()).await?;
                    println!("{name} {id}");
                }
                Ok(())
            }
            ImageCommand::Rm { names } => {
                for name in names {
                    call(places, Method::DELETE, "/images", &[&name], empty()).await.context(name)?;
                }
                Ok(())
            }
        }
    })
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

async fn import(places: &Places, archives: &[std::path::PathBuf], names: &[String]) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for archive in archives {
        let body = file(archive).await.with_context(|| archive.display().to_string())?;
        let answer = call(places, Method::POST, "/images", &names, body).await;
        let images: Vec<Listed> =
            serde_json::from_str(&answer.with_context(|| archive.display().to_string())?)?;
        for image in images {
            println!("{} {}", image.names.join(" "), image.id);
        }
    }
    Ok(())
}

/// A file, or standard input for `-`, as a body.
async fn file(path: &Path) -> io::Result<Body> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let file = tokio::fs::File::open(path).await?;
    Ok(StreamBody::new(ReaderStream::with_capacity(file, 1 << 17).map_ok(Frame::data)).boxed())
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

async fn call(places: &Places, method: Method, path: &str, names: &[&str], body: Body) -> Result<String> {
    let socket = places.images_socket();
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!("no server with a node runs on {}: {}", places.data_dir.display(), socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(names.iter().map(|name| ("name", name)));
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?{}", query.finish()))
        .header(http::header::HOST, "tiphys")
        .body(body)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    connection.abort();
    if !status.is_success() {
        bail!("{text}");
    }
    Ok(text)
}
