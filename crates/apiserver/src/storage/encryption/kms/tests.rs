//! A plugin on a socket, and values that go through it.

use super::*;
use crate::storage::encryption::generated::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use crate::storage::encryption::generated::{DecryptResponse, EncryptResponse, StatusResponse};
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::{Request, Response, Status};

/// Turns every byte round; its key's id is a number.
#[derive(Default)]
struct Plugin {
    key: AtomicUsize,
    decrypted: AtomicUsize,
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

#[tonic::async_trait]
impl KeyManagementService for Arc<Plugin> {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let key_id = self.key.load(Ordering::Relaxed).to_string();
        Ok(Response::new(StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let ciphertext = turned(&request.into_inner().plaintext);
        let key_id = self.key.load(Ordering::Relaxed).to_string();
        Ok(Response::new(EncryptResponse {
            ciphertext,
            key_id,
            annotations: [("a.b".into(), vec![1])].into(),
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.decrypted.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        if request.annotations.get("a.b") != Some(&vec![1]) {
            return Err(Status::invalid_argument("the annotations are not mine"));
        }
        Ok(Response::new(DecryptResponse { plaintext: turned(&request.ciphertext) }))
    }
}

fn serve(path: &std::path::Path) -> Arc<Plugin> {
    let plugin = Arc::new(Plugin::default());
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let service = KeyManagementServiceServer::new(plugin.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    plugin
}

fn configuration(path: &std::path::Path) -> Configuration {
    apimachinery::value::from_value(apimachinery::json!({
        "apiVersion": "v2", "name": "plugin", "endpoint": format!("unix://{}", path.display()), "timeout": "1s",
    }))
    .unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_are_the_plugins_and_values_are_ours() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("kms.sock");
    let plugin = serve(&path);
    let made = {
        let configuration = configuration(&path);
        blocking(move || Kms::new(&configuration).unwrap())
    };
    let kms = made.await;
    let kept = kms.encrypt(b"canary", b"/registry/secrets/a").unwrap();
    assert!(!kept.windows(6).any(|window| window == b"canary"));
    assert_eq!(kms.decrypt(&kept, b"/registry/secrets/a").unwrap(), (b"canary".to_vec(), false));
    assert!(kms.decrypt(&kept, b"/registry/secrets/b").is_err(), "a value belongs to its key");
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 0, "our own seed is known");
    // Another server has another seed, and asks the plugin once for ours; a new key makes the value stale.
    plugin.key.store(1, Ordering::Relaxed);
    let configuration = configuration(&path);
    let (other, kept) = blocking(move || {
        let other = Kms::new(&configuration).unwrap();
        for _ in 0..3 {
            let read = other.decrypt(&kept, b"/registry/secrets/a").unwrap();
            assert_eq!(read, (b"canary".to_vec(), true));
        }
        (other, kept)
    })
    .await;
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 1);
    drop((other, kept));
}

#[test]
fn without_a_plugin_writes_fail_and_configurations_are_read_strictly() {
    let home = tempfile::tempdir().unwrap();
    let kms = Kms::new(&configuration(&home.path().join("absent"))).unwrap();
    assert!(kms.encrypt(b"a", b"b").is_err() && kms.decrypt(b"", b"b").is_err());
    for (member, value, why) in [
        ("apiVersion", "v1", "use v2"),
        ("endpoint", "http://a", "must be unix"),
        ("timeout", "0s", "should be a positive value"),
    ] {
        let mut wrong = apimachinery::json!({ "apiVersion": "v2", "name": "a", "endpoint": "unix:///a" });
        wrong[member] = value.into();
        let error = Kms::new(&apimachinery::value::from_value(wrong).unwrap()).err().unwrap();
        assert!(error.0.contains(why), "{error}");
    }
}
