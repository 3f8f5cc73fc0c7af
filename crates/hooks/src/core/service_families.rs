//! How a Service's addresses and families may change: the first of each stays, a second comes and goes with the policy.

use crate::tree::text;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::value::Value;

const SET: &str = "may not change once set";

fn strings<'a>(spec: &'a Value, field: &str) -> Vec<&'a str> {
    spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Both specs belong to one Service. Upstream: `validateUpgradeDowngradeClusterIPs` and `…IPFamilies`.
pub(super) fn validate_update(spec: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    let external = |spec: &Value| text(spec, &["type"]) == "ExternalName";
    if external(spec) || external(old) {
        return errors;
    }
    let headless =
        |spec: &Value| strings(spec, "clusterIPs") == ["None"] || text(spec, &["clusterIP"]) == "None";
    let (is, was) = (headless(spec), headless(old));
    if !(is && was) {
        cluster_ips(spec, old, &mut errors);
    }
    if !is && !was {
        families(spec, old, &mut errors);
    }
    errors
}

fn cluster_ips(spec: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (has, had) = (strings(spec, "clusterIPs"), strings(old, "clusterIPs"));
    let at = |index: usize| path.child("clusterIPs").index(index);
    if has.len() == had.len() {
        let changed = had.iter().zip(&has).enumerate().filter(|(_, (had, has))| had != has);
        errors.extend(changed.map(|(index, _)| Error::invalid(&at(index), &has, SET)));
        return;
    }
    let first_changed = had.first().zip(has.first()).is_some_and(|(had, has)| had != has);
    if has.is_empty() {
        errors.push(Error::invalid(&at(0), &has, "primary clusterIP can not be unset"));
    }
    if first_changed {
        errors.push(Error::invalid(&at(0), &has, SET));
    }
    if had.len() > has.len() && has.len() == 1 {
        errors.extend(only_with_single(
            spec,
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        ));
    }
}

fn families(spec: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec").child("ipFamilies").index(0);
    let (has, had) = (strings(spec, "ipFamilies"), strings(old, "ipFamilies"));
    let ips = strings(spec, "clusterIPs");
    if has.len() == had.len() {
        let changed = had.iter().zip(&has).filter(|(had, has)| had != has);
        errors.extend(changed.map(|_| Error::invalid(&path, &has, SET)));
        return;
    }
    if had.len() > has.len() && ips.is_empty() {
        errors.push(Error::invalid(&path, &has, "primary ipFamily can not be unset"));
    }
    if had.first().zip(has.first()).is_some_and(|(had, has)| had != has) {
        errors.push(Error::invalid(&path, &ips, SET));
    }
    if had.len() > has.len() && has.len() == 1 {
        errors.extend(only_with_single(
            spec,
            "must be set to 'SingleStack' when releasing the secondary ipFamily",
        ));
    }
}

fn only_with_single(spec: &Value, why: &str) -> Option<Error> {
    let policy = spec["ipFamilyPolicy"].as_str();
    let path = Path::new("spec").child("ipFamilyPolicy");
    (policy != Some("SingleStack")).then(|| Error::invalid(&path, policy, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(old: &[&str], new: &[&str], expected: Expect) {
        let spec = |ips: &[&str]| {
            let families: Vec<&str> = ips
                .iter()
                .filter(|ip| **ip != "None")
                .map(|ip| if ip.contains(':') { "IPv6" } else { "IPv4" })
                .collect();
            json!({"type": "ClusterIP", "clusterIP": ips.first(), "clusterIPs": ips, "ipFamilies": families,
                "ipFamilyPolicy": "PreferDualStack"})
        };
        let found = validate_update(&spec(new), &spec(old));
        let shown: Vec<String> = found.iter().map(|error| format!("{error}\n")).collect();
        expected.assert_eq(&shown.concat());
    }

    #[test]
    fn the_first_stays() {
        check(&["10.0.0.1"], &["10.0.0.1"], expect![""]);
        check(
            &["10.0.0.1"],
            &["10.0.0.2"],
            expect![[r#"
            spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set
        "#]],
        );
        check(
            &["10.0.0.1"],
            &[],
            expect![[r#"
            spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset
            spec.ipFamilies[0]: Invalid value: []: primary ipFamily can not be unset
        "#]],
        );
        check(
            &["10.0.0.1"],
            &["None"],
            expect![[r#"
            spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set
        "#]],
        );
        check(&["10.0.0.1"], &["10.0.0.1", "fd00::1"], expect![""]);
        check(
            &["10.0.0.1"],
            &["fd00::1", "10.0.0.1"],
            expect![[r#"
            spec.clusterIPs[0]: Invalid value: ["fd00::1","10.0.0.1"]: may not change once set
            spec.ipFamilies[0]: Invalid value: ["fd00::1","10.0.0.1"]: may not change once set
        "#]],
        );
        check(
            &["10.0.0.1", "fd00::1"],
            &["10.0.0.1"],
            expect![[r#"
            spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary clusterIP
            spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary ipFamily
        "#]],
        );
        check(&["None"], &["None"], expect![""]);
    }
}
