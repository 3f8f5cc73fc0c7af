//! Configuration files that are followed: read anew when they change. One that cannot be used changes nothing.

use anyhow::Result;
use futures::future::BoxFuture;
use kubelet::file_watch::{FileWatch, WatchFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// When a text that could not be used yet is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// What became of a new text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in use, or never will be.
    Settled,
    /// It may be of use later.
    Again,
}

/// Who uses a file.
pub(crate) trait User: Send {
    /// Takes a new text into use.
    fn apply<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Outcome>;
    /// The file cannot be read.
    fn unreadable(&mut self, error: &std::io::Error);
}

/// See the module.
pub(crate) struct Follow<U> {
    path: PathBuf,
    watch: FileWatch,
    known: String,
    user: U,
}

impl<U: User> Follow<U> {
    /// Follows a file whose text is in use.
    pub(crate) fn new(path: &Path, text: &str, user: U) -> Result<Self> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The directory: files are replaced by renames, and those of Secrets by a rename of a link beside them.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        let watch = FileWatch::new(&[(directory, flags)])?;
        Ok(Follow { path: path.to_owned(), watch, known: text.to_owned(), user })
    }

    /// Goes on until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut outcome = Outcome::Settled;
        loop {
            let again = async {
                match outcome {
                    Outcome::Again => tokio::time::sleep(AGAIN).await,
                    Outcome::Settled => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = again => {}
                changed = self.watch.changed() => if let Err(error) = changed {
                    tracing::error!(path = %self.path.display(), %error, "a configuration file is no longer watched");
                    return;
                },
            }
            let text = match tokio::fs::read_to_string(&self.path).await {
                Ok(text) => text,
                Err(error) => {
                    self.user.unreadable(&error);
                    outcome = Outcome::Again;
                    continue;
                }
            };
            if text == self.known {
                outcome = Outcome::Settled;
                continue;
            }
            outcome = self.user.apply(&text).await;
            if outcome == Outcome::Settled {
                self.known = text;
            }
        }
    }
}
