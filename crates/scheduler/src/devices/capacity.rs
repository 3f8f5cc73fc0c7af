//! How much of a device a request consumes, and whether there is so much. Upstream: KEP-5075, consumable capacity.

use api::resource::v1::{CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity};
use apimachinery::quantity::{Format, Quantity};
use std::collections::BTreeMap;

/// Amounts by the name of a capacity.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// What a request for an amount, or for none in particular, consumes: rounded up to what the device gives out.
fn consumed(asked: Option<&Quantity>, capacity: &DeviceCapacity) -> Quantity {
    let policy = capacity.request_policy.as_ref();
    let Some(asked) = asked else {
        let default = policy.and_then(|policy| policy.default_.as_ref());
        return default.unwrap_or(&capacity.value).clone();
    };
    let Some(policy) = policy else { return asked.clone() };
    match &policy.valid_range {
        Some(range) if range.min.is_some() => round_up(asked, range),
        _ => policy.valid_values.iter().find(|valid| asked <= valid).unwrap_or(asked).clone(),
    }
}

/// The step of a range, and where it begins; in whole units, as upstream counts.
fn steps(range: &CapacityRequestPolicyRange) -> Option<(i128, i128)> {
    let step = range.step.as_ref().map(Quantity::value).filter(|step| *step > 0)?;
    Some((range.min.as_ref().map_or(0, Quantity::value).into(), step.into()))
}

fn round_up(asked: &Quantity, range: &CapacityRequestPolicyRange) -> Quantity {
    match &range.min {
        Some(min) if asked < min => return min.clone(),
        _ => {}
    }
    let Some((min, step)) = steps(range) else { return asked.clone() };
    let above = i128::from(asked.value()) - min;
    let rounded = min + (above + step - 1) / step * step;
    let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
    Quantity::from_scaled(rounded, 0).with_format(Format::BinarySI)
}

/// Whether a device gives out such an amount at all.
fn is_valid(amount: &Quantity, capacity: &DeviceCapacity) -> bool {
    let Some(policy) = &capacity.request_policy else { return true };
    if policy.default_.as_ref() == Some(amount) {
        return true;
    }
    if let Some(range) = &policy.valid_range {
        let on_step = steps(range).is_none_or(|(min, step)| (i128::from(amount.value()) - min) % step == 0);
        return range.max.as_ref().is_none_or(|max| amount <= max) && on_step;
    }
    policy.valid_values.is_empty() || policy.valid_values.contains(amount)
}

/// What a request consumes of a device, by capacity; none if the device has not got what is asked for, or does not give
/// out such amounts.
pub(super) fn consumption(asked: Option<&CapacityRequirements>, device: &Device) -> Option<Amounts> {
    let asked = asked.map(|asked| &asked.requests);
    if asked.is_some_and(|asked| asked.keys().any(|name| !device.capacity.contains_key(name))) {
        return None;
    }
    let mut amounts = Amounts::new();
    for (name, capacity) in &device.capacity {
        let amount = consumed(asked.and_then(|asked| asked.get(name)), capacity);
        if !is_valid(&amount, capacity) {
            return None;
        }
        amounts.insert(name.clone(), amount);
    }
    Some(amounts)
}

/// Whether a device has so much beside what others have of it.
pub(super) fn fits(amounts: &Amounts, device: &Device, others: &[Option<&Amounts>]) -> bool {
    amounts.iter().all(|(name, amount)| {
        let mut sum = amount.clone();
        others.iter().flatten().filter_map(|of| of.get(name)).for_each(|other| sum.add(other));
        device.capacity.get(name).is_some_and(|capacity| sum <= capacity.value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::{Value, from_value};

    /// A capacity of ten with a policy; what is consumed of it when so much is asked for.
    fn check(policy: Value, asked: Option<&str>, want: Option<&str>) {
        let capacity = json!({"memory": {"value": "10", "requestPolicy": policy}});
        let device: Device = from_value(json!({"name": "d", "capacity": capacity})).unwrap();
        let asked = asked.map(|amount| from_value(json!({"requests": {"memory": amount}})).unwrap());
        let amounts = consumption(asked.as_ref(), &device).filter(|amounts| fits(amounts, &device, &[]));
        assert_eq!(amounts.map(|amounts| amounts["memory"].to_string()).as_deref(), want, "{policy}");
    }

    #[test]
    fn what_is_consumed() {
        check(Value::Null, None, Some("10"));
        check(Value::Null, Some("3"), Some("3"));
        check(Value::Null, Some("11"), None);
        let values = json!({"default": "2", "validValues": ["2", "4", "8"]});
        check(values.clone(), None, Some("2"));
        check(values.clone(), Some("3"), Some("4"));
        check(values.clone(), Some("8"), Some("8"));
        check(values, Some("9"), None);
        let range = json!({"default": "2", "validRange": {"min": "2", "max": "8", "step": "3"}});
        check(range.clone(), Some("1"), Some("2"));
        check(range.clone(), Some("3"), Some("5"));
        check(range.clone(), Some("5"), Some("5"));
        check(range, Some("9"), None);
    }

    #[test]
    fn a_device_gives_no_more_than_it_has() {
        let device: Device =
            from_value(json!({"name": "d", "capacity": {"memory": {"value": "10"}}})).unwrap();
        let amounts = |text: &str| Amounts::from([("memory".to_owned(), text.parse().unwrap())]);
        assert!(fits(&amounts("4"), &device, &[Some(&amounts("3")), Some(&amounts("3"))]));
        assert!(!fits(&amounts("4"), &device, &[Some(&amounts("3")), Some(&amounts("4"))]));
        let other = from_value(json!({"requests": {"slots": "1"}})).unwrap();
        assert_eq!(consumption(Some(&other), &device), None, "the device has no slots");
    }
}
