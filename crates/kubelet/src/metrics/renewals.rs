//! Certificates that are renewed. Upstream: `pkg/kubelet/certificate/kubelet.go`.

use super::families::Families;
use component::metrics::{Counter, Histogram, Registry};

/// What they are counted by: their failures, and how long the certificates lived where that is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    failures: &'static str,
    lives: Option<&'static str>,
}

pub(crate) const SERVER_RENEWALS: Names = Names {
    failures: "kubelet_server_expiration_renew_errors",
    lives: Some("kubelet_certificate_manager_server_rotation_seconds"),
};
pub(crate) const CLIENT_RENEWALS: Names =
    Names { failures: "kubelet_certificate_manager_client_expiration_renew_errors", lives: None };

/// From a minute to four years.
const LIVES: [f64; 10] = [
    60.0,
    3600.0,
    14400.0,
    86400.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
    124_416_000.0,
];

/// Those of one certificate.
pub(crate) struct Renewals {
    failures: Counter,
    lives: Option<Histogram>,
}

impl Renewals {
    pub(super) fn new(registry: &Registry, names: Names) -> Self {
        let of = Families(registry);
        let help = "Histogram of the number of seconds the previous certificate lived before being rotated.";
        Renewals {
            failures: of.count(names.failures, "Counter of certificate renewal errors."),
            lives: names.lives.map(|name| of.time(name, help, &LIVES)),
        }
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// A certificate is replaced that lived for so many seconds.
    pub(crate) fn lived(&self, seconds: f64) {
        if let Some(lives) = &self.lives {
            lives.observe(seconds);
        }
    }
}
