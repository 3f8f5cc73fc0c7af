//! HTTP as a client of Services sees it: a new connection for every request.

use crate::net::Net;
use crate::patiently;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The body of `GET /`, from the namespace of the calling thread.
pub fn get(address: SocketAddr) -> io::Result<String> {
    get_at(address, "/")
}

/// The body of a path.
pub fn get_at(address: SocketAddr, path: &str) -> io::Result<String> {
    let patience = patiently(Duration::from_secs(5));
    let mut connection = TcpStream::connect_timeout(&address, patience)?;
    connection.set_read_timeout(Some(patience))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200") => {
            Ok(body.to_owned())
        }
        _ => Err(io::Error::other(format!("an answer of {} bytes: {answer:.200}", answer.len()))),
    }
}

/// Requests one after another, until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Outcome>>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answers: Vec<String>,
    pub failures: Vec<String>,
}

impl Load {
    pub fn on(net: &Net, address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, net) = (stop.clone(), net.clone());
        let thread = std::thread::spawn(move || {
            net.inside(|| {
                let mut outcome = Outcome::default();
                while !stopped.load(Ordering::Relaxed) {
                    match get(address) {
                        Ok(body) => outcome.answers.push(body),
                        Err(error) => outcome.failures.push(error.to_string()),
                    }
                }
                outcome
            })
        });
        Load { stop, thread: Some(thread) }
    }

    /// Ends it; not one request may have failed.
    pub fn finish(mut self) -> Vec<String> {
        let outcome = self.end();
        let (answers, failures) = (outcome.answers, outcome.failures);
        assert!(
            failures.is_empty() && !answers.is_empty(),
            "{} of {} requests failed: {:?}",
            failures.len(),
            failures.len() + answers.len(),
            failures.first()
        );
        answers
    }

    fn end(&mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks until the answer is as wanted. The kernel tells nobody when a Service's packets have their new way: it is asked.
#[track_caller]
pub fn until(
    net: &Net,
    address: SocketAddr,
    mut wanted: impl FnMut(&io::Result<String>) -> bool + Send,
) -> Duration {
    let began = std::time::Instant::now();
    let last = net.inside(|| {
        loop {
            let answer = get(address);
            if wanted(&answer) {
                return None;
            }
            if began.elapsed() > crate::patience() {
                return Some(answer);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(last.is_none(), "{address} never answered as wanted: {last:?}");
    began.elapsed()
}
