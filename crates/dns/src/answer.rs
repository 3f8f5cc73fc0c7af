//! From a question to an answer of the zone, by the specification and, where that is silent, as CoreDNS answers.
//!
//! Pure: a question and an [`Index`] in, a [`Reply`] out, or [`Answer::NotHere`] for what the upstreams know.

use crate::records::{Target, undashed};
use crate::zone::{Filter, Hit, Index, Owner, Service};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::IpAddr;

/// The version of the specification, at `dns-version.<zone>`.
const VERSION: &str = "1.1.0";
/// An alias that leads to an alias within the zone is followed this far.
const MAX_ALIASES: usize = 8;
/// The Service whose addresses the zone's name server has.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// The zone's constants.
#[derive(Debug, Clone)]
pub struct Zone {
    pub name: Name,
    pub ttl: u32,
    name_server: Name,
    hostmaster: Name,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// As the client wrote it; answers repeat its case.
    pub name: &'a Name,
    pub record_type: RecordType,
    /// Where the addresses of an answer begin, so that not all clients take the same one: the message's id.
    pub turn: u16,
}

/// What the zone says to a question.
#[derive(Debug)]
pub enum Answer {
    Here(Reply),
    /// Neither below the zone nor an address of it.
    NotHere,
}

/// The sections of an answer.
#[derive(Debug)]
pub struct Reply {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    /// The answer ends with an alias out of the zone: the same is to be asked of this name upstream, and appended.
    pub alias: Option<Name>,
}

impl Reply {
    pub(crate) fn new(code: ResponseCode) -> Self {
        Reply { code, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new(), alias: None }
    }

    /// Whether this says that something is not there, which must not be said before everything was seen.
    pub fn is_negative(&self, asked: RecordType) -> bool {
        let last = self.answers.last().map(Record::record_type);
        self.alias.is_none() && last.is_none_or(|t| t == RecordType::CNAME && asked != t)
    }
}

/// What a name of the zone stands for.
enum Node<'a> {
    Nothing,
    /// Exists, and has no records but those of names below it.
    Empty,
    Apex,
    Version,
    NameServer,
    Service(&'a Service, Filter<'a>, ServiceName<'a>),
    Pod(IpAddr),
}

#[derive(Clone, Copy)]
struct ServiceName<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Zone {
    /// `name` is the cluster's domain, such as `cluster.local`; `None` if it is not one, or the root.
    pub fn new(name: &str, ttl: u32) -> Option<Zone> {
        let mut name = Name::from_ascii(name).ok()?.to_lowercase();
        name.set_fqdn(true);
        if name.is_root() {
            return None;
        }
        let below = |label| Name::from_ascii(label).and_then(|n| n.append_domain(&name)).ok();
        Some(Zone { name_server: below("ns.dns")?, hostmaster: below("hostmaster")?, name, ttl })
    }

    /// Whether the name is the zone's or below it.
    pub fn contains(&self, name: &Name) -> bool {
        let (mut ours, mut theirs) = (self.name.iter().rev(), name.iter().rev());
        ours.len() <= theirs.len() && ours.all(|a| theirs.next().is_some_and(|b| a.eq_ignore_ascii_case(b)))
    }

    pub fn answer(&self, index: &Index, question: Question<'_>) -> Answer {
        if !self.contains(question.name) {
            return self.reverse(index, question).map_or(Answer::NotHere, Answer::Here);
        }
        let mut reply = Reply::new(ResponseCode::NoError);
        self.resolve(index, question, &mut reply, 0);
        if reply.is_negative(question.record_type) {
            reply.authorities.push(self.soa(index, &self.name));
        }
        Answer::Here(reply)
    }

    fn resolve(&self, index: &Index, question: Question<'_>, reply: &mut Reply, aliases: usize) {
        let mut text = [0; Name::MAX_LENGTH];
        let node = match labels(question.name, self.name.iter().len(), &mut text) {
            Some(labels) => self.find(index, labels.as_slice()),
            None => Node::Nothing,
        };
        let record = |data| Record::from_rdata(question.name.clone(), self.ttl, data);
        match (node, question.record_type) {
            (Node::Nothing, _) => reply.code = ResponseCode::NXDomain,
            (Node::Apex, RecordType::SOA) => reply.answers.push(self.soa(index, question.name)),
            (Node::Apex, RecordType::NS) => {
                reply.answers.push(record(RData::NS(NS(self.name_server.clone()))));
                reply.additionals = self.name_server(index, &self.name_server, None);
            }
            (Node::Version, RecordType::TXT) => {
                reply.answers.push(record(RData::TXT(TXT::new(vec![VERSION.to_owned()]))));
            }
            (Node::NameServer, wanted) => {
                reply.answers.extend(self.name_server(index, question.name, Some(wanted)));
            }
            (Node::Pod(ip), wanted) if wanted == type_of(ip) => reply.answers.push(record(address(ip))),
            (Node::Service(service, filter, name), wanted) => {
                if let Some(Target::Name(target)) = service.facts().map(|f| &f.target) {
                    match (target, filter) {
                        (Some(target), Filter::All) => {
                            reply.answers.push(record(RData::CNAME(CNAME(target.clone()))));
                            self.follow(index, question, target, reply, aliases);
                        }
                        _ => reply.code = ResponseCode::NXDomain,
                    }
                    return;
                }
                let found = match wanted {
                    RecordType::A | RecordType::AAAA => self.addresses(service, filter, question, reply),
                    RecordType::SRV => self.srv(service, filter, name, question, reply),
                    _ => service.visit(filter, &mut |_| {}),
                };
                if !found {
                    reply.code = ResponseCode::NXDomain;
                }
            }
            _ => {}
        }
    }

    fn follow(&self, index: &Index, asked: Question<'_>, target: &Name, reply: &mut Reply, aliases: usize) {
        if asked.record_type == RecordType::CNAME {
            return;
        }
        if aliases == MAX_ALIASES {
            reply.code = ResponseCode::ServFail;
        } else if self.contains(target) {
            self.resolve(index, Question { name: target, ..asked }, reply, aliases + 1);
        } else {
            reply.alias = Some(target.clone());
        }
    }

    fn find<'a>(&self, index: &'a Index, labels: &[&'a str]) -> Node<'a> {
        let exists = |yes| if yes { Node::Empty } else { Node::Nothing };
        match *labels {
            [] => Node::Apex,
            ["dns-version"] => Node::Version,
            ["dns" | "svc" | "pod"] => Node::Empty,
            ["dns", "ns"] => Node::NameServer,
            ["svc" | "pod", namespace] => exists(index.has_namespace(namespace)),
            ["pod", namespace, label] => match undashed(label) {
                Some(ip) if index.has_namespace(namespace) => Node::Pod(ip),
                _ => Node::Nothing,
            },
            ["svc", namespace, name, ref rest @ ..] => {
                let Some(service) = index.service(namespace, name) else { return Node::Nothing };
                let filter = match *rest {
                    [] => Filter::All,
                    [label] => match label.strip_prefix('_') {
                        Some(protocol) => return exists(service.has_protocol(protocol)),
                        None => Filter::Endpoint(label),
                    },
                    [protocol, port] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                        (Some(port), Some(protocol)) => Filter::Port(port, protocol),
                        _ => return Node::Nothing,
                    },
                    _ => return Node::Nothing,
                };
                Node::Service(service, filter, ServiceName { namespace, name })
            }
            _ => Node::Nothing,
        }
    }

    fn addresses(
        &self,
        service: &Service,
        filter: Filter<'_>,
        asked: Question<'_>,
        reply: &mut Reply,
    ) -> bool {
        let mut addresses = Vec::new();
        let found = service.visit(filter, &mut |hit| {
            if type_of(hit.address) == asked.record_type {
                addresses.push(hit.address);
            }
        });
        addresses.sort_unstable();
        addresses.dedup();
        if !addresses.is_empty() {
            let turn = usize::from(asked.turn) % addresses.len();
            addresses.rotate_left(turn);
        }
        let record = |ip| Record::from_rdata(asked.name.clone(), self.ttl, address(ip));
        reply.answers.extend(addresses.into_iter().map(record));
        found
    }

    fn srv(
        &self,
        service: &Service,
        filter: Filter<'_>,
        name: ServiceName<'_>,
        asked: Question<'_>,
        reply: &mut Reply,
    ) -> bool {
        // Host label (`None` for the Service itself), address and port of each.
        let mut hosts: Vec<(Option<String>, IpAddr, &[crate::records::Port])> = Vec::new();
        let found = service.visit(filter, &mut |Hit { address, endpoint, ports }| {
            hosts.push((endpoint.map(|e| e.label()), address, ports));
        });
        hosts.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let base = Name::from_labels([name.name.as_bytes(), name.namespace.as_bytes(), b"svc"])
            .and_then(|n| n.append_domain(&self.name));
        let Ok(base) = base else { return found };
        let mut targets: Vec<(Name, u16)> = Vec::new();
        for host in hosts.chunk_by(|a, b| a.0 == b.0) {
            let target = match &host[0].0 {
                Some(label) => base.prepend_label(label.as_bytes()),
                None => Ok(base.clone()),
            };
            let Ok(target) = target else { continue };
            let first = targets.len();
            for (_, _, ports) in host {
                for port in ports.iter().filter(|p| filter.port(p)) {
                    // In another slice of the same Service, or for the other family.
                    if !targets[first..].iter().any(|(_, p)| *p == port.port) {
                        targets.push((target.clone(), port.port));
                    }
                }
            }
            if targets.len() == first {
                continue;
            }
            for ips in host.chunk_by(|a, b| a.1 == b.1) {
                let data = address(ips[0].1);
                reply.additionals.push(Record::from_rdata(target.clone(), self.ttl, data));
            }
        }
        let weight = (100 / targets.len().max(1)).max(1) as u16;
        reply.answers.extend(targets.into_iter().map(|(target, port)| {
            let data = RData::SRV(SRV::new(0, weight, port, target));
            Record::from_rdata(asked.name.clone(), self.ttl, data)
        }));
        found
    }

    /// The addresses of the cluster's DNS, of one type or all.
    fn name_server(&self, index: &Index, owner: &Name, wanted: Option<RecordType>) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(service) = index.service(DNS_SERVICE.0, DNS_SERVICE.1) {
            service.visit(Filter::All, &mut |hit| {
                if wanted.is_none_or(|w| w == type_of(hit.address)) {
                    records.push(Record::from_rdata(owner.clone(), self.ttl, address(hit.address)));
                }
            });
        }
        records
    }

    fn soa(&self, index: &Index, owner: &Name) -> Record {
        // The lower half: serials wrap.
        let serial = index.revision() as u32;
        let (server, hostmaster) = (self.name_server.clone(), self.hostmaster.clone());
        let soa = SOA::new(server, hostmaster, serial, 7200, 1800, 86400, self.ttl);
        Record::from_rdata(owner.clone(), self.ttl, RData::SOA(soa))
    }

    /// The names of an address; `None` for what is no address of the cluster.
    fn reverse(&self, index: &Index, asked: Question<'_>) -> Option<Reply> {
        if !is_arpa(asked.name) {
            return None;
        }
        let net = asked.name.parse_arpa_name().ok()?;
        if net.prefix_len() != net.max_prefix_len() {
            return None;
        }
        let owners = index.owners(net.addr());
        let mut reply = Reply::new(ResponseCode::NoError);
        let of = |wanted: fn(&&Owner) -> bool| owners.iter().filter(wanted);
        let service = of(|o| o.endpoint.is_none()).find_map(|o| self.owner_name(index, o, net.addr()));
        let mut names: Vec<Name> = match service {
            Some(name) => vec![name],
            None => {
                of(|o| o.endpoint.is_some()).filter_map(|o| self.owner_name(index, o, net.addr())).collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return None;
        }
        if asked.record_type == RecordType::PTR {
            let record = |name| Record::from_rdata(asked.name.clone(), self.ttl, RData::PTR(PTR(name)));
            reply.answers.extend(names.into_iter().map(record));
        } else {
            reply.authorities.push(self.soa(index, asked.name));
        }
        Some(reply)
    }

    fn owner_name(&self, index: &Index, owner: &Owner, ip: IpAddr) -> Option<Name> {
        // A slice may outlive its Service a little.
        index.service(&owner.namespace, &owner.service)?;
        let labels = [owner.service.as_bytes(), owner.namespace.as_bytes(), b"svc"];
        let name = Name::from_labels(labels).and_then(|n| n.append_domain(&self.name)).ok()?;
        match &owner.endpoint {
            None => Some(name),
            Some(endpoint) => {
                let dashed = || crate::records::dashed(ip).into();
                let label = endpoint.hostname.clone().unwrap_or_else(dashed);
                name.prepend_label(label.as_bytes()).ok()
            }
        }
    }
}

/// The labels in front of the zone, nearest to it first.
struct Labels<'a> {
    labels: [&'a str; MAX_LABELS],
    len: usize,
}

const MAX_LABELS: usize = 5;

impl<'a> Labels<'a> {
    fn as_slice(&self) -> &[&'a str] {
        &self.labels[..self.len]
    }
}

/// Splits a name of the zone, in lower case; `None` if it is longer than any name of the zone, or not text.
fn labels<'a>(name: &Name, zone: usize, text: &'a mut [u8; Name::MAX_LENGTH]) -> Option<Labels<'a>> {
    let mut labels = Labels { labels: [""; MAX_LABELS], len: 0 };
    let mut rest: &'a mut [u8] = text;
    for label in name.iter().rev().skip(zone) {
        let (here, there) = rest.split_at_mut_checked(label.len())?;
        rest = there;
        here.copy_from_slice(label);
        here.make_ascii_lowercase();
        *labels.labels.get_mut(labels.len)? = std::str::from_utf8(here).ok()?;
        labels.len += 1;
    }
    Some(labels)
}

/// Whether a name is below `in-addr.arpa` or `ip6.arpa`.
pub fn is_arpa(name: &Name) -> bool {
    let mut labels = name.iter().rev();
    let mut next = |words: &[&str]| {
        labels.next().is_some_and(|l| words.iter().any(|w| l.eq_ignore_ascii_case(w.as_bytes())))
    };
    next(&["arpa"]) && next(&["in-addr", "ip6"])
}

fn type_of(ip: IpAddr) -> RecordType {
    if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}
