//! What a ServiceCIDR needs next. Pure.

use apimachinery::time::{Duration, Time};
use apimachinery::validation::{Cidr, parse_cidr_sloppy};
use std::net::IpAddr;

/// How long a range that may go is kept, so that every API server knows by then that nothing is taken from it.
const GRACE: Duration = Duration::from_seconds(10);

/// The condition `Ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: &'static str,
}

pub(super) const READY: Ready =
    Ready { status: "True", reason: "", message: "Kubernetes Service CIDR is ready" };
pub(super) const TERMINATING: Ready = Ready {
    status: "False",
    reason: "Terminating",
    message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
};

/// What is known of a ServiceCIDR.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    pub name: String,
    pub cidrs: Vec<String>,
    pub deleting: Option<Time>,
    /// It has our finalizer.
    pub held: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hold it, and say that it is ready.
    Keep,
    /// Say why it stays.
    Wait,
    /// Look again then.
    Until(Time),
    Release,
}

fn blocks(range: &Range) -> impl Iterator<Item = Cidr> + '_ {
    range.cidrs.iter().filter_map(|cidr| parse_cidr_sloppy(cidr))
}

/// Whether an address of a block is one that Services get: its own is not, nor IPv4's broadcast address.
fn holds(block: &Cidr, address: IpAddr) -> bool {
    let last = match (block.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(_)) => {
            let span = u32::MAX.checked_shr(block.prefix.into()).unwrap_or(0);
            Some(IpAddr::V4((network.to_bits() | span).into()))
        }
        _ => None,
    };
    block.contains(address) && address != block.network() && Some(address) != last
}

/// The ranges that hold an address.
pub(super) fn holding(ranges: &[Range], address: IpAddr) -> impl Iterator<Item = &Range> {
    ranges.iter().filter(move |range| blocks(range).any(|block| holds(&block, address)))
}

/// The ranges that share addresses with one.
pub(super) fn overlapping<'a>(ranges: &'a [Range], one: &'a Range) -> impl Iterator<Item = &'a Range> {
    let shares = |a: &Cidr, b: &Cidr| a.contains(b.network()) || b.contains(a.network());
    ranges.iter().filter(move |other| blocks(other).any(|a| blocks(one).any(|b| shares(&a, &b))))
}

/// `addresses` are those that Services have.
pub(super) fn plan(range: &Range, ranges: &[Range], addresses: &[IpAddr], now: Time) -> Step {
    let Some(since) = range.deleting else { return Step::Keep };
    if !may_go(range, ranges, addresses) {
        return Step::Wait;
    }
    match since.plus(GRACE) {
        then if then > now => Step::Until(then),
        _ => Step::Release,
    }
}

/// Whether no address is left without a range.
fn may_go(range: &Range, ranges: &[Range], addresses: &[IpAddr]) -> bool {
    let others = || ranges.iter().filter(|other| other.name != range.name);
    let contains = |a: &Cidr, b: &Cidr| a.prefix <= b.prefix && a.contains(b.network());
    if blocks(range).all(|block| others().any(|other| blocks(other).any(|a| contains(&a, &block)))) {
        return true;
    }
    let mut own = addresses.iter().filter(|address| blocks(range).any(|block| holds(&block, **address)));
    own.all(|address| holding(ranges, *address).any(|other| other.name != range.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn range(text: &str) -> Range {
        let mut words = text.split(' ');
        let name = words.next().unwrap().to_owned();
        let (deleting, cidrs): (Vec<&str>, Vec<&str>) = words.partition(|word| *word == "deleted");
        let deleting = deleting.first().map(|_| "2026-01-01T00:00:00Z".parse().unwrap());
        Range { name, cidrs: cidrs.into_iter().map(Into::into).collect(), deleting, held: true }
    }

    fn check(ranges: &[&str], addresses: &[&str], second: u8, expected: &str) {
        let ranges: Vec<Range> = ranges.iter().map(|text| range(text)).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let now = format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        let step = plan(&ranges[0], &ranges, &addresses, now);
        assert_eq!(format!("{step:?}"), expected, "{ranges:?} {addresses:?}");
    }

    #[test]
    fn a_range_goes_when_no_address_needs_it() {
        check(&["a 10.0.0.0/24"], &[], 0, "Keep");
        check(&["a deleted 10.0.0.0/24"], &["10.0.0.5"], 30, "Wait");
        check(&["a deleted 10.0.0.0/24"], &["10.1.0.5"], 30, "Release");
        check(&["a deleted 10.0.0.0/24"], &["10.0.0.0", "10.0.0.255"], 30, "Release");
        // Another range holds all of it, or the addresses that are taken.
        check(&["a deleted 10.0.0.0/24", "b 10.0.0.0/16"], &["10.0.0.5"], 30, "Release");
        check(&["a deleted 10.0.0.0/24", "b 10.0.0.0/24"], &["10.0.0.5"], 30, "Release");
        check(&["a deleted 10.0.0.0/16", "b 10.0.0.0/24"], &["10.0.0.5"], 30, "Release");
        check(&["a deleted 10.0.0.0/16", "b 10.0.0.0/24"], &["10.0.0.5", "10.0.1.5"], 30, "Wait");
        check(&["a deleted 10.0.0.0/24 fd00::/112", "b 10.0.0.0/24"], &["fd00::5"], 30, "Wait");
        // Nobody takes from it any more only when everybody knows.
        let until = format!("{:?}", Step::Until("2026-01-01T00:00:10Z".parse().unwrap()));
        check(&["a deleted 10.0.0.0/24"], &[], 9, &until);
        check(&["a deleted 10.0.0.0/24"], &[], 10, "Release");
    }

    #[test]
    fn those_that_share_addresses_are_looked_at_together() {
        let ranges = ["a 10.0.0.0/16", "b 10.0.1.0/24", "c 10.1.0.0/16", "d fd00::/112"].map(range);
        let names =
            |one: &Range| overlapping(&ranges, one).map(|r| r.name.clone()).collect::<Vec<_>>().concat();
        assert_eq!(ranges.iter().map(names).collect::<Vec<_>>(), ["ab", "ab", "c", "d"]);
    }
}
