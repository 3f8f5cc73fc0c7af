//! What is remembered of each sandbox: one small JSON file, written whole and synced before anything is made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::PortMapping;

/// A sandbox as remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) netns: PathBuf,
    pub(crate) ips: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) port_mappings: Vec<PortMapping>,
    pub(crate) by: By,
}

/// Who made the network, and so who must unmake it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum By {
    BuiltIn {
        interface: String,
    },
    /// The configuration list as it was when the sandbox was made: a later one may name other plugins.
    #[serde(rename_all = "camelCase")]
    Plugins {
        list: serde_json::Value,
        result: Option<serde_json::Value>,
    },
}

/// The directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, id: &str) -> io::Result<PathBuf> {
        let fine = !id.is_empty()
            && id.len() <= 200
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !fine || id.starts_with('.') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("sandbox id {id:?}")));
        }
        Ok(self.dir.join(format!("{id}.json")))
    }

    /// Every readable record. A file that a crash left half-written has another ending and is removed.
    pub(crate) fn load(&self) -> io::Result<Vec<Record>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => match serde_json::from_slice(&fs::read(&path)?) {
                    Ok(record) => out.push(record),
                    Err(error) => {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("{}: {error}", path.display()),
                        ));
                    }
                },
                Some("tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(out)
    }

    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        linux::steps::step("writing down an address");
        let path = self.path(&record.id)?;
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_data()?;
        linux::steps::step("putting an address's record in its place");
        fs::rename(&temporary, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        linux::steps::step("forgetting an address");
        match fs::remove_file(self.path(id)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
