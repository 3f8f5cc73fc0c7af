//! Pulling from a real registry: Debian's docker-registry, whose directory is written beforehand (its layout is the
//! registry's own), plain and with TLS and passwords, with a proxy in between that breaks connections. Root, as images
//! are unpacked with their owners.
#![allow(clippy::unwrap_used)]

use runtime::images::registry::{Credentials, Registries, RegistriesFile};
use runtime::images::{Digest, Images, Limits, manifest};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `jason:fleece`, hashed as htpasswd does.
const PASSWORDS: &str = "jason:$2b$04$y8Rq2u4XHtHKxFi82HLZDuev4oIhJbUbpLBFzrrVbdZa1Y/VMu8Fu\n";

/// A registry that runs, and its directory.
struct Registry {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    address: SocketAddr,
}

impl Registry {
    /// One that does not serve yet.
    fn new() -> Registry {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Registry { dir: tempfile::tempdir().unwrap(), daemon: None, address }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("docker/registry/v2")
    }

    fn write(&self, path: PathBuf, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn data(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root().join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Stores a blob of a repository.
    fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.write(self.data(&digest), bytes);
        let link = self.root().join("repositories").join(name).join("_layers/sha256").join(digest.hex());
        self.write(link.join("link"), digest.as_str().as_bytes());
        digest
    }

    /// Stores a manifest, under a tag or none.
    fn manifest(&self, name: &str, tag: Option<&str>, document: &serde_json::Value) -> (Digest, usize) {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        self.write(self.data(&digest), &bytes);
        let manifests = self.root().join("repositories").join(name).join("_manifests");
        let link = digest.as_str().as_bytes();
        self.write(manifests.join("revisions/sha256").join(digest.hex()).join("link"), link);
        if let Some(tag) = tag {
            self.write(manifests.join("tags").join(tag).join("current/link"), link);
            self.write(
                manifests.join("tags").join(tag).join("index/sha256").join(digest.hex()).join("link"),
                link,
            );
        }
        (digest, bytes.len())
    }

    /// An image of these layers (compressed, and what they are uncompressed), behind an index for several machines.
    fn image(&self, name: &str, tag: &str, layers: &[(Vec<u8>, &str, Digest)]) -> Digest {
        let config = serde_json::json!({
            "os": "linux", "architecture": manifest::architecture(), "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(_, _, diff)| diff.as_str()).collect::<Vec<_>>()},
        });
        let config = config.to_string().into_bytes();
        let described = layers.iter().map(|(bytes, kind, _)| {
            let digest = self.blob(name, bytes);
            serde_json::json!({"mediaType": kind, "digest": digest.as_str(), "size": bytes.len()})
        });
        let described: Vec<_> = described.collect();
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.blob(name, &config).as_str(), "size": config.len()},
        });
        let (digest, size) = self.manifest(name, None, &document);
        let other = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "config": document["config"]});
        let (foreign, foreign_size) = self.manifest(name, None, &other);
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": MANIFEST, "digest": foreign.as_str(), "size": foreign_size, "platform": {"os": "plan9", "architecture": "mips"}},
            {"mediaType": MANIFEST, "digest": digest.as_str(), "size": size, "platform": {"os": "linux", "architecture": manifest::architecture()}},
        ]});
        self.manifest(name, Some(tag), &index).0
    }

    /// Serves; `more` are further lines of its configuration.
    fn serve(&mut self, http: &str, more: &str) {
        let (dir, address) = (self.dir.path().display(), self.address);
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {dir}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'{http}}}\n{more}"
        );
        let path = self.dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut daemon = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(daemon.stderr.take().unwrap());
        self.daemon = Some(daemon);
        let mut said = String::new();
        while !said.contains("listening on") {
            let count = stderr.read_line(&mut said).unwrap();
            assert!(count > 0, "the registry does not start: {said}");
        }
        // Whatever it goes on to say must not hold it up.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A layer with one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    layer.append_data(&mut header, name, content).unwrap();
    layer.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer of each kind that there is.
fn layers() -> Vec<(Vec<u8>, &'static str, Digest)> {
    let (a, b, c) = (tar("a", b"gzip"), tar("b", b"zstd"), tar("c", b"plain"));
    vec![
        (gzip(&a), "application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(&a)),
        (zstd::encode_all(&b[..], 3).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd", Digest::of(&b)),
        (c.clone(), "application/vnd.oci.image.layer.v1.tar", Digest::of(&c)),
    ]
}

fn store(dir: &Path, registries: &str) -> Arc<Images> {
    let file = RegistriesFile::parse(registries).unwrap();
    Arc::new(Images::open(dir, Limits::default(), Registries::new(file), HashMap::new()).unwrap())
}

/// The content of all files at the top of an image.
fn files(images: &Images, image: &runtime::images::Image) -> Vec<String> {
    let mut out = Vec::new();
    for dir in images.lower_dirs(image) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            out.push(format!("{}={text}", entry.file_name().to_str().unwrap()));
        }
    }
    out.sort();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn root_pulls_by_tag_digest_and_mirror() {
    let mut registry = Registry::new();
    let index = registry.image("crew/argo", "1.0", &layers());
    registry.serve("", "");
    let dir = tempfile::tempdir().unwrap();
    let images = store(&dir.path().join("plain"), "");
    let at = registry.address;
    let want = ["a=gzip", "b=zstd", "c=plain"];
    let pulled = images.pull(&format!("{at}/crew/argo:1.0"), None).await.unwrap();
    assert_eq!(files(&images, &pulled), want);
    assert_eq!(pulled.digests.iter().collect::<Vec<_>>(), [&format!("{at}/crew/argo@{index}")]);
    // By digest it is the same image; a digest that is not the content's is nobody's.
    let same = images.pull(&format!("{at}/crew/argo@{index}"), None).await.unwrap();
    assert_eq!(same.id, pulled.id);
    for absent in [
        format!("{at}/crew/argo:2.0"),
        format!("{at}/nobody:1"),
        format!("{at}/crew/argo@sha256:{}", "0".repeat(64)),
    ] {
        let error = images.pull(&absent, None).await.unwrap_err().to_string();
        assert!(error.contains("not found"), "{absent}: {error}");
    }
    // The first mirror is down, the second has it; the registry itself is never asked.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mirrors =
        format!("mirrors: {{registry.example: {{endpoint: ['http://{nobody}', 'http://{at}/v2']}}}}");
    let images = store(&dir.path().join("mirrored"), &mirrors);
    let pulled = images.pull("registry.example/crew/argo:1.0", None).await.unwrap();
    assert_eq!(files(&images, &pulled), want);
    assert!(pulled.tags.contains("registry.example/crew/argo:1.0"), "{:?}", pulled.tags);
    // What a registry gives that is not what it promised is not kept.
    let bytes = gzip(&tar("x", b"good"));
    let digest = registry.blob("crew/bad", &bytes);
    registry.image(
        "crew/bad",
        "1",
        &[(bytes.clone(), "application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(&tar("x", b"good")))],
    );
    let mut forged = bytes;
    let last = forged.len() - 9;
    forged[last] ^= 1;
    std::fs::write(registry.data(&digest), forged).unwrap();
    let images = store(&dir.path().join("forged"), "");
    let error = images.pull(&format!("{at}/crew/bad:1"), None).await.unwrap_err().to_string();
    assert!(error.contains("digest") || error.contains(digest.as_str()), "{error}");
    assert_eq!(std::fs::read_dir(images.dir().join("ingest")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_asks_for_certificates_and_passwords() {
    let mut registry = Registry::new();
    registry.image("crew/argo", "1.0", &layers());
    let file = |name: &str| registry.dir.path().join(name);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=registry", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(file("tls.key"))
        .arg("-out")
        .arg(file("tls.crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(file("passwords"), PASSWORDS).unwrap();
    let (certificate, secret, passwords) = (file("tls.crt"), file("tls.key"), file("passwords"));
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), secret.display());
    registry.serve(&tls, &format!("auth: {{htpasswd: {{realm: sea, path: {}}}}}\n", passwords.display()));
    let at = registry.address;
    let dir = tempfile::tempdir().unwrap();
    let mirror = format!("mirrors: {{'{at}': {{endpoint: ['https://{at}']}}}}\n");
    let tls = format!("tls: {{ca_file: {}}}", certificate.display());
    let with = |config: &str| format!("{mirror}configs: {{'{at}': {{{config}}}}}");
    let name = format!("{at}/crew/argo:1.0");
    let given = |password: &str| {
        Some(Credentials { username: "jason".into(), password: password.into(), ..Default::default() })
    };
    for (number, (config, credentials, outcome)) in [
        (mirror.clone(), given("fleece"), Err("certificate")),
        (with(&tls), None, Err("401")),
        (with(&tls), given("wool"), Err("401")),
        (with(&tls), given("fleece"), Ok(())),
        (with(&format!("{tls}, auth: {{username: jason, password: fleece}}")), None, Ok(())),
        (with("tls: {insecure_skip_verify: true}, auth: {username: jason, password: fleece}"), None, Ok(())),
    ]
    .into_iter()
    .enumerate()
    {
        let images = store(&dir.path().join(number.to_string()), &config);
        match (images.pull(&name, credentials).await, outcome) {
            (Ok(image), Ok(())) => assert_eq!(files(&images, &image).len(), 3),
            (Err(error), Err(word)) => {
                let text = error.to_string().to_lowercase();
                let known = text.contains(word) || (word == "401" && text.contains("authoriz"));
                assert!(known, "{config}: {text}");
                assert!(!text.contains("wool"), "{text}");
            }
            (outcome, _) => panic!("{config}: {outcome:?}"),
        }
    }
}

/// Passes connections on, and breaks the first few that bring more than a limit.
fn breaking(to: SocketAddr, breaks: u64, limit: usize, sent: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicU64::new(breaks));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (left, sent) = (left.clone(), sent.clone());
            std::thread::spawn(move || {
                let server = TcpStream::connect(to).unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up, &mut down));
                let (mut server, mut client, mut count) = (server, client, 0);
                let mut buffer = [0; 16 << 10];
                while let Ok(length) = server.read(&mut buffer) {
                    if length == 0 || client.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                    count += length;
                    sent.fetch_add(length as u64, Ordering::SeqCst);
                    let one_less = |left: u64| left.checked_sub(1);
                    if count > limit
                        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
                    {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn root_goes_on_where_a_connection_broke() {
    let mut registry = Registry::new();
    // Nothing that compresses.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(4 << 20)
    .collect();
    let layer = tar("noise", &noise);
    let size = layer.len() as u64;
    registry.image(
        "big",
        "1",
        &[(layer.clone(), "application/vnd.oci.image.layer.v1.tar", Digest::of(&layer))],
    );
    registry.serve("", "");
    let sent = Arc::new(AtomicU64::new(0));
    let through = breaking(registry.address, 2, 1 << 20, sent.clone());
    let dir = tempfile::tempdir().unwrap();
    let images = store(&dir.path().join("images"), "");
    let pulled = images.pull(&format!("{through}/big:1"), None).await.unwrap();
    let top = images.lower_dirs(&pulled).remove(0);
    assert!(std::fs::read(top.join("noise")).unwrap() == noise);
    // Twice broken after a megabyte, and yet nothing came twice but what was under way.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < size + size / 4, "{sent} bytes for a layer of {size}");
}
