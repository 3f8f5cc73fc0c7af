//! The fields of a Service that belong together: `clusterIP` and `clusterIPs`, families and their policy, node ports.
//! Pure; upstream's order and wording.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::validation::{Strictness, is_valid_ip_for_legacy_field, parse_ip_sloppy};
use apimachinery::value::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

pub(super) fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec[field].as_str().unwrap_or_default()
}

fn strings(spec: &Value, field: &str) -> Vec<String> {
    spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn cluster_ips(spec: &Value) -> Vec<String> {
    strings(spec, "clusterIPs")
}

pub(super) fn families(spec: &Value) -> Vec<String> {
    strings(spec, "ipFamilies")
}

pub(super) fn is_external_name(spec: &Value) -> bool {
    text(spec, "type") == "ExternalName"
}

/// Whether a Service of this type has node ports.
pub(super) fn needs_node_port(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

/// Whether a port is needed on which a load balancer asks for the health of a node's endpoints.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

pub(super) fn needs_any_port(spec: &Value) -> bool {
    needs_node_port(spec) || needs_health_check(spec)
}

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None"
}

fn has_selector(spec: &Value) -> bool {
    spec["selector"].as_object().is_some_and(|selector| !selector.is_empty())
}

/// The addresses that a Service has taken.
pub(super) fn addresses(spec: &Value) -> BTreeSet<IpAddr> {
    let single = [text(spec, "clusterIP").to_owned()];
    let all = cluster_ips(spec).into_iter().chain(single);
    if is_external_name(spec) { BTreeSet::new() } else { all.filter_map(|ip| parse_ip_sloppy(&ip)).collect() }
}

/// Whether a Service takes addresses that it does not have yet: a new one, one that was a name, one that gets a family.
pub(super) fn takes_addresses(spec: &Value, old: Option<&Value>) -> bool {
    if is_external_name(spec) || is_headless(spec) {
        return false;
    }
    let Some(old) = old else { return true };
    is_external_name(old)
        || families(old).len() == 1 && families(spec).len() == 2 && !keeps_families(spec, old)
}

/// What a client need not repeat: the addresses and ports that the Service has.
pub(super) fn patch_allocated(spec: &mut Value, old: &Value) {
    if !is_external_name(old) && !is_external_name(spec) {
        if text(spec, "clusterIP").is_empty() && !text(old, "clusterIP").is_empty() {
            spec["clusterIP"] = old["clusterIP"].clone();
        }
        if cluster_ips(spec).is_empty() && !cluster_ips(old).is_empty() {
            spec["clusterIPs"] = old["clusterIPs"].clone();
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        let numbers = |spec: &Value| -> HashSet<u64> { ports(spec).filter_map(node_port).collect() };
        let used: HashSet<u64> = numbers(old).intersection(&numbers(spec)).copied().collect();
        let by_name: HashMap<String, u64> =
            ports(old).filter_map(|port| Some((text(port, "name").to_owned(), node_port(port)?))).collect();
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            let known = by_name.get(text(port, "name")).filter(|number| !used.contains(number));
            if let (None, Some(number)) = (node_port(port), known) {
                port["nodePort"] = (*number).into();
            }
        }
    }
    let health = "healthCheckNodePort";
    let asked = spec[health].as_u64().unwrap_or(0);
    if needs_health_check(old) && needs_health_check(spec) && asked == 0 && !old[health].is_null() {
        spec[health] = old[health].clone();
    }
}

pub(super) fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

/// A port's node port, if it has one.
pub(super) fn node_port(port: &Value) -> Option<u64> {
    port["nodePort"].as_u64().filter(|number| *number > 0)
}

fn remove(spec: &mut Value, field: &str) {
    if let Some(map) = spec.as_object_mut() {
        map.remove(field);
    }
}

/// `clusterIPs` follows `clusterIP` for those who know only that one.
pub(super) fn normalise(spec: &mut Value, old: Option<&Value>) {
    let (one, many) = (text(spec, "clusterIP").to_owned(), cluster_ips(spec));
    let Some(old) = old else {
        if !one.is_empty() && many.is_empty() {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    };
    let (had_one, had_many) = (text(old, "clusterIP"), cluster_ips(old));
    if !had_many.is_empty() && many.is_empty() && had_one == one {
        spec["clusterIPs"] = old["clusterIPs"].clone();
    }
    if had_one != one && had_many == cluster_ips(spec) {
        match one.as_str() {
            "" if !had_one.is_empty() => remove(spec, "clusterIPs"),
            _ => spec["clusterIPs"] = json!([one]),
        }
    }
}

/// Both prefer two families and say the same: such a Service does not change with its cluster.
fn keeps_families(spec: &Value, old: &Value) -> bool {
    let prefers = |spec: &Value| text(spec, "ipFamilyPolicy") == "PreferDualStack";
    let old_prefers = old["ipFamilyPolicy"].is_null() || prefers(old);
    text(spec, "type") == text(old, "type")
        && !is_external_name(spec)
        && prefers(spec)
        && old_prefers
        && cluster_ips(spec) == cluster_ips(old)
        && families(spec) == families(old)
}

/// Gives families and policy to a Service of a cluster with these families, the default one first, or says why it cannot
/// have those it asks for.
pub(super) fn init_families(
    spec: &mut Value,
    old: Option<&Value>,
    configured: &[&'static str],
) -> Result<(), ErrorList> {
    if is_external_name(spec) || old.is_some_and(|old| keeps_families(spec, old)) {
        return Ok(());
    }
    let selectorless = is_headless(spec) && !has_selector(spec);
    if spec["ipFamilyPolicy"].is_null() {
        let inherited = old.map(|old| &old["ipFamilyPolicy"]).filter(|policy| !policy.is_null());
        spec["ipFamilyPolicy"] = match inherited {
            Some(policy) => policy.clone(),
            None if selectorless => "RequireDualStack".into(),
            None => "SingleStack".into(),
        };
    }
    let errors = related(spec, old);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut errors = ErrorList::default();
    let path = Path::new("spec");
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let single = policy == "SingleStack";
    let at_policy = path.child("ipFamilyPolicy");
    if let Some(old) = old {
        release_second(spec, old, single);
        let reduced = |of: fn(&Value) -> Vec<String>| {
            let (had, has) = (of(old), of(spec));
            !single && !has.is_empty() && had.len() > has.len() && had[0] == has[0]
        };
        if reduced(cluster_ips) {
            let why = "must be 'SingleStack' to release the secondary cluster IP";
            errors.push(Error::invalid(&at_policy, policy.as_str(), why));
        }
        if reduced(families) {
            let why = "must be 'SingleStack' to release the secondary IP family";
            errors.push(Error::invalid(&at_policy, policy.as_str(), why));
        }
    }
    for (count, what) in [(cluster_ips(spec).len(), "cluster IPs"), (families(spec).len(), "IP families")] {
        if single && count == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(Error::invalid(&at_policy, policy.as_str(), why));
        }
    }
    infer_families(spec, configured, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut has = families(spec);
    if selectorless {
        // Nobody knows which endpoints it will get: it may have both, in any cluster.
        complete_families(&mut has, configured, !single);
        spec["ipFamilies"] = has.into();
        return Ok(());
    }
    if policy == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&at_policy, policy.as_str(), why));
    }
    for (index, wanted) in has.iter().enumerate().filter(|(_, wanted)| !configured.contains(&wanted.as_str()))
    {
        let at = path.child("ipFamilies").index(index);
        errors.push(Error::invalid(&at, wanted.as_str(), "not configured on this cluster"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    complete_families(&mut has, configured, !single && configured.len() == 2);
    spec["ipFamilies"] = has.into();
    Ok(())
}

/// The default family where none is asked for, and the other one, too, where `both` are wanted.
fn complete_families(has: &mut Vec<String>, configured: &[&'static str], both: bool) {
    if has.is_empty() {
        has.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if both && has.len() == 1 {
        has.extend(FAMILIES.iter().find(|other| **other != has[0]).map(|other| (*other).to_owned()));
    }
}

/// With a single family the second goes, if the client left the fields as they were.
fn release_second(spec: &mut Value, old: &Value, single: bool) {
    for field in ["clusterIPs", "ipFamilies"].iter().filter(|_| single) {
        if strings(spec, field) == strings(old, field)
            && let Some(list) = spec[*field].as_array_mut()
        {
            list.truncate(1);
        }
    }
}

/// A family for each address that has none.
fn infer_families(spec: &mut Value, configured: &[&str], errors: &mut ErrorList) {
    let ips = cluster_ips(spec);
    let mut has = families(spec);
    for (index, ip) in ips.iter().enumerate().skip(has.len()) {
        let Some(address) = parse_ip_sloppy(ip) else { break };
        let own = super::family(address);
        if configured.contains(&own) {
            has.push(own.into());
        } else {
            let at = Path::new("spec").child("clusterIPs").index(index);
            errors.push(Error::invalid(&at, &ips, format!("{own} is not configured on this cluster")));
        }
    }
    if !has.is_empty() {
        spec["ipFamilies"] = has.into();
    }
}

/// Upstream's `ValidateServiceClusterIPsRelatedFields`.
fn related(spec: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("spec");
    let (at_ips, at_families) = (path.child("clusterIPs"), path.child("ipFamilies"));
    let (one, ips, has) = (text(spec, "clusterIP"), cluster_ips(spec), families(spec));
    match (one, ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            errors.push(Error::invalid(&at_ips, &ips, "must be empty when `clusterIP` is not specified"))
        }
        (_, None) => errors.push(Error::required(&at_ips, "")),
        (one, Some(first)) if one != first => {
            errors.push(Error::invalid(&at_ips, &ips, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for (index, family) in has.iter().enumerate() {
        if !FAMILIES.contains(&family.as_str()) {
            errors.push(Error::not_supported(&at_families.index(index), family.as_str(), &FAMILIES));
        }
        if !seen.insert(family) {
            errors.push(Error::duplicate(&at_families.index(index), family.as_str()));
        }
    }
    let policy = text(spec, "ipFamilyPolicy");
    if !spec["ipFamilyPolicy"].is_null() && !POLICIES.contains(&policy) {
        errors.push(Error::not_supported(&path.child("ipFamilyPolicy"), policy, &POLICIES));
    }
    let before = old.map(cluster_ips).unwrap_or_default();
    let mut unreadable = false;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                unreadable = true;
                errors.push(Error::invalid(&at_ips, &ips, "'None' must be the first and only value"));
            }
            continue;
        }
        let found = is_valid_ip_for_legacy_field(&at_ips.index(index), ip, Strictness::Strict, &before);
        unreadable |= !found.is_empty();
        errors.extend(found);
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(&at_ips, &ips, "may only hold up to 2 values"));
    }
    if unreadable {
        return errors;
    }
    let own: Vec<&str> = ips.iter().filter_map(|ip| parse_ip_sloppy(ip)).map(super::family).collect();
    if ips.len() > 1 && own.iter().collect::<HashSet<_>>().len() < 2 {
        errors.push(Error::invalid(&at_ips, &ips, "may specify no more than one IP for each IP family"));
    }
    if !is_headless(spec) {
        for (index, ((ip, own), family)) in ips.iter().zip(&own).zip(&has).enumerate() {
            if FAMILIES.contains(&family.as_str()) && own != family {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                errors.push(Error::invalid(&at_ips.index(index), ip.as_str(), why));
            }
        }
    }
    errors
}
