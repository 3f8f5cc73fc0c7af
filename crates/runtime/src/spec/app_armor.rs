//! The AppArmor profile that a container is confined by. Names and refusals are containerd's.

use cri::v1::LinuxContainerSecurityContext;
use cri::v1::security_profile::ProfileType;
use cri::{Error, Result};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Which profile RuntimeDefault is.
const DEFAULT: &str = "tiphys-default";

/// What containers need, less what only the node's owner should do: no mounts, no ways into the kernel, no looking at
/// processes that are not confined by it, too.
const RULES: &str = "
profile tiphys-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer=tiphys-default,
  ptrace (trace,read,tracedby,readby) peer=tiphys-default,
  deny mount,
  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,
  deny /proc/sys/kernel/{[^smo],s[^eh],se[^m],sh[^m],m[^s],ms[^g]}* wklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// What the kernel has of AppArmor.
pub(super) trait Kernel {
    /// Whether profiles are enforced.
    fn is_enabled(&self) -> bool;
    /// Whether a profile of this name is loaded.
    fn has(&self, profile: &str) -> bool;
    /// Loads the default profile.
    fn load(&self, rules: &str) -> std::io::Result<()>;
}

/// This machine's.
pub(super) struct Machine;

impl Kernel for Machine {
    fn is_enabled(&self) -> bool {
        linux::app_armor::is_enabled()
    }

    fn has(&self, profile: &str) -> bool {
        linux::app_armor::is_loaded(profile)
    }

    fn load(&self, rules: &str) -> std::io::Result<()> {
        let mut parser = Command::new("apparmor_parser");
        parser.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut parser = parser.stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = parser.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        let output = parser.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}

/// The profile's name, which is empty where there is none.
#[allow(deprecated)] // CRI's older form is still sent.
pub(super) fn profile(security: &LinuxContainerSecurityContext, kernel: &dyn Kernel) -> Result<String> {
    let (ty, name) = match (&security.apparmor, security.apparmor_profile.as_str()) {
        (Some(wanted), _) => (wanted.profile_type(), wanted.localhost_ref.as_str()),
        (None, "runtime/default") => (ProfileType::RuntimeDefault, ""),
        (None, "" | "unconfined") => return Ok(String::new()),
        (None, name) => (ProfileType::Localhost, name),
    };
    if ty == ProfileType::Unconfined {
        return Ok(String::new());
    }
    if !kernel.is_enabled() {
        return Err(Error::unknown("apparmor is not supported"));
    }
    match ty {
        ProfileType::RuntimeDefault if security.privileged => Ok(String::new()),
        ProfileType::RuntimeDefault => {
            if !kernel.has(DEFAULT) {
                let failed =
                    |error| Error::unknown(format!("loading the AppArmor profile {DEFAULT}: {error}"));
                kernel.load(RULES).map_err(failed)?;
            }
            Ok(DEFAULT.to_owned())
        }
        _ => {
            let name = name.strip_prefix("localhost/").unwrap_or(name);
            match kernel.has(name) {
                true => Ok(name.to_owned()),
                false => Err(Error::unknown(format!("apparmor profile not found {name}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::SecurityProfile;
    use std::cell::RefCell;

    struct Known {
        enabled: bool,
        loaded: RefCell<Vec<String>>,
    }

    impl Kernel for Known {
        fn is_enabled(&self) -> bool {
            self.enabled
        }
        fn has(&self, profile: &str) -> bool {
            self.loaded.borrow().iter().any(|loaded| loaded == profile)
        }
        fn load(&self, rules: &str) -> std::io::Result<()> {
            let name = rules.trim().split(' ').nth(1).unwrap_or_default();
            self.loaded.borrow_mut().push(name.to_owned());
            Ok(())
        }
    }

    #[track_caller]
    fn check(ty: ProfileType, name: &str, enabled: bool, privileged: bool, expected: &str) {
        let wanted = SecurityProfile { profile_type: ty.into(), localhost_ref: name.into() };
        let security =
            LinuxContainerSecurityContext { apparmor: Some(wanted), privileged, ..Default::default() };
        let kernel = Known { enabled, loaded: RefCell::new(vec!["mine".into()]) };
        let found = match profile(&security, &kernel) {
            Ok(name) => format!("{name:?} of {}", kernel.loaded.borrow().join(", ")),
            Err(error) => error.message,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn nobody_is_confined_less_than_he_wants() {
        use ProfileType::{Localhost, RuntimeDefault, Unconfined};
        check(Unconfined, "", false, false, "\"\" of mine");
        check(Localhost, "mine", true, false, "\"mine\" of mine");
        check(Localhost, "localhost/mine", true, true, "\"mine\" of mine");
        check(Localhost, "other", true, false, "apparmor profile not found other");
        check(Localhost, "mine", false, false, "apparmor is not supported");
        check(RuntimeDefault, "", false, false, "apparmor is not supported");
        check(RuntimeDefault, "", true, false, "\"tiphys-default\" of mine, tiphys-default");
        check(RuntimeDefault, "", true, true, "\"\" of mine");
    }
}
