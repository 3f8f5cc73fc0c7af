//! What calls are estimated to cost: Kubernetes' functions by name, the standard ones by overload.

use super::{CallEstimate, CostEstimate, Coster, Entries, Operand, SizeEstimate, scaled, with};
use crate::ast::{Expr, Kind, Literal};
use crate::cost::{CHECK, LIST, OBJECT, PATTERN, TRAVERSAL};
use crate::device::MAX_VALUES;
use crate::types::Type;

impl CallEstimate {
    const fn cost(cost: CostEstimate) -> Self {
        Self { cost, size: None }
    }

    const fn sized(cost: CostEstimate, size: SizeEstimate) -> Self {
        Self { cost, size: Some(size) }
    }

    /// A list of this size is made at so much an element.
    fn list(factor: f64, size: SizeEstimate) -> Self {
        Self::sized(size.scaled(factor).plus(CostEstimate::fixed(1 + LIST)), size)
    }
}

/// The longest pattern of a named format.
const FORMAT_PATTERN: f64 = 128.0;
/// The longest name of a format.
const FORMAT: u64 = 64;

impl Coster<'_> {
    pub(super) fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Operand<'_>>,
        args: &[Operand<'_>],
        costs: &[CostEstimate],
    ) -> CallEstimate {
        let all = costs.iter().fold(CostEstimate::default(), |sum, cost| sum.plus(*cost));
        let special = self
            .tracked(overload, target, args)
            .or_else(|| self.kubernetes(function, overload, target, args));
        if let Some(special) = special {
            return CallEstimate { cost: special.cost.plus(all), size: special.size };
        }
        let standard = self.standard(expr, overload, target, args, costs);
        standard.unwrap_or_else(|| CallEstimate::cost(CostEstimate::fixed(1).plus(all)))
    }

    /// The size of an operand, asked for by path where it has not been computed.
    fn of(&self, operand: &Operand<'_>) -> SizeEstimate {
        operand.size.or_else(|| self.sizes.size(&operand.path)).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn tracked(
        &self,
        overload: &str,
        target: Option<&Operand<'_>>,
        args: &[Operand<'_>],
    ) -> Option<CallEstimate> {
        let sets = |factor: f64| match args {
            [one, other] => {
                let pairs = self.of(one).times(self.of(other)).scaled(factor);
                Some(CallEstimate::cost(pairs.plus(CostEstimate::fixed(1))))
            }
            _ => None,
        };
        let sorted = |operand: &Operand<'_>, id: &str| {
            let text = id.starts_with("list_string_") || id.starts_with("list_bytes_");
            let size = self.of(operand);
            CallEstimate::list(if text { 2.0 + TRAVERSAL } else { 2.0 }, size.times(size))
        };
        match (overload, target, args) {
            ("list_sets_contains_list" | "list_sets_intersects_list", ..) => sets(1.0),
            ("list_sets_equivalent_list", ..) => sets(2.0),
            ("list_slice", Some(target), [start, end]) => {
                let size = self.of(target);
                let (start, end) = (whole(start, 0), whole(end, size.max));
                Some(CallEstimate::list(1.0, SizeEstimate::fixed(end.wrapping_sub(start))))
            }
            ("lists_range", None, [count]) => {
                Some(CallEstimate::list(1.0, SizeEstimate::fixed(whole(count, u64::MAX))))
            }
            ("list_reverse", Some(target), []) => Some(CallEstimate::list(1.0, self.of(target))),
            ("list_flatten" | "list_flatten_int", Some(target), args) => {
                let depth = args.first().map_or(1, |depth| whole(depth, u64::MAX));
                Some(CallEstimate::list(depth as f64, self.of(target)))
            }
            ("list_distinct", Some(target), []) => {
                let size = self.of(target);
                Some(CallEstimate::list(2.0, size.times(size)))
            }
            (id, Some(target), []) if id.ends_with("_sort") => Some(sorted(target, id)),
            ("dra_includes_dyn_dyn", Some(_), _) => {
                let most = MAX_VALUES as u64;
                Some(CallEstimate::cost(CostEstimate { min: 0, max: most }))
            }
            (id, Some(_), [keys]) if id.ends_with("_sortByAssociatedKeys") => Some(sorted(keys, id)),
            _ => None,
        }
    }

    fn kubernetes(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Operand<'_>>,
        args: &[Operand<'_>],
    ) -> Option<CallEstimate> {
        let scan = |operand: &Operand<'_>, passes: f64| self.of(operand).scaled(passes * TRAVERSAL);
        let fixed = |cost| Some(CallEstimate::cost(CostEstimate::fixed(cost)));
        match (function, target, args) {
            ("check", ..) => fixed(CHECK),
            (
                "serviceAccount"
                | "path"
                | "group"
                | "resource"
                | "subresource"
                | "namespace"
                | "name"
                | "allowed"
                | "reason"
                | "error"
                | "errored"
                | "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                ..,
            ) => fixed(1),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let length = self.of(selector);
                let requirements = length.scaled(0.5).scaled((LIST + OBJECT) as f64);
                let parse = CostEstimate::fixed(LIST).plus(length.scaled(TRAVERSAL));
                Some(CallEstimate::cost(parse.plus(requirements)))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                Some(CallEstimate::cost(self.each(target)))
            }
            ("url" | "jsonpatch.escapeKey", _, [text]) => {
                Some(CallEstimate::sized(scan(text, 1.0), self.of(text)))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
                Some(CallEstimate::sized(scan(target, 1.0), self.of(target)))
            }
            ("replace", Some(target), [from, to, ..]) => {
                let size = replaced(self.of(target), self.of(from), self.of(to));
                Some(CallEstimate::sized(scan(target, 2.0), size))
            }
            ("split", Some(target), args) => {
                let parts = args.get(1).map_or(self.of(target).max, |most| match literal(most) {
                    Some(Literal::Int(most)) => *most as u64,
                    _ => self.of(target).max,
                });
                Some(CallEstimate::sized(scan(target, 2.0), SizeEstimate { min: 0, max: parts }))
            }
            ("join", Some(target), args) => {
                let size = self.joined(target, args.first());
                Some(CallEstimate::sized(size.scaled(TRAVERSAL), size))
            }
            ("find" | "findAll", Some(target), [pattern, ..]) => {
                let size = SizeEstimate { min: 0, max: self.of(target).max };
                Some(CallEstimate::sized(self.matched(self.of(target), self.of(pattern)), size))
            }
            ("ip", ..) if overload == "cidr_ip" => fixed(1),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                _,
                [text, ..],
            ) => Some(CallEstimate::cost(scan(text, 1.0))),
            ("ip.isCanonical", _, [text]) => Some(CallEstimate::cost(scan(text, 2.0))),
            ("containsIP" | "containsCIDR", _, [other]) => {
                let address = SizeEstimate { min: 4, max: 16 };
                let mut cost = address.plus(address).scaled(TRAVERSAL);
                if function == "containsCIDR" {
                    cost = cost.plus(address.scaled(TRAVERSAL)).plus(CostEstimate::fixed(1));
                }
                if overload.ends_with("_string") {
                    cost = cost.plus(scan(other, 1.0));
                }
                Some(CallEstimate::cost(cost))
            }
            ("validate", _, [text]) => {
                Some(CallEstimate::cost(scan(text, 1.0).scaled(FORMAT_PATTERN * PATTERN)))
            }
            ("_==_", _, [left, right]) if left.of == right.of => {
                let most = match &left.of {
                    Type::Opaque(name, _) if matches!(&**name, "net.IP" | "net.CIDR") => return fixed(1),
                    Type::Object(name) => match &**name {
                        "kubernetes.Quantity" | "kubernetes.Semver" => return fixed(1),
                        name if name.starts_with("kubernetes.authorization.") => return fixed(1),
                        "kubernetes.NamedFormat" => FORMAT,
                        "kubernetes.URL" => right.size.map_or(1, |size| size.max),
                        _ => return None,
                    },
                    _ => return None,
                };
                Some(CallEstimate::cost(CostEstimate { min: 1, max: most }.scaled(TRAVERSAL)))
            }
            _ => None,
        }
    }

    fn matched(&self, text: SizeEstimate, pattern: SizeEstimate) -> CostEstimate {
        let text = text.plus(SizeEstimate::fixed(1)).scaled(TRAVERSAL);
        text.times(pattern.scaled(PATTERN))
    }

    /// The elements of a list.
    fn items(list: &Operand<'_>) -> Option<Operand<'static>> {
        let of = (*list.of.parameters().first()?).clone();
        let path = if list.path.is_empty() { Vec::new() } else { with(list.path.clone(), "@items") };
        Some(Operand { path, of, expr: None, size: None })
    }

    /// Looking at every element once; of a string, at every character.
    fn each(&self, target: &Operand<'_>) -> CostEstimate {
        let Some(items) = Self::items(target) else { return self.of(target).scaled(TRAVERSAL) };
        let mut cost = CostEstimate::fixed(1);
        if matches!(items.of, Type::String | Type::Bytes) {
            cost = cost.plus(self.of(&items).scaled(TRAVERSAL));
        }
        self.of(target).times(cost)
    }

    fn joined(&self, target: &Operand<'_>, separator: Option<&Operand<'_>>) -> SizeEstimate {
        let list = self.of(target);
        let mut size =
            Self::items(target).map_or_else(SizeEstimate::default, |items| list.times(self.of(&items)));
        if let Some(separator) = separator {
            let gaps = SizeEstimate { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
            size = size.plus(self.of(separator).times(gaps));
        }
        size
    }

    fn standard(
        &mut self,
        expr: &Expr,
        overload: &str,
        target: Option<&Operand<'_>>,
        args: &[Operand<'_>],
        costs: &[CostEstimate],
    ) -> Option<CallEstimate> {
        let all = costs.iter().fold(CostEstimate::default(), |sum, cost| sum.plus(*cost));
        let known = |operand: &Operand<'_>| operand.size.unwrap_or(SizeEstimate::UNKNOWN);
        let plain = |cost: CostEstimate| Some(CallEstimate::cost(cost.plus(all)));
        match (overload, target, args) {
            ("string_format", Some(target), _) => plain(known(target).scaled(TRAVERSAL)),
            ("string_to_bytes", _, [text]) => {
                let size = known(text);
                let made = SizeEstimate { min: size.min, max: size.max.wrapping_mul(4) };
                Some(CallEstimate::sized(size.scaled(TRAVERSAL).plus(all), made))
            }
            ("bytes_to_string", _, [bytes]) => {
                let size = known(bytes);
                let made = SizeEstimate { min: size.min / 4, max: size.max };
                Some(CallEstimate::sized(size.scaled(TRAVERSAL).plus(all), made))
            }
            ("strings_quote", _, [text]) => {
                let size = known(text);
                let most = size.max.wrapping_mul(2).wrapping_add(2);
                let made = SizeEstimate { min: size.min.wrapping_add(2), max: most };
                Some(CallEstimate::sized(size.scaled(TRAVERSAL).plus(all), made))
            }
            ("starts_with_string" | "ends_with_string", _, [text]) => plain(known(text).scaled(TRAVERSAL)),
            ("in_list", _, [_, list]) => plain(known(list).scaled(1.0)),
            ("matches_string", Some(target), [pattern]) => plain(self.matched(known(target), known(pattern))),
            ("contains_string", Some(target), [text]) => {
                plain(known(target).scaled(TRAVERSAL).times(known(text).scaled(TRAVERSAL)))
            }
            ("logical_or" | "logical_and", ..) => {
                let (left, right) = (costs.first()?, costs.get(1)?);
                Some(CallEstimate::cost(CostEstimate { min: left.min, max: left.plus(*right).max }))
            }
            ("conditional", _, [_, truthy, falsy]) => {
                let size = known(truthy).union(known(falsy));
                let entries = Entries::union(self.entries_of(truthy.expr?), self.entries_of(falsy.expr?));
                if let Some(entries) = entries {
                    self.entries.insert(expr.id, entries);
                }
                Some(CallEstimate::sized(costs[0].plus(costs[1].union(costs[2])), size))
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => {
                let size = known(left).plus(known(right));
                let entries = Entries::union(self.entries_of(left.expr?), self.entries_of(right.expr?));
                if let Some(entries) = entries {
                    self.entries.insert(expr.id, entries);
                }
                let cost =
                    if overload == "add_list" { CostEstimate::fixed(1) } else { size.scaled(TRAVERSAL) };
                Some(CallEstimate::sized(cost.plus(all), size))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                [left, right],
            ) => {
                let most = known(left).max.min(known(right).max);
                plain(CostEstimate { min: most.min(1), max: most }.scaled(TRAVERSAL))
            }
            _ => None,
        }
    }
}

fn literal<'e>(operand: &Operand<'e>) -> Option<&'e Literal> {
    match &operand.expr?.kind {
        Kind::Literal(literal) => Some(literal),
        _ => None,
    }
}

/// A constant number, none below zero.
fn whole(operand: &Operand<'_>, otherwise: u64) -> u64 {
    match literal(operand) {
        Some(Literal::Int(value)) => u64::try_from(*value).unwrap_or(0),
        _ => otherwise,
    }
}

/// The size of a string in which one string has been replaced by another.
fn replaced(text: SizeEstimate, from: SizeEstimate, to: SizeEstimate) -> SizeEstimate {
    let (mut count, mut kept) = (SizeEstimate::default(), SizeEstimate::default());
    if from.min == 0 {
        // The replacement of nothing goes around every character.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if to.max <= from.min {
        kept.max = text.max;
    } else {
        count.max = divided(text.max, from.min);
    }
    if from.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if from.max <= to.min {
        kept.min = text.min;
    } else {
        count.min = divided(text.min, from.max);
    }
    count.times(to).plus(kept)
}

fn divided(size: u64, by: u64) -> u64 {
    scaled(1, (size as f64 / by as f64).ceil())
}
