//! Whether the kernel enforces AppArmor's profiles, and which it has.

use std::path::Path;

/// Where the kernel tells of them.
const PLACE: &str = "/sys/kernel/security/apparmor";

/// Whether profiles are enforced.
pub fn is_enabled() -> bool {
    let on = std::fs::read("/sys/module/apparmor/parameters/enabled");
    Path::new(PLACE).exists() && on.is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether a profile of this name is loaded.
pub fn is_loaded(profile: &str) -> bool {
    let loaded = std::fs::read_to_string(format!("{PLACE}/profiles")).unwrap_or_default();
    loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}
