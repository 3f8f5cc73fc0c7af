//! The rules of FlowSchema and PriorityLevelConfiguration.

use super::check::{Check, label, subdomain};
use super::tree::typed;
use api::flowcontrol::v1::{
    FlowSchema, LimitResponse, PriorityLevelConfiguration, QueuingConfiguration, Subject,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;

const MAX_PRECEDENCE: i32 = 10_000;
const MAX_QUEUES: i32 = 10_000_000;
/// How many bits of a hash the queues of a flow are drawn from.
const HASH_BITS: i32 = 60;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const SUBJECTS: [&str; 3] = ["Group", "ServiceAccount", "User"];

pub(super) fn validate_schema(schema: &Value) -> ErrorList {
    let mut check = Check::default();
    let schema: FlowSchema = typed(schema);
    let (path, spec) = (Path::new("spec"), &schema.spec);
    let (at, precedence) = (path.child("matchingPrecedence"), spec.matching_precedence);
    if precedence <= 0 {
        check.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        check.invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && schema.metadata.name != "exempt" {
        check.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = &spec.distinguisher_method
        && !matches!(method.type_.as_str(), "ByNamespace" | "ByUser")
    {
        let at = path.child("distinguisherMethod").child("type");
        check.0.push(Error::not_supported(
            &at,
            super::shown::shown_typed("io.k8s.api.flowcontrol.v1.FlowDistinguisherMethod", method),
            &["ByNamespace", "ByUser"],
        ));
    }
    let at = path.child("priorityLevelConfiguration").child("name");
    let level = &spec.priority_level_configuration.name;
    check.present_and_keeps(&at, level, "must reference a priority level", subdomain);
    for (i, rule) in spec.rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        if rule.subjects.is_empty() {
            check.required(&path.child("subjects"), "subjects must contain at least one value");
        }
        for (i, subject) in rule.subjects.iter().enumerate() {
            validate_subject(&mut check, &path.child("subjects").index(i), subject);
        }
        if rule.resource_rules.is_empty() && rule.non_resource_rules.is_empty() {
            let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
            check.required(&path, why);
        }
        for (i, rule) in rule.resource_rules.iter().enumerate() {
            let path = path.child("resourceRules").index(i);
            verbs(&mut check, &path, &rule.verbs);
            let groups = (&rule.api_groups, "api group", "api groups");
            let resources = (&rule.resources, "resource", "resources");
            for (member, (list, one, many)) in [("apiGroups", groups), ("resources", resources)] {
                let at = path.child(member);
                if list.is_empty() {
                    check.required(&at, &format!("resource rules must supply at least one {one}"));
                } else if is_wild(list) && list.len() > 1 {
                    check.invalid(&at, list, format!("if '*' is present, must not specify other {many}"));
                }
            }
            let cluster = rule.cluster_scope;
            namespaces(&mut check, &path.child("namespaces"), &rule.namespaces, cluster);
        }
        for (i, rule) in rule.non_resource_rules.iter().enumerate() {
            let path = path.child("nonResourceRules").index(i);
            verbs(&mut check, &path, &rule.verbs);
            urls(&mut check, &path.child("nonResourceURLs"), &rule.non_resource_urls);
        }
    }
    check.0
}

fn is_wild(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

fn verbs(check: &mut Check, path: &Path, verbs: &[String]) {
    let at = path.child("verbs");
    if verbs.is_empty() {
        check.required(&at, "verbs must contain at least one value");
    } else if is_wild(verbs) {
        if verbs.len() > 1 {
            check.invalid(&at, verbs, "if '*' is present, must not specify other verbs");
        }
    } else if !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        check.0.push(Error::not_supported(&at, BadValue::json(verbs), &VERBS));
    }
}

fn namespaces(check: &mut Check, path: &Path, namespaces: &[String], cluster_scope: bool) {
    if namespaces.is_empty() && !cluster_scope {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        check.required(path, why);
    } else if is_wild(namespaces) {
        if namespaces.len() > 1 {
            check.invalid(path, namespaces, "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (i, namespace) in namespaces.iter().enumerate() {
            for why in label(namespace) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                check.invalid(&path.index(i), namespace.as_str(), why);
            }
        }
    }
}

fn urls(check: &mut Check, path: &Path, urls: &[String]) {
    if urls.is_empty() {
        check.required(path, "nonResourceURLs must contain at least one value");
    } else if is_wild(urls) {
        if urls.len() > 1 {
            check.invalid(path, urls, "if '*' is present, must not specify other non-resource URLs");
        }
    } else {
        for (i, url) in urls.iter().enumerate() {
            let stars = url.matches('*').count();
            let why = match url.as_str() {
                "" => "must not be empty",
                "/" => continue,
                url if !url.starts_with('/') => "must start with slash",
                url if url.contains(' ') => "must not contain white-space",
                url if url.contains("//") => "must not contain double slash",
                url if stars > 1 || stars == 1 && !url.ends_with("/*") => {
                    "wildcard can only do suffix matching"
                }
                _ => continue,
            };
            check.invalid(&path.index(i), url.as_str(), why);
        }
    }
}

fn validate_subject(check: &mut Check, path: &Path, subject: &Subject) {
    let kind = subject.kind.as_str();
    if !SUBJECTS.contains(&kind) {
        return check.one_of(&path.child("kind"), kind, &SUBJECTS);
    }
    let named = |check: &mut Check, member: &'static str, name: Option<&String>, wanted: &str| {
        let at = path.child(member);
        match name {
            None => check.required(&at, &format!("{member} is required when subject kind is '{wanted}'")),
            Some(name) => drop(check.present(&at.child("name"), name, "")),
        }
    };
    match kind {
        "ServiceAccount" => match &subject.service_account {
            None => {
                let why = "serviceAccount is required when subject kind is 'ServiceAccount'";
                check.required(&path.child("serviceAccount"), why);
            }
            Some(account) => {
                let path = path.child("serviceAccount");
                if check.present(&path.child("name"), &account.name, "") && account.name != "*" {
                    check.keeps(&path.child("name"), &account.name, subdomain);
                }
                let why = "must specify namespace for service account";
                check.present_and_keeps(&path.child("namespace"), &account.namespace, why, label);
            }
        },
        "User" => named(check, "user", subject.user.as_ref().map(|u| &u.name), "User"),
        _ => named(check, "group", subject.group.as_ref().map(|g| &g.name), "Group"),
    }
    for (member, there, of) in [
        ("serviceAccount", subject.service_account.is_some(), "ServiceAccount"),
        ("user", subject.user.is_some(), "User"),
        ("group", subject.group.is_some(), "Group"),
    ] {
        if there && of != kind {
            let why = format!("{member} is forbidden when subject kind is not '{of}'");
            check.forbidden(&path.child(member), why);
        }
    }
}

pub(super) fn validate_level(level: &Value) -> ErrorList {
    let mut check = Check::default();
    let level: PriorityLevelConfiguration = typed(level);
    let (path, spec) = (Path::new("spec"), &level.spec);
    let at = path.child("type");
    if (level.metadata.name == "exempt") != (spec.type_ == "Exempt") {
        check.invalid(&at, spec.type_.as_str(), "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                check.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = &spec.exempt {
                let path = path.child("exempt");
                shares(&mut check, &path, exempt.nominal_concurrency_shares);
                percent(&mut check, &path, exempt.lendable_percent);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                check.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            let path = path.child("limited");
            let Some(limited) = &spec.limited else {
                check.required(&path, "must not be empty when type is Limited");
                return check.0;
            };
            shares(&mut check, &path, limited.nominal_concurrency_shares);
            validate_response(&mut check, &path.child("limitResponse"), &limited.limit_response);
            percent(&mut check, &path, limited.lendable_percent);
            if let Some(limit) = limited.borrowing_limit_percent.filter(|p| *p < 0) {
                let why = "if specified, must be a non-negative integer";
                check.invalid(&path.child("borrowingLimitPercent"), limit, why);
            }
        }
        other => check.one_of(&at, other, &["Exempt", "Limited"]),
    }
    check.0
}

fn shares(check: &mut Check, path: &Path, shares: Option<i32>) {
    if let Some(shares) = shares.filter(|s| *s < 0) {
        check.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn percent(check: &mut Check, path: &Path, percent: Option<i32>) {
    if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
        check.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_response(check: &mut Check, path: &Path, response: &LimitResponse) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            check.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            check.required(&at, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => validate_queuing(check, &at, queuing),
        (other, _) => check.one_of(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(check: &mut Check, path: &Path, queuing: &QueuingConfiguration) {
    let (queues, hand) = (queuing.queues, queuing.hand_size);
    if queuing.queue_length_limit <= 0 {
        check.invalid(&path.child("queueLengthLimit"), queuing.queue_length_limit, "must be positive");
    }
    let at = path.child("queues");
    if queues <= 0 {
        check.invalid(&at, queues, "must be positive");
    } else if queues > MAX_QUEUES {
        check.invalid(&at, queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        check.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        check.invalid(&at, hand, format!("should not be greater than queues ({queues})"));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > f64::from(HASH_BITS) {
        check.invalid(
            &at,
            hand,
            format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
            ),
        );
    }
}
