//! Asks for volumes that do not exist yet: of whoever the class names, which are others' programs.

use super::act::{Binder, Failure, migrate};
use super::plan::Tell;
use super::plugins::{self, Plugin};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::storage::v1::StorageClass;
use client::recorder::EventType;
use rules::volumes::Claim;

const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// Where a claim says who is to make its volume.
pub(super) const PROVISIONERS: [&str; 2] = [PROVISIONER, BETA_PROVISIONER];

fn failed(message: impl Into<String>) -> Option<Tell> {
    Some(Tell(EventType::Warning, "ProvisioningFailed", message.into()))
}

impl Binder {
    /// Upstream: `provisionClaim`.
    pub(super) async fn provision(&self, claim: PersistentVolumeClaim, facts: &Claim) -> Result<(), Failure> {
        let name = facts.class();
        let Some(class) = self.view.classes.named("", name) else {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            self.tell(&claim, failed(message));
            return Ok(());
        };
        let provisioner = &class.provisioner;
        let driver = plugins::driver_of(provisioner);
        let plugin = Plugin::named(provisioner);
        if driver.is_none() && plugins::is_ours(provisioner) && plugin != Some(Plugin::HostPath) {
            let message = match plugin {
                Some(_) => "no provisionable volume plugin matched".to_owned(),
                None => format!("no volume plugin matched name: {provisioner}"),
            };
            self.tell(&claim, failed(message));
            return Ok(());
        }
        self.metrics.begin(&facts.key(), driver.unwrap_or(provisioner), "provision");
        let asked = match plugin {
            Some(_) => self.provision_here(claim, &class.decode()?, facts).await,
            None => self.provision_outside(claim, driver.unwrap_or(provisioner)).await,
        };
        if asked.is_err() {
            self.metrics.done(&facts.key(), Err(()));
        }
        asked
    }

    /// Names the provisioner that is to make the volume.
    async fn provision_outside(&self, claim: PersistentVolumeClaim, who: &str) -> Result<(), Failure> {
        let claim = match self.set_provisioner(claim.clone(), who).await {
            Ok(claim) => claim,
            Err(error) => {
                self.tell(&claim, failed(format!("Error saving claim: {error}")));
                return Err(error);
            }
        };
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{who}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.tell(&claim, Some(Tell(EventType::Normal, "ExternalProvisioning", message)));
        Ok(())
    }

    /// Says why no directory of this machine is handed out: it would be of one node only, and so upstream has it off.
    async fn provision_here(
        &self,
        claim: PersistentVolumeClaim,
        class: &StorageClass,
        facts: &Claim,
    ) -> Result<(), Failure> {
        let who = Plugin::HostPath.name();
        if claim.spec.data_source.is_some() {
            let message = format!(
                "plugin {who:?} is not a CSI plugin. Only CSI plugin can provision a claim with a datasource"
            );
            self.tell(&claim, failed(message.as_str()));
            return Err(Failure::Other(message));
        }
        let claim = self.set_provisioner(claim, who).await?;
        let made = self.client.all::<PersistentVolume>().get_opt(&format!("pvc-{}", facts.uid)).await?;
        if made.is_some() {
            return Ok(());
        }
        if !class.mount_options.is_empty() {
            let message = format!(
                "Mount options are not supported by the provisioner but StorageClass {:?} has mount options [{}]",
                class.metadata.name,
                class.mount_options.join(" ")
            );
            self.tell(&claim, failed(message));
            return Err(Failure::Other(format!("provisioner {who:?} doesn't support mount options")));
        }
        let why = format!("provisioning in volume plugin {who:?} is disabled");
        self.tell(&claim, failed(format!("Failed to create provisioner: {why}")));
        Err(Failure::Other(why))
    }

    async fn set_provisioner(
        &self,
        mut claim: PersistentVolumeClaim,
        who: &str,
    ) -> Result<PersistentVolumeClaim, Failure> {
        let annotations = &mut claim.metadata.annotations;
        if annotations.get(PROVISIONER).is_some_and(|known| known == who) {
            return Ok(claim);
        }
        for key in PROVISIONERS {
            annotations.insert(key.into(), who.into());
        }
        migrate(annotations, &PROVISIONERS);
        self.save_claim(&claim).await
    }
}
