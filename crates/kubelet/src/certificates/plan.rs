//! What a certificate must say, and when it is due. Pure.

use api::core::v1::NodeAddress;
use apimachinery::time::Timestamp;
use pki::{Certificate, San, Subject};
use std::collections::BTreeSet;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub subject: Subject,
    pub sans: Vec<San>,
}

fn subject(node: &str) -> Subject {
    Subject::new(format!("system:node:{node}"), &["system:nodes"])
}

/// To call with.
pub(super) fn calling(node: &str) -> Wanted {
    Wanted { subject: subject(node), sans: Vec::new() }
}

/// To serve with, under a node's addresses; nothing without one.
pub(super) fn serving(node: &str, addresses: &[NodeAddress]) -> Option<Wanted> {
    let (mut names, mut ips) = (BTreeSet::new(), BTreeSet::new());
    for NodeAddress { type_, address, .. } in addresses {
        match (type_.as_str(), San::host(address)) {
            (_, San::Dns(name)) if name.is_empty() => {}
            ("Hostname" | "ExternalIP" | "InternalIP", ip @ San::Ip(_)) => drop(ips.insert(ip)),
            ("Hostname", name) => drop(names.insert(name)),
            ("ExternalDNS" | "InternalDNS", _) => drop(names.insert(San::Dns(address.clone()))),
            _ => {}
        }
    }
    let sans = (!ips.is_empty()).then(|| names.into_iter().chain(ips).collect());
    sans.map(|sans| Wanted { subject: subject(node), sans })
}

impl Wanted {
    /// Whether a certificate says all that is wanted; it may say more.
    pub(super) fn is_met_by(&self, certificate: &Certificate) -> bool {
        let subject = &certificate.subject;
        subject.common_name == self.subject.common_name
            && self.subject.organizations.iter().all(|wanted| subject.organizations.contains(wanted))
            && self.sans.iter().all(|wanted| certificate.sans.contains(wanted))
    }
}

/// When to renew: after 70 to 90 percent of its life, so that nodes made together do not come together. `chance` is
/// somewhere from 0 to 1.
pub(super) fn deadline(certificate: &Certificate, chance: f64) -> Timestamp {
    let (from, to) = (certificate.not_before.as_second(), certificate.not_after.as_second());
    let lives = (to - from) as f64 * (0.7 + 0.2 * chance);
    Timestamp::from_second(from + lives.round() as i64).unwrap_or(certificate.not_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::time::Duration;

    #[test]
    fn names_are_the_nodes_addresses() {
        let check = |addresses: &[(&str, &str)], expected: Expect| {
            let address = |(type_, address): &(&str, &str)| NodeAddress {
                type_: type_.to_string(),
                address: address.to_string(),
            };
            let addresses: Vec<_> = addresses.iter().map(address).collect();
            expected.assert_eq(&format!("{:?}", serving("n", &addresses).map(|wanted| wanted.sans)));
        };
        check(
            &[
                ("InternalIP", "10.0.0.1"),
                ("Hostname", "n"),
                ("InternalIP", "fd00::1"),
                ("InternalDNS", "x.y"),
            ],
            expect![[r#"Some([Dns("n"), Dns("x.y"), Ip(10.0.0.1), Ip(fd00::1)])"#]],
        );
        check(&[("Hostname", "10.0.0.2"), ("InternalIP", "10.0.0.2")], expect!["Some([Ip(10.0.0.2)])"]);
        check(&[("Hostname", "n"), ("InternalIP", "")], expect!["None"]);
        check(&[("InternalIP", "no address")], expect!["None"]);
    }

    #[test]
    fn it_is_renewed_in_time_and_when_it_says_too_little() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ca = pki::Authority::create("ca", Duration::from_secs(1 << 20), now).unwrap();
        let sans = vec![San::Dns("n".into()), San::host("10.0.0.1")];
        let profile = pki::Profile::server(subject("n"), sans, Duration::from_secs(700));
        let certificate = ca.issue(&profile, now).unwrap().certificate;
        // It begins five minutes before it was made: it lives for a thousand seconds.
        for (chance, after) in [(0.0, 400), (0.5, 500), (1.0, 600)] {
            assert_eq!(deadline(&certificate, chance).as_second() - now.as_second(), after);
        }
        let met = |node: &str, sans: &[San]| {
            Wanted { subject: subject(node), sans: sans.to_vec() }.is_met_by(&certificate)
        };
        assert!(met("n", &[San::host("10.0.0.1")]) && met("n", &[]));
        assert!(!met("m", &[]) && !met("n", &[San::host("10.0.0.2")]));
    }
}
