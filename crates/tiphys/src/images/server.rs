//! The server's side: `GET /images`, `POST /images` (an archive, or `descriptor=`, by which the client has one open),
//! `POST /pull?name=`, `DELETE /images?name=`.
//!
//! Errors are plain text. The socket is the owner's alone.

use super::Listed;
use bytes::Bytes;
use cri::ImageService;
use cri::v1::{ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest};
use futures::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::images::{Images, ImportOptions};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

/// A bound socket and who answers.
pub(crate) struct Door {
    listener: UnixListener,
    answers: Arc<Answers>,
}

struct Answers {
    images: Arc<dyn ImageService>,
    /// Imports archives; a runtime of somebody else's has no call for it.
    embedded: Option<Arc<Images>>,
}

type Failure = (StatusCode, String);

/// A socket for its owner alone, in the place of one that a dead server left.
pub(crate) fn private_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Binds the image socket.
pub(crate) fn bind(
    path: &Path,
    images: Arc<dyn ImageService>,
    embedded: Option<Arc<Images>>,
) -> io::Result<Door> {
    Ok(Door { listener: private_socket(path)?, answers: Arc::new(Answers { images, embedded }) })
}

impl Door {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the image socket was not accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let answers = self.answers.clone();
            let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let service = service_fn(move |request| {
                let answers = answers.clone();
                async move { Ok::<_, std::convert::Infallible>(answers.answer(request, peer).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let stop = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to the image socket broke");
                    }
                }
            });
        }
    }
}

impl Answers {
    async fn answer(&self, request: Request<Incoming>, peer: Option<i32>) -> Response<Full<Bytes>> {
        let (status, text) = match self.handle(request, peer).await {
            Ok(text) => (StatusCode::OK, text),
            Err(failure) => failure,
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }

    async fn handle(&self, request: Request<Incoming>, peer: Option<i32>) -> Result<String, Failure> {
        let names = values(request.uri().query().unwrap_or_default(), "name");
        let one = || names.first().cloned().ok_or((StatusCode::BAD_REQUEST, "no name is given".to_owned()));
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/images") => {
                let listed =
                    self.images.list_images(ListImagesRequest::default()).await.map_err(cri_failure)?;
                Ok(json(&listed.images.iter().map(Listed::from).collect::<Vec<_>>()))
            }
            (&Method::POST, "/images") => self.import(request, names, peer).await,
            (&Method::POST, "/pull") => {
                let image = ImageSpec { image: one()?, ..Default::default() };
                let request = PullImageRequest { image: Some(image), ..Default::default() };
                Ok(self.images.pull_image(request).await.map_err(cri_failure)?.image_ref)
            }
            (&Method::DELETE, "/images") => {
                let image = Some(ImageSpec { image: one()?, ..Default::default() });
                let status = ImageStatusRequest { image: image.clone(), verbose: false };
                if self.images.image_status(status).await.map_err(cri_failure)?.image.is_none() {
                    return Err((StatusCode::NOT_FOUND, "no such image".into()));
                }
                self.images.remove_image(RemoveImageRequest { image }).await.map_err(cri_failure)?;
                Ok(String::new())
            }
            (method, path) => Err((StatusCode::NOT_FOUND, format!("nothing answers {method} {path}"))),
        }
    }

    async fn import(
        &self,
        request: Request<Incoming>,
        names: Vec<String>,
        peer: Option<i32>,
    ) -> Result<String, Failure> {
        let images = self.embedded.clone().ok_or((
            StatusCode::NOT_IMPLEMENTED,
            "the node's container runtime is not the embedded one: import images with its own tool"
                .to_owned(),
        ))?;
        let options = ImportOptions { base_name: None, names };
        let descriptor = values(request.uri().query().unwrap_or_default(), "descriptor").pop();
        let imported = match descriptor {
            Some(descriptor) => {
                let file = opened(peer, &descriptor).ok_or((
                    StatusCode::FAILED_DEPENDENCY,
                    "that cannot be read in place: send it".to_owned(),
                ))?;
                tokio::task::spawn_blocking(move || images.import_file(file, &options)).await
            }
            None => {
                let body = request.into_body().into_data_stream().map_err(io::Error::other);
                let reader = SyncIoBridge::new(StreamReader::new(body));
                tokio::task::spawn_blocking(move || images.import_stream(reader, &options)).await
            }
        };
        match imported {
            Ok(Ok(images)) => {
                Ok(json(&images.iter().map(|image| Listed::from(&image.to_cri())).collect::<Vec<_>>()))
            }
            Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, error.to_string())),
            Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        }
    }
}

fn cri_failure(error: cri::Error) -> Failure {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

fn json(listed: &[Listed]) -> String {
    serde_json::to_string(listed).unwrap_or_default()
}

/// The file that a client has open, whatever it calls it and wherever it sees it. Whoever may speak here may read all that
/// this server may.
fn opened(peer: Option<i32>, descriptor: &str) -> Option<File> {
    let descriptor: u32 = descriptor.parse().ok()?;
    let path = format!("/proc/{}/fd/{descriptor}", peer?);
    // A pipe would wait to be opened.
    let is_file = std::fs::metadata(&path).is_ok_and(|meta| meta.is_file());
    if is_file { File::open(path).ok() } else { None }
}

/// The values of a key in a query.
fn values(query: &str, wanted: &str) -> Vec<String> {
    form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == wanted)
        .map(|(_, value)| value.into_owned())
        .collect()
}
