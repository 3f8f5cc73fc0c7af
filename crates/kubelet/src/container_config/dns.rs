//! Which name servers a pod asks: its policy, its own additions, and the node's resolv.conf. Pure.
//! Upstream: `pkg/kubelet/network/dns`.

use api::core::v1::{Pod, PodDNSConfig};
use cri::v1::DnsConfig;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// What the cluster offers.
#[derive(Debug, Clone)]
pub(crate) struct ClusterDns {
    pub servers: Vec<String>,
    pub domain: String,
}

/// The configuration of a pod, and warnings for events (`DNSConfigForming`).
pub(crate) fn config(pod: &Pod, cluster: &ClusterDns, node_resolv_conf: &str) -> (DnsConfig, Vec<String>) {
    let mut out = parse_resolv_conf(node_resolv_conf);
    let cluster_first = match pod.spec.dns_policy.as_str() {
        "ClusterFirstWithHostNet" => true,
        "None" => {
            out = DnsConfig::default();
            false
        }
        "Default" => false,
        _ => !pod.spec.host_network,
    };
    if cluster_first && !cluster.servers.is_empty() {
        out.servers = cluster.servers.clone();
        let mut searches = vec![];
        if !cluster.domain.is_empty() {
            let domain = &cluster.domain;
            searches = vec![
                format!("{}.svc.{domain}", pod.metadata.namespace),
                format!("svc.{domain}"),
                domain.clone(),
            ];
        }
        let more: Vec<String> = out.searches.iter().filter(|s| !searches.contains(s)).cloned().collect();
        searches.extend(more);
        out.searches = searches;
        out.options = vec!["ndots:5".into()];
    }
    if let Some(own) = &pod.spec.dns_config {
        add(&mut out, own);
    }
    let warnings = fit(&mut out);
    (out, warnings)
}

fn add(out: &mut DnsConfig, own: &PodDNSConfig) {
    let union = |list: &mut Vec<String>, more: &[String]| {
        for item in more {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    };
    union(&mut out.servers, &own.nameservers);
    union(&mut out.searches, &own.searches);
    for option in &own.options {
        let text = match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
            _ => option.name.clone(),
        };
        out.options.retain(|o| o.split(':').next() != Some(option.name.as_str()));
        out.options.push(text);
    }
}

fn fit(out: &mut DnsConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if out.servers.len() > MAX_SERVERS {
        out.servers.truncate(MAX_SERVERS);
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            out.servers.join(" ")
        ));
    }
    let before = out.searches.len();
    out.searches.truncate(MAX_SEARCHES);
    while out.searches.join(" ").len() > MAX_SEARCH_CHARS {
        out.searches.pop();
    }
    if out.searches.len() < before {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            out.searches.join(" ")
        ));
    }
    warnings
}

/// Name servers, search domains and options of a resolv.conf.
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            // The last line of its kind counts.
            Some("search") => {
                out.searches =
                    words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => out.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    out
}
