//! CoreDNS' metrics, under their names, so that what graphs CoreDNS graphs this. Label values that every request needs
//! are looked up once.

use component::metrics::{
    Counter, CounterVec, Histogram, HistogramVec, Opts, Registry, Stability, exponential_buckets,
};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::net::SocketAddr;
use std::sync::OnceLock;

/// The server block that the usual Corefile has: one, for everything.
const ZONE: &str = ".";
const SIZES: &[f64] =
    &[0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3];
/// The types that are counted by name; all others are `other`.
const TYPES: [(RecordType, &str); 16] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::AXFR, "AXFR"),
    (RecordType::ANY, "ANY"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::IXFR, "IXFR"),
    (RecordType::MX, "MX"),
    (RecordType::NAPTR, "NAPTR"),
    (RecordType::NS, "NS"),
    (RecordType::PTR, "PTR"),
    (RecordType::SOA, "SOA"),
    (RecordType::SRV, "SRV"),
    (RecordType::SVCB, "SVCB"),
    (RecordType::TXT, "TXT"),
    (RecordType::DS, "DS"),
];
/// The codes of the first sixteen that are used.
const CODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
];

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Who answered, by the name of CoreDNS' plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plugin {
    None,
    Kubernetes,
    Cache,
    Forward,
}

const PLUGINS: [&str; 4] = ["", "kubernetes", "cache", "forward"];

/// The metrics of all listeners.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: CounterVec,
    responses: CounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    cache_requests: CounterVec,
    cache_hits: CounterVec,
    cache_misses: CounterVec,
    upstream: HistogramVec,
    pub rejected: Counter,
    pub panics: Counter,
}

/// The metrics of one listener.
pub(crate) struct ServerMetrics {
    all: Metrics,
    name: String,
    requests: Cells<Counter>,
    responses: Cells<Counter>,
    duration: Histogram,
    sizes: [(Histogram, Histogram); 2],
    cache_requests: Counter,
    cache_misses: Counter,
    cache_hits: [Counter; 2],
}

/// Children of a vector, looked up when they are first used: an unused one is not shown.
struct Cells<M>(Box<[OnceLock<M>]>);

impl<M> Cells<M> {
    fn new(len: usize) -> Self {
        Cells((0..len).map(|_| OnceLock::new()).collect())
    }
}

fn opts<'a>(name: &'a str, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability: Stability::Unmarked }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let times = exponential_buckets(0.00025, 2.0, 16);
        let counter = |name, help, labels: &[&str]| registry.counter_vec(opts(name, help), labels);
        let histogram = |name, help, labels: &[&str], buckets: &[f64]| {
            registry.histogram_vec(opts(name, help), labels, buckets)
        };
        let by_proto = ["server", "zone", "view", "proto"];
        Metrics {
            requests: counter(
                "coredns_dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family.",
                &["server", "zone", "view", "proto", "family", "type"],
            ),
            responses: counter(
                "coredns_dns_responses_total",
                "Counter of response status codes.",
                &["server", "zone", "view", "rcode", "plugin"],
            ),
            duration: histogram(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                &["server", "zone", "view"],
                &times,
            ),
            request_size: histogram(
                "coredns_dns_request_size_bytes",
                "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
                &by_proto,
                SIZES,
            ),
            response_size: histogram(
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes.",
                &by_proto,
                SIZES,
            ),
            cache_requests: counter(
                "coredns_cache_requests_total",
                "The count of cache requests.",
                &["server", "zones", "view"],
            ),
            cache_hits: counter(
                "coredns_cache_hits_total",
                "The count of cache hits.",
                &["server", "type", "zones", "view"],
            ),
            cache_misses: counter(
                "coredns_cache_misses_total",
                "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
                &["server", "zones", "view"],
            ),
            upstream: histogram(
                "coredns_proxy_request_duration_seconds",
                "Histogram of the time each request took.",
                &["proxy_name", "to", "rcode"],
                &times,
            ),
            rejected: registry.counter(opts(
                "coredns_forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum.",
            )),
            panics: registry
                .counter(opts("coredns_panics_total", "A metrics that counts the number of panics.")),
        }
    }

    /// An upstream answered.
    pub(crate) fn upstream(&self, to: &str, code: u16, start: std::time::Instant) {
        self.upstream.with(&["forward", to, rcode(code)]).observe_since(start);
    }

    /// The part of one listener.
    pub(crate) fn server(&self, address: SocketAddr) -> ServerMetrics {
        let name = format!("dns://{address}");
        let server = [name.as_str(), ZONE, ""];
        let sizes = ["udp", "tcp"].map(|proto| {
            let labels = [name.as_str(), ZONE, "", proto];
            (self.request_size.with(&labels), self.response_size.with(&labels))
        });
        ServerMetrics {
            requests: Cells::new(2 * 2 * (TYPES.len() + 1)),
            responses: Cells::new(PLUGINS.len() * 16),
            duration: self.duration.with(&server),
            sizes,
            cache_requests: self.cache_requests.with(&server),
            cache_misses: self.cache_misses.with(&server),
            cache_hits: ["success", "denial"].map(|t| self.cache_hits.with(&[&name, t, ZONE, ""])),
            all: self.clone(),
            name,
        }
    }
}

impl ServerMetrics {
    /// A request was read.
    pub(crate) fn request(
        &self,
        transport: Transport,
        peer: SocketAddr,
        record_type: RecordType,
        size: usize,
    ) {
        let kind = TYPES.iter().position(|(t, _)| *t == record_type).unwrap_or(TYPES.len());
        let (tcp, v6) = (usize::from(transport == Transport::Tcp), usize::from(peer.is_ipv6()));
        let cell = &self.requests.0[(tcp * 2 + v6) * (TYPES.len() + 1) + kind];
        let counter = cell.get_or_init(|| {
            let kind = TYPES.get(kind).map_or("other", |(_, name)| name);
            let (proto, family) = (["udp", "tcp"][tcp], ["1", "2"][v6]);
            self.all.requests.with(&[&self.name, ZONE, "", proto, family, kind])
        });
        counter.inc();
        self.sizes[tcp].0.observe(size as f64);
    }

    /// An answer was written, `code` being the low part of its code.
    pub(crate) fn response(
        &self,
        to: Transport,
        plugin: Plugin,
        code: u8,
        size: usize,
        start: std::time::Instant,
    ) {
        let code = code & 0x0f;
        let plugin = plugin as usize;
        let counter = self.responses.0[plugin * 16 + usize::from(code)].get_or_init(|| {
            let labels = [&self.name, ZONE, "", rcode(code.into()), PLUGINS[plugin]];
            self.all.responses.with(&labels)
        });
        counter.inc();
        self.sizes[usize::from(to == Transport::Tcp)].1.observe(size as f64);
        self.duration.observe_since(start);
    }

    pub(crate) fn cache_hit(&self, denial: bool) {
        self.cache_requests.inc();
        self.cache_hits[usize::from(denial)].inc();
    }

    pub(crate) fn cache_miss(&self) {
        self.cache_requests.inc();
        self.cache_misses.inc();
    }
}

fn rcode(code: u16) -> &'static str {
    match code {
        c if c == u16::from(ResponseCode::BADVERS) => "BADVERS",
        _ => CODES.get(usize::from(code)).copied().unwrap_or("other"),
    }
}
