//! DeviceTaintRules: which devices they taint, and how. Upstream: `resourceslice/tracker`, and the controller that evicts.

use api::resource::v1::DeviceTaint;
use api::resource::v1beta2::{DeviceTaintRuleSpec, DeviceTaintSelector};

/// Whether a selector selects a device. What it does not name it does not care about.
pub fn selects(selector: &DeviceTaintSelector, driver: &str, pool: &str, device: &str) -> bool {
    let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    is(&selector.driver, driver) && is(&selector.pool, pool) && is(&selector.device, device)
}

/// The taint of the devices that a rule means, as drivers would publish it.
pub fn taint(rule: &DeviceTaintRuleSpec) -> DeviceTaint {
    let taint = &rule.taint;
    DeviceTaint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        time_added: taint.time_added,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selecting() {
        let check = |driver: Option<&str>, pool: Option<&str>, device: Option<&str>, want: bool| {
            let of = |name: Option<&str>| name.map(str::to_owned);
            let selector = DeviceTaintSelector { driver: of(driver), pool: of(pool), device: of(device) };
            assert_eq!(selects(&selector, "d", "p", "a"), want, "{selector:?}");
        };
        check(None, None, None, true);
        check(Some("d"), None, Some("a"), true);
        check(Some("d"), Some("q"), Some("a"), false);
        check(None, None, Some("b"), false);
        check(Some(""), None, None, false);
    }
}
