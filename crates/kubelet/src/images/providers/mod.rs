//! Credential providers: programs of the node that know credentials for images. Upstream: `pkg/credentialprovider/plugin`.

mod config;
mod exec;
mod provider;
#[cfg(test)]
mod tests;

use super::keyring::{Credential, Keyring};
use crate::config::CredentialProviders;
use crate::metrics::Metrics;
use api::core::v1::Pod;
use client::Client;
use provider::Provider;

/// Those that were configured, in that order.
#[derive(Default)]
pub(crate) struct Providers(Vec<Provider>);

impl Providers {
    /// Reads the configuration and looks for the programs; what is wrong with either is a reason not to start.
    pub(crate) fn load(
        flags: &CredentialProviders,
        client: &Client,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        if flags.is_empty() {
            return Ok(Providers::default());
        }
        let bin_dir = flags.bin_dir.clone().unwrap_or_default();
        match std::fs::metadata(&bin_dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("plugin binary directory {} did not exist", bin_dir.display()));
            }
            Err(error) => {
                return Err(format!("error inspecting binary directory {}: {error}", bin_dir.display()));
            }
            Ok(_) => {}
        }
        let (config, hash) = config::read(&flags.config.clone().unwrap_or_default())?;
        if let Some(errors) = config::validate(&config).aggregate() {
            return Err(format!("failed to validate credential provider config: {errors}"));
        }
        metrics.credential_provider_config.with(&[&hash]).set(1.0);
        let providers = config.providers.into_iter().map(|provider| {
            exec::find(&bin_dir, &provider.name)?;
            Ok(Provider::new(provider, &bin_dir, client.clone(), metrics.clone()))
        });
        Ok(Providers(providers.collect::<Result<_, String>>()?))
    }

    /// What they say of an image, which has neither tag nor digest.
    pub(crate) async fn lookup(&self, pod: &Pod, image: &str) -> Vec<Credential> {
        let mut keyring = Keyring::default();
        for provider in &self.0 {
            match provider.provide(pod, image).await {
                Ok((logins, source)) => {
                    for (place, auth) in logins.iter() {
                        keyring.add(place, Credential { auth: auth.clone(), source: source.clone() });
                    }
                }
                // Somebody else may know some, or the image may need none.
                Err(error) => {
                    let (provider, pod) = (provider.name(), crate::labels::format_pod(pod));
                    tracing::error!(provider, image, %pod, error, "Failed to provide credentials for image");
                }
            }
        }
        keyring.lookup(image)
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.iter().for_each(|provider| provider.forget(uid));
    }
}
