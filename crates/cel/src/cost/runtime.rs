//! What a call costs, by the values that it got.

use super::{CHECK, LIST, OBJECT, PATTERN, TRAVERSAL};
use crate::plan::Equality;
use crate::value::{Error, Evaluated, Val};

/// How the cost of a call is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallCost {
    /// The same whatever the values.
    Fixed(u64),
    /// So many passes over the first argument.
    Scan(f64),
    /// So many passes over the result.
    ScanResult(f64),
    /// Every element of the second argument is looked at.
    Contains,
    /// A pass over the shorter.
    Shorter,
    /// A pass over both.
    Both,
    /// A pass over the string for each part of the pattern.
    Match,
    /// The one string in the other.
    Substring,
    /// All elements, however deep.
    Traversal,
    /// A label or field selector is parsed.
    Selector,
    /// A range of addresses, and whether the other must be parsed first.
    Range { blocks: bool, text: bool },
    /// A named format.
    Format,
    /// Each of the one with each of the other, so many times.
    Sets(f64),
    /// A list as long as the result is made.
    MakesList,
    /// A list is flattened.
    Flatten,
    /// Each element of an argument with each.
    SelfCompare(usize),
}

impl CallCost {
    /// The rule for a function and the overload that was chosen for it, if only one was.
    pub(crate) fn of(function: &str, overload: &str) -> Self {
        Self::by_tracked_overload(overload)
            .or_else(|| Self::by_function(function, overload))
            .unwrap_or_else(|| Self::by_overload(overload))
    }

    fn by_tracked_overload(overload: &str) -> Option<Self> {
        Some(match overload {
            "list_sets_contains_list" | "list_sets_intersects_list" => Self::Sets(1.0),
            "list_sets_equivalent_list" => Self::Sets(2.0),
            "list_slice" | "lists_range" | "list_reverse" => Self::MakesList,
            "list_flatten" | "list_flatten_int" => Self::Flatten,
            "list_distinct" => Self::SelfCompare(0),
            _ if overload.starts_with("list_") && overload.ends_with("_sort") => Self::SelfCompare(0),
            _ if overload.ends_with("_sortByAssociatedKeys") => Self::SelfCompare(1),
            _ => return None,
        })
    }

    fn by_function(function: &str, overload: &str) -> Option<Self> {
        Some(match function {
            "check" => Self::Fixed(CHECK),
            "fieldSelector" | "labelSelector" => Self::Selector,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Self::Traversal,
            "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver" => Self::Scan(1.0),
            "replace" | "split" | "ip.isCanonical" => Self::Scan(2.0),
            "join" => Self::ScanResult(2.0),
            "find" | "findAll" => Self::Match,
            "ip" if overload != "cidr_ip" => Self::Scan(1.0),
            "containsIP" => Self::Range { blocks: false, text: overload == "cidr_contains_ip_string" },
            "containsCIDR" => Self::Range { blocks: true, text: overload == "cidr_contains_cidr_string" },
            "validate" => Self::Format,
            _ => return None,
        })
    }

    fn by_overload(overload: &str) -> Self {
        match overload {
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
            | "strings_quote" | "string_format" => Self::Scan(1.0),
            "in_list" => Self::Contains,
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => Self::Shorter,
            "add_string" | "add_bytes" => Self::Both,
            "matches_string" => Self::Match,
            "contains_string" => Self::Substring,
            _ => Self::Fixed(1),
        }
    }

    /// What a call cost.
    pub(crate) fn charge(self, args: &[Val<'_>], result: &Result<Val<'_>, Error>) -> u64 {
        let size = |at: usize| args.get(at).map_or(1.0, |value| actual_size(value) as f64);
        let scan = |size: f64| (size * TRAVERSAL).ceil() as u64;
        match self {
            Self::Fixed(cost) => cost,
            Self::Scan(passes) => scan_of(size(0) * passes),
            Self::ScanResult(passes) => {
                scan_of(result.as_ref().map_or(1.0, |value| actual_size(value) as f64) * passes)
            }
            Self::Contains => size(1) as u64,
            Self::Shorter => scan(size(0).min(size(1))),
            Self::Both => scan(size(0) + size(1)),
            Self::Match => scan(1.0 + size(0)).saturating_mul((size(1) * PATTERN).ceil() as u64),
            Self::Substring => scan(size(0)).saturating_mul(scan(size(1))),
            Self::Traversal => args.first().map_or(0, traversal),
            Self::Selector => {
                let requirements = (size(1) * 0.5).ceil();
                LIST + scan(size(1)) + (requirements * (LIST + OBJECT) as f64).ceil() as u64
            }
            Self::Range { blocks, text } => {
                let mut cost = scan(size(0) + size(0));
                if blocks {
                    cost += scan(size(0)) + 1;
                }
                if text {
                    cost += scan(size(1));
                }
                cost
            }
            Self::Format => match args.first() {
                Some(Val::Format(format)) => {
                    scan(1.0 + size(1)).saturating_mul((format.max_regex as f64 * PATTERN).ceil() as u64)
                }
                _ => 1,
            },
            Self::Sets(factor) => 1 + (size(0) * size(1) * factor) as u64,
            Self::MakesList => {
                makes_list(1.0, result.as_ref().map_or(1.0, |value| actual_size(value) as f64))
            }
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Val::Int(depth)) => *depth as f64,
                    _ => 1.0,
                };
                makes_list(depth, size(0))
            }
            Self::SelfCompare(at) => {
                let text = match args.get(at) {
                    Some(Val::List(list)) => matches!(list.get(0), Some(Ok(Val::String(_) | Val::Bytes(_)))),
                    _ => false,
                };
                let factor = if text { 2.0 + TRAVERSAL } else { 2.0 };
                makes_list(factor, size(at) * size(at))
            }
        }
    }
}

fn scan_of(size: f64) -> u64 {
    (size * TRAVERSAL).ceil() as u64
}

fn makes_list(factor: f64, size: f64) -> u64 {
    (size * factor) as u64 + 1 + LIST
}

/// What `==` or `!=` costs.
pub(crate) fn equality(left: &Evaluated<'_>, right: &Evaluated<'_>, equality: Equality) -> u64 {
    let alike = matches!(
        left,
        Ok(Val::Quantity(_)
            | Val::Ip(_)
            | Val::Cidr(_)
            | Val::Format(_)
            | Val::Url(_)
            | Val::Semver(_)
            | Val::Authorization(_))
    );
    if alike && equality == Equality::Equal {
        return 1;
    }
    let size = |of: &Evaluated<'_>| of.as_ref().map_or(1, actual_size);
    scan_of(size(left).min(size(right)) as f64)
}

/// The size of what has one, also inside of an optional; of anything else, 1.
fn actual_size(value: &Val<'_>) -> u64 {
    match value {
        Val::Optional(Some(inner)) => actual_size(inner),
        other => other.size().unwrap_or(1),
    }
}

fn traversal(value: &Val<'_>) -> u64 {
    match value {
        Val::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Val::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Val::List(list) => list.iter().map(|item| item.as_ref().map_or(1, traversal)).sum(),
        Val::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            entries.iter().map(|(key, value)| traversal(key) + traversal(value)).sum()
        }
        _ => 1,
    }
}
