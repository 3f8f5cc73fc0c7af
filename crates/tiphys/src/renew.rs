//! A server's own certificates, renewed while it runs: made anew in their directory when they are due, and shown from the
//! next handshake on.

use anyhow::{Context as _, Result};
use pki::bundle::Params;
use pki::tls::Slot;
use pki::{Bundle, Identity};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether one is due: they live for ninety days, and are due thirty before their end.
const LOOK: Duration = Duration::from_secs(12 * 3600);

/// Where a certificate of the bundle is shown.
pub(crate) type Place = (fn(&Bundle) -> &Identity, Arc<Slot>);

/// See the module.
pub(crate) struct Renew {
    pub directory: PathBuf,
    pub params: Params,
    pub places: Vec<Place>,
    /// The server's URL, and the administrator's kubeconfigs.
    pub url: String,
    pub kubeconfigs: Vec<PathBuf>,
}

impl Renew {
    /// Makes anew what is due at a time, and shows it. Returns the names of what was made.
    fn look(&self, now: apimachinery::time::Timestamp) -> Result<Vec<&'static str>> {
        let bundle =
            Bundle::ensure_at(&self.directory, &self.params, now).context("preparing certificates")?;
        if !bundle.renewed.is_empty() {
            for (pick, slot) in &self.places {
                slot.set(pick(&bundle)).context("showing a certificate")?;
            }
        }
        if bundle.renewed.contains(&"admin") {
            let kubeconfig = bundle.kubeconfig(&self.url, &bundle.admin);
            for path in &self.kubeconfigs {
                kubeconfig.save(path).with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(bundle.renewed)
    }

    /// Looks until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match self.look(apimachinery::time::Timestamp::now()) {
                Ok(renewed) if renewed.is_empty() => {}
                Ok(renewed) => tracing::info!(?renewed, "certificates were renewed"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "certificates were not renewed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::time::Timestamp;

    #[test]
    fn what_is_due_is_made_anew_and_shown() {
        let directory = tempfile::tempdir().unwrap();
        let params = Params::new("n", &[[10, 0, 0, 1].into()], &[[10, 96, 0, 1].into()]);
        let began = Timestamp::now();
        let bundle = Bundle::ensure_at(directory.path(), &params, began).unwrap();
        let slot = Slot::of(&bundle.apiserver).unwrap();
        let renew = Renew {
            directory: directory.path().into(),
            params,
            places: vec![(|bundle| &bundle.apiserver, slot.clone())],
            url: "https://127.0.0.1:6443".into(),
            kubeconfigs: vec![directory.path().join("admin.kubeconfig")],
        };
        let after = |days: u64| began + Duration::from_secs(days * 86_400);
        assert_eq!(renew.look(after(59)).unwrap(), Vec::<&str>::new());
        assert_eq!(slot.not_after().unwrap().as_second(), after(90).as_second());
        let renewed = renew.look(after(61)).unwrap();
        assert!(renewed.contains(&"apiserver") && !renewed.contains(&"ca"), "{renewed:?}");
        assert_eq!(slot.not_after().unwrap().as_second(), after(151).as_second());
        assert!(!renew.kubeconfigs[0].exists());
        assert!(renew.look(after(250)).unwrap().contains(&"admin"));
        assert!(renew.kubeconfigs[0].exists());
    }
}
