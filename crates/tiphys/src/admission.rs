//! The flags of admission: which plugins run, and how they are configured.

use anyhow::{Result, bail};
use apimachinery::field::aggregate;
use apiserver::admission::Options;
use std::path::PathBuf;

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AdmissionFlags {
    /// Admission plugins that should be enabled in addition to default enabled ones; comma separated, in any order.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that should be disabled although they are in the default enabled plugins list; comma separated, in
    /// any order.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Deprecated: use --enable-admission-plugins or --disable-admission-plugins. The only admission plugins that run; comma
    /// separated, in any order.
    #[arg(long, value_delimiter = ',')]
    admission_control: Vec<String>,
    /// File with admission control configuration.
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// Indicates the tolerationSeconds of the toleration for notReady:NoExecute that is added by default to every pod that
    /// does not already have such a toleration.
    #[arg(long, default_value_t = 300, allow_negative_numbers = true)]
    default_not_ready_toleration_seconds: i64,
    /// Indicates the tolerationSeconds of the toleration for unreachable:NoExecute that is added by default to every pod that
    /// does not already have such a toleration.
    #[arg(long, default_value_t = 300, allow_negative_numbers = true)]
    default_unreachable_toleration_seconds: i64,
}

impl AdmissionFlags {
    /// What they come to, where `default_too` run by default beside upstream's default plugins.
    pub(crate) fn options(&self, default_too: &'static [&'static str]) -> Result<Options> {
        let options = Options {
            enable: self.enable_admission_plugins.clone(),
            disable: self.disable_admission_plugins.clone(),
            only: self.admission_control.clone(),
            default_too,
            configuration: self.admission_control_config_file.clone(),
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
        };
        match aggregate(options.errors()) {
            Some(errors) => bail!(errors),
            None => Ok(options),
        }
    }
}
