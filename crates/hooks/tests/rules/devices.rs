//! What becomes of what drivers tell of their devices.

use crate::context;
use apimachinery::json;
use hooks::strategy;

#[test]
fn taints_of_devices_say_since_when() {
    let taint = |at: Option<&str>| {
        let mut taint = json!({"key": "a", "effect": "NoExecute"});
        if let Some(at) = at {
            taint["timeAdded"] = at.into();
        }
        json!({"spec": {"devices": [{"name": "d", "taints": [taint]}]}})
    };
    let (strategy, context) = (strategy("resource.k8s.io", "ResourceSlice"), context(None));
    let now = context.now.to_string();
    for (given, kept) in [(None, now.as_str()), (Some("2020-01-01T00:00:00Z"), "2020-01-01T00:00:00Z")] {
        let mut made = taint(given);
        strategy.prepare_for_create(&mut made, &context);
        assert_eq!(made, taint(Some(kept)));
        let mut changed = taint(given);
        strategy.prepare_for_update(&mut changed, &taint(None), &context);
        assert_eq!(changed, taint(Some(kept)));
    }
}
