//! Where certificates are kept, each with its key in one file: `<name>-<time>.pem`, and `<name>-current.pem`, a link to the
//! newest. Upstream: `certificate_store.go`, whose layout this is.

use super::Error;
use apimachinery::time::Timestamp;
use pki::Identity;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

pub(super) struct Store {
    directory: PathBuf,
    name: &'static str,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Store { path: path.clone(), source }
}

impl Store {
    pub(super) fn new(directory: &Path, name: &'static str) -> Self {
        Store { directory: directory.to_owned(), name }
    }

    fn file(&self, which: &str) -> PathBuf {
        self.directory.join(format!("{}-{which}.pem", self.name))
    }

    /// The newest pair, or that of two files which another put there.
    pub(super) fn current(&self) -> Result<Option<Identity>, Error> {
        let (current, updated) = (self.file("current"), self.file("updated"));
        if !current.exists() && updated.is_symlink() {
            // The kubelet was killed between the two.
            std::fs::rename(&updated, &current).map_err(failed(&current))?;
        }
        if let Some(pair) = pki::files::read_if_present(&current)? {
            return Ok(Some(Identity::from_pem(&pair, &pair)?));
        }
        let read =
            |kind: &str| pki::files::read_if_present(&self.directory.join(format!("{}.{kind}", self.name)));
        match (read("crt")?, read("key")?) {
            (Some(certificate), Some(key)) => Ok(Some(Identity::from_pem(&certificate, &key)?)),
            _ => Ok(None),
        }
    }

    /// Keeps a pair, as the newest. A crash leaves the one before or this one.
    pub(super) fn update(&self, certificate: &str, key: &str) -> Result<Identity, Error> {
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
        std::fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        let now = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
        let (path, updated, current) =
            (self.file(&now.to_string()), self.file("updated"), self.file("current"));
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(certificate.as_bytes())?;
            file.write_all(key.as_bytes())?;
            file.sync_all()
        };
        write().map_err(failed(&path))?;
        let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|known| !known.is_symlink());
        for link in [&current, &updated] {
            if is_file(link) {
                let error = format!("expected {:?} to be a symlink but it is a file", link.display());
                return Err(failed(link)(io::Error::other(error)));
            }
        }
        match std::fs::remove_file(&updated) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&updated)(error)),
            _ => {}
        }
        let before = std::fs::read_link(&current).ok();
        symlink(std::path::absolute(&path).map_err(failed(&path))?, &updated).map_err(failed(&updated))?;
        std::fs::rename(&updated, &current).map_err(failed(&current))?;
        self.forget(before.as_deref());
        Ok(identity)
    }

    /// Removes all pairs but the current one and the one before: they would pile up (upstream leaves them).
    fn forget(&self, before: Option<&Path>) {
        let current = std::fs::read_link(self.file("current")).ok();
        let kept = [current.as_deref(), before].map(|path| path.and_then(Path::file_name));
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let of_time = text.strip_prefix(self.name).is_some_and(|rest| rest.starts_with("-2"));
            if of_time && text.ends_with(".pem") && !kept.contains(&Some(&*name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    #[test]
    fn the_newest_counts_whatever_happened_between() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("pki"), "kubelet-server");
        assert!(store.current().unwrap().is_none());
        let ca = pki::Authority::create("ca", Duration::from_secs(3600), Timestamp::now()).unwrap();
        let issue = || {
            let profile = pki::Profile::client(pki::Subject::new("a", &[]), Duration::from_secs(60));
            ca.issue(&profile, Timestamp::now()).unwrap()
        };
        let put = |identity: &Identity| {
            store.update(&identity.certificate.to_pem(), &identity.key.to_pem()).unwrap()
        };
        let serial = || store.current().unwrap().unwrap().certificate.serial;
        let old = store.file("2020-01-01-00-00-00");
        let (first, second) = (issue(), issue());
        put(&first);
        assert_eq!(serial(), first.certificate.serial);
        let mode = std::fs::metadata(store.file("current")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&old, "").unwrap();
        put(&second);
        assert_eq!(serial(), second.certificate.serial);
        assert!(!old.exists());
        // Killed when the old link was gone and the new one not yet in its place, as upstream's store may be.
        std::fs::rename(store.file("current"), store.file("updated")).unwrap();
        assert_eq!(serial(), second.certificate.serial);
        // A key that is not the certificate's changes nothing.
        assert!(store.update(&first.certificate.to_pem(), &second.key.to_pem()).is_err());
        assert_eq!(serial(), second.certificate.serial);
    }
}
