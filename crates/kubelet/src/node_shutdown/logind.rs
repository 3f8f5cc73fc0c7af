//! What logind is asked and told: to wait before it shuts the machine down. Upstream: `nodeshutdown/systemd`.

use crate::dbus::wire::{Field, Value};
use crate::dbus::{Connection, system_bus_address};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SIGHUP: i32 = 1;
/// The file with which logind is told to wait for longer.
const OVERRIDE: &str = "99-kubelet.conf";

/// Logind waits for as long as this is open.
pub(super) struct Lock {
    _descriptor: OwnedFd,
}

/// Logind, over the system's bus.
pub(super) struct Logind(Connection);

impl Logind {
    /// Connects over a bus, or the system's.
    pub(super) async fn connect(bus: Option<&str>) -> Result<Self, String> {
        let address = bus.map_or_else(system_bus_address, str::to_owned);
        Ok(Logind(Connection::open(&address).await.map_err(|error| error.to_string())?))
    }

    /// For how long it waits at most.
    pub(super) async fn inhibit_delay(&mut self) -> Result<Duration, String> {
        let asked = vec![MANAGER.into(), "InhibitDelayMaxUSec".into()];
        let answer = self.0.call(SERVICE, OBJECT, "org.freedesktop.DBus.Properties", "Get", asked).await;
        let answer = answer
            .map_err(|error| format!("failed reading InhibitDelayMaxUSec property from logind: {error}"))?;
        match answer.body.into_iter().next() {
            Some(Value::Variant(value)) => match *value {
                Value::U64(micros) => Some(Duration::from_micros(micros)),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| "InhibitDelayMaxUSec from logind is not a uint64 as expected".into())
    }

    /// Has it wait.
    pub(super) async fn inhibit(&mut self) -> Result<Lock, String> {
        let told = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        let told = told.map(Value::from).to_vec();
        let answer = self.0.call(SERVICE, OBJECT, MANAGER, "Inhibit", told).await;
        let answer = answer.map_err(|error| format!("failed creating systemd inhibitor: {error}"))?;
        let lock = answer.descriptors.into_iter().next();
        lock.map(|descriptor| Lock { _descriptor: descriptor })
            .ok_or_else(|| "failed storing inhibit lock file descriptor: none came".into())
    }

    /// Tells it by a file that it may have to wait for this long, and to read that.
    pub(super) async fn override_inhibit_delay(&mut self, dir: &Path, delay: Duration) -> Result<(), String> {
        let shown = dir.display();
        std::fs::create_dir_all(dir)
            .map_err(|error| format!("failed creating {shown} directory: {error}"))?;
        let seconds = delay.as_secs();
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={seconds}\n");
        let path = dir.join(OVERRIDE);
        std::fs::write(&path, text).map_err(|error| {
            format!("failed writing logind shutdown inhibit override file {}: {error}", path.display())
        })?;
        let told = vec!["systemd-logind.service".into(), "all".into(), Value::I32(SIGHUP)];
        let called = self.0.call(
            SYSTEMD,
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "KillUnit",
            told,
        );
        called.await.map(drop).map_err(|error| format!("unable to reload logind conf: {error}"))
    }

    /// Has it say when the machine is going down, and when it is not after all.
    pub(super) async fn watch(&mut self) -> Result<(), String> {
        let rule = format!("type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{OBJECT}'");
        let asked = self.0.add_match(&rule).await;
        asked.map_err(|error| format!("failed to monitor shutdown: {error}"))
    }

    /// The next such word: whether the machine is going down.
    pub(super) async fn next(&mut self) -> Result<bool, String> {
        loop {
            let signal = self.0.signal().await.map_err(|error| error.to_string())?;
            if signal.text(Field::Member) != "PrepareForShutdown" || signal.text(Field::Interface) != MANAGER
            {
                continue;
            }
            match signal.body.first() {
                Some(Value::Bool(going)) => return Ok(*going),
                Some(_) => tracing::error!(
                    "Failed obtaining shutdown event, PrepareForShutdown event was not bool type as expected"
                ),
                None => {
                    tracing::error!("Failed obtaining shutdown event, PrepareForShutdown event was empty")
                }
            }
        }
    }
}
