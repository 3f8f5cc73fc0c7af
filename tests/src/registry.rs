//! Debian's docker-registry in the cluster's network namespace, with one image, for those who know the password. Its
//! directory is written beforehand: the layout is the registry's own.

use crate::cluster::image;
use crate::net::Net;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// Who may pull.
pub const USER: &str = "jason";
/// The user's.
pub const PASSWORD: &str = "fleece";
/// Both, hashed as htpasswd does.
const PASSWORDS: &str = "jason:$2b$04$y8Rq2u4XHtHKxFi82HLZDuev4oIhJbUbpLBFzrrVbdZa1Y/VMu8Fu\n";

/// A registry that runs.
#[derive(Debug)]
pub struct Registry(Child);

impl Registry {
    /// Starts one in a directory; it has busybox as `name:tag`.
    pub fn start(net: &Net, dir: &Path, name: &str, tag: &str) -> Registry {
        Registry::start_of(net, dir, "busybox", name, tag)
    }

    /// The same with another image.
    pub fn start_of(net: &Net, dir: &Path, of: &str, name: &str, tag: &str) -> Registry {
        let (layout, root) = (dir.join("layout"), dir.join("root/docker/registry/v2"));
        std::fs::create_dir_all(&layout).unwrap();
        let unpacked = Command::new("tar").arg("-xf").arg(image(of)).arg("-C").arg(&layout).status();
        assert!(unpacked.unwrap().success());
        let repository = root.join("repositories").join(name);
        let link = |at: &Path, digest: &str| {
            std::fs::create_dir_all(at).unwrap();
            std::fs::write(at.join("link"), digest).unwrap();
        };
        for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            let hex = blob.file_name().into_string().unwrap();
            let to = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(blob.path(), to.join("data")).unwrap();
            link(&repository.join("_layers/sha256").join(&hex), &format!("sha256:{hex}"));
        }
        let index = std::fs::read(layout.join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let manifests = repository.join("_manifests");
        link(&manifests.join("revisions/sha256").join(hex), digest);
        link(&manifests.join("tags").join(tag).join("current"), digest);
        link(&manifests.join("tags").join(tag).join("index/sha256").join(hex), digest);
        Registry::serve(net, dir)
    }

    fn serve(net: &Net, dir: &Path) -> Registry {
        let passwords = dir.join("passwords");
        std::fs::write(&passwords, PASSWORDS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/root}}}}\nhttp: {{addr: '{ADDRESS}'}}\nauth: {{htpasswd: {{realm: crew, path: {}}}}}\n",
            dir.display(),
            passwords.display()
        );
        let path = dir.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = net.command("docker-registry");
        command.arg("serve").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = command.spawn().unwrap();
        let mut stderr = BufReader::new(daemon.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening on") {
            let count = stderr.read_line(&mut said).unwrap();
            assert!(count > 0, "the registry does not start: {said}");
        }
        // Whatever it goes on to say must not hold it up.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Registry(daemon)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
