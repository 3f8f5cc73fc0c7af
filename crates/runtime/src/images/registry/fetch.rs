//! Fetches layers into files: three at a time, resumed after a break, hashed as they come in.

use super::super::error::{Error, Result};
use super::super::manifest::Descriptor;
use super::super::snapshots::LayerBlob;
use super::super::{Digest, digest::Hasher};
use super::Pull;
use super::http::{Session, next_piece};
use crate::keyed::Keyed;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{StatusCode, header};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// As containerd's and Docker's default.
const PARALLEL: usize = 3;
const ATTEMPTS: u32 = 5;

impl Pull {
    /// The layers, each with its diff_id, as files in `dir` named by their digest.
    pub(crate) async fn fetch_layers(
        &self,
        layers: &[(Descriptor, Digest)],
        dir: &Path,
        turns: &Keyed,
    ) -> Result<Vec<LayerBlob>> {
        let fetch = |(layer, diff_id): (Descriptor, Digest)| async move {
            // Another image may have the same layer.
            let _turn = turns.lock(layer.digest.as_str()).await;
            let file = fetch_with_retries(&self.session, &layer, dir.join(layer.digest.hex())).await?;
            // The content has been checked on the way in.
            Ok::<_, Error>(LayerBlob {
                file: Arc::new(file),
                offset: 0,
                size: layer.size,
                digest: None,
                diff_id,
            })
        };
        // Owned copies: an iterator of borrowed pairs is not general enough for `buffered`.
        stream::iter(layers.to_vec()).map(fetch).buffered(PARALLEL).try_collect().await
    }
}

async fn fetch_with_retries(session: &Session, layer: &Descriptor, path: PathBuf) -> Result<File> {
    let mut attempt = 1;
    loop {
        match fetch(session, layer, path.clone()).await {
            Err(Error::Registry(why)) if attempt < ATTEMPTS => {
                tracing::warn!(layer = %layer.digest, attempt, %why, "fetching a layer failed; trying again");
                tokio::time::sleep(Duration::from_millis(500) * 2u32.pow(attempt - 1)).await;
                attempt += 1;
            }
            Err(error) => {
                if !matches!(error, Error::Registry(_)) {
                    // What is there is wrong: it may not be resumed.
                    let _ = std::fs::remove_file(&path);
                }
                return Err(error);
            }
            file => return file,
        }
    }
}

/// What a broken attempt has left, and its hash so far.
struct Partial {
    file: File,
    hasher: Hasher,
    length: u64,
}

fn open_partial(path: &Path, limit: u64) -> io::Result<Partial> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() > limit {
        file.set_len(0)?;
    }
    let (mut hasher, mut length, mut buffer) = (Hasher::default(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Partial { file, hasher, length }),
            count => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Error::Invalid(e.to_string()))?.map_err(Error::io("writing a layer"))
}

async fn fetch(session: &Session, layer: &Descriptor, path: PathBuf) -> Result<File> {
    let size = layer.size;
    linux::steps::step("fetching a layer");
    let mut partial = blocking(move || open_partial(&path, size)).await?;
    if partial.length < size {
        let range = format!("bytes={}-", partial.length);
        let headers = [(header::RANGE, range.as_str())];
        let headers = if partial.length > 0 { &headers[..] } else { &[] };
        let response = session.get(&Session::blob_path(&layer.digest), headers).await?;
        if partial.length > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            partial = blocking(move || restart(partial)).await?;
        }
        let mut body = response.into_body();
        let (to, from) = mpsc::channel::<Bytes>(16);
        let writer = tokio::task::spawn_blocking(move || write(partial, from, size));
        let received = loop {
            match next_piece(&mut body).await {
                Ok(Some(piece)) => {
                    if to.send(piece).await.is_err() {
                        // The writer has given up, and says why.
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(to);
        let written = writer.await.map_err(|e| Error::Invalid(e.to_string()))?;
        partial = written.map_err(Error::io("writing a layer"))?;
        received?;
    }
    if partial.length < size {
        return Err(Error::Registry(format!("layer ended after {} of {size} bytes", partial.length)));
    }
    let actual = partial.hasher.finish();
    match actual == layer.digest {
        true => Ok(partial.file),
        false => Err(Error::DigestMismatch { what: "layer".into(), expected: layer.digest.clone(), actual }),
    }
}

fn restart(partial: Partial) -> io::Result<Partial> {
    let mut file = partial.file;
    file.set_len(0)?;
    io::Seek::rewind(&mut file)?;
    Ok(Partial { file, hasher: Hasher::default(), length: 0 })
}

fn write(mut partial: Partial, mut from: mpsc::Receiver<Bytes>, limit: u64) -> io::Result<Partial> {
    while let Some(piece) = from.blocking_recv() {
        partial.length += piece.len() as u64;
        if partial.length > limit {
            return Err(Error::TooLarge { what: "layer".into(), limit }.into());
        }
        linux::steps::step("writing a piece of a layer");
        partial.hasher.update(&piece);
        partial.file.write_all(&piece)?;
    }
    Ok(partial)
}
