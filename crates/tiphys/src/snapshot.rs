//! `tiphys snapshot` and `tiphys store`: the cluster's state as a file, moved between engines, and verified.

use crate::cli::{SnapshotCommand, StoreCommand, StoreEngine, StoreFlags};
use crate::store::{egress, embedded_transform, open_etcd};
use anyhow::{Context as _, Result, bail};
use apiserver::handlers::Encodings;
use apiserver::resources::Resources;
use component::metrics::Registry;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::embedded::{Contents, FileReport, Options, Saved, verify};
use store::{Identity, Store as _, Transform};

/// Runs `tiphys snapshot …`.
pub(crate) fn run(command: SnapshotCommand) -> Result<()> {
    let plain: Arc<dyn Transform> = Arc::new(Identity);
    match command {
        SnapshotCommand::Save { file, find, storage } => {
            let directory = find.data_dir.join("store");
            match storage.store {
                // What is encrypted in the directory is so in the file.
                StoreEngine::Embedded => Saved::of_directory(&directory, &plain)?.to_file(&file, &plain)?,
                StoreEngine::Etcd => {
                    let (saved, kept) = of_etcd(&storage)?;
                    saved.to_file(&file, &kept)?
                }
            };
            show(&file.display().to_string(), &Saved::of_file(&file, &plain)?.contents())
        }
        SnapshotCommand::Restore { file, find, storage } => match storage.store {
            StoreEngine::Embedded => {
                let saved = Saved::of_file(&file, &plain)?;
                to_directory(&saved, &find.data_dir, &plain)
            }
            StoreEngine::Etcd => {
                let resources = Resources::new(api::table(), &[]);
                to_etcd(&Saved::of_file(&file, &embedded_transform(&storage, &resources)?)?, &storage)
            }
        },
        SnapshotCommand::Inspect { file } => {
            show(&file.display().to_string(), &Saved::of_file(&file, &plain)?.contents())
        }
    }
}

/// Runs `tiphys store …`.
pub(crate) fn run_store(command: StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Verify { find } => report(&find.data_dir.join("store")),
        StoreCommand::Move { to: StoreEngine::Etcd, find, storage } => {
            let resources = Resources::new(api::table(), &[]);
            let transform = embedded_transform(&storage, &resources)?;
            to_etcd(&Saved::of_directory(&find.data_dir.join("store"), &transform)?, &storage)
        }
        StoreCommand::Move { to: StoreEngine::Embedded, find, storage } => {
            let (saved, kept) = of_etcd(&storage)?;
            to_directory(&saved, &find.data_dir, &kept)
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    pki::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}

/// The state of an etcd at its newest revision, and what its values look like in our files.
fn of_etcd(flags: &StoreFlags) -> Result<(Saved, Arc<dyn Transform>)> {
    block_on(async {
        let resources = Resources::new(api::table(), &[]);
        let (store, _) =
            open_etcd(flags, &resources, Encodings::Standard, &egress(flags, &Registry::new())?).await?;
        let saved = Saved::of_store(&*store).await.context("reading the state")?;
        store.close().await;
        Ok((saved, embedded_transform(flags, &resources)?))
    })
}

fn to_etcd(saved: &Saved, flags: &StoreFlags) -> Result<()> {
    block_on(async {
        let (store, _) = open_etcd(
            flags,
            &Resources::new(api::table(), &[]),
            Encodings::Standard,
            &egress(flags, &Registry::new())?,
        )
        .await?;
        if store.stats().keys() > 0 {
            bail!(
                "etcd has keys below {} already: a state is carried into an empty one only",
                flags.etcd_prefix
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count =
            saved.into_store(&*store, u64::try_from(now.as_millis())?).await.context("writing to etcd")?;
        let revision = store.revision();
        store.close().await;
        writeln!(io::stdout(), "{count} keys written; etcd is at revision {revision}")?;
        Ok(())
    })
}

fn to_directory(saved: &Saved, data_dir: &Path, kept: &Arc<dyn Transform>) -> Result<()> {
    pki::files::private_dir(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    let directory = data_dir.join("store");
    saved.to_directory(&directory, Options::default().segment_bytes, kept)?;
    show(&directory.display().to_string(), &Saved::of_directory(&directory, kept)?.contents())
}

/// Prints what a state holds. Unlike `println!` it survives readers that have seen enough.
fn show(what: &str, contents: &Contents) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    writeln!(out, "revision  {}", contents.revision)?;
    writeln!(out, "keys      {}", contents.keys())?;
    writeln!(out, "bytes     {}", contents.bytes())?;
    writeln!(out, "events    {}", contents.events)?;
    for (prefix, (keys, bytes)) in contents.buckets.iter().filter(|(_, (keys, _))| *keys > 0) {
        writeln!(out, "{keys:>9} {bytes:>12}  {prefix}")?;
    }
    Ok(())
}

fn report(directory: &Path) -> Result<()> {
    let report = verify(directory)?;
    for file in &report.files {
        let state = match &file.damage {
            None => "ok".to_owned(),
            Some((offset, detail)) => format!("byte {offset}: {detail}"),
        };
        let FileReport { name, bytes, frames, .. } = file;
        writeln!(io::stdout(), "{name}  {bytes} bytes  {frames} frames  {state}")?;
    }
    match (report.opens, report.saves) {
        (Ok(contents), _) => show("the store opens", &contents),
        (Err(error), saves) => {
            if let Some(contents) = saves {
                show("what is before the damage", &contents)?;
            }
            Err(error).context("the store does not open")
        }
    }
}
