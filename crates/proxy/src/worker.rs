//! The half of the proxy that talks to the kernel, on blocking threads: plans what is marked, writes what changed.

use crate::conntrack::{Truth, clean};
use crate::facts::{BY_SERVICE, ServiceFacts, SliceFacts};
use crate::marked::Waiting;
use crate::metrics::Metrics;
use crate::nft::{Options, Ruleset};
use crate::plan::{Family, NodeView, Plan, plan};
use crate::proxy::{Config, Error};
use apimachinery::time::Timestamp;
use apimachinery::validation::Cidr;
use client::{Informer, ObjectKey};
use linux::conntrack::Conntrack;
use linux::netns::Netns;
use linux::nft::{Monitor, Nft};
use linux::{netlink, sysctl};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

/// The views the plans are made from.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    pub(crate) services: Informer<ServiceFacts>,
    pub(crate) slices: Informer<SliceFacts>,
}

impl Views {
    fn plan(&self, key: &ObjectKey, node: &NodeView) -> Plan {
        let cached = self.services.get(key);
        let Some(service) = cached.as_ref().and_then(|c| c.0.as_ref()) else { return Plan::default() };
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let slices: Vec<&SliceFacts> = slices.iter().map(|s| &s.projection).collect();
        plan(key, service, &slices, node)
    }
}

/// The half that talks to the kernel; it works on blocking threads.
#[derive(Debug)]
pub(crate) struct Worker {
    ruleset: Ruleset,
    /// Taken by the task that watches the tables.
    pub(crate) monitor: Option<Monitor>,
    conntrack: Conntrack,
    pub(crate) plans: HashMap<ObjectKey, Plan>,
    /// The kernel may differ from what was set: write the difference to what it lists.
    unsure: bool,
    /// Services whose flows wait for the rules to be written.
    unclean: HashSet<ObjectKey>,
    /// When the changes that wait for the rules to be written were made.
    triggers: Vec<(Family, Timestamp)>,
    pub(crate) node: NodeView,
    metrics: Metrics,
}

impl Worker {
    pub(crate) fn open(config: &Config, ipv6: bool, metrics: Metrics) -> Result<Self, Error> {
        let cidrs = |list: &[(IpAddr, u8)]| -> Vec<Cidr> {
            list.iter().map(|(address, prefix)| Cidr { address: *address, prefix: *prefix }).collect()
        };
        let options = Options {
            cluster_cidrs: cidrs(&config.cluster_cidrs),
            node_port_addresses: cidrs(&config.node_port_addresses),
            localhost_node_ports: config.localhost_node_ports,
            ipv6,
        };
        let netns = match &config.netns {
            Some(path) => Netns::open(path).map_err(Error::Netns)?,
            None => Netns::current().map_err(Error::Netns)?,
        };
        if config.localhost_node_ports {
            let key: &[&str] = &["net", "ipv4", "conf", "all", "route_localnet"];
            if let Err(error) = sysctl::write_in(&netns, &[(key, "1")]) {
                tracing::warn!(%error, "node ports will not be open on 127.0.0.1");
            }
        }
        let nft = Nft::open_in(&netns).map_err(Error::Nftables)?;
        Ok(Worker {
            ruleset: Ruleset::open(nft, &options).map_err(Error::Nftables)?,
            monitor: Some(Monitor::open_in(&netns).map_err(Error::Nftables)?),
            conntrack: Conntrack::open_in(&netns).map_err(Error::Conntrack)?,
            plans: HashMap::new(),
            unsure: true,
            unclean: HashSet::new(),
            triggers: Vec::new(),
            metrics,
            node: NodeView {
                name: config.node_name.clone(),
                zone: String::new(),
                ips: config.node_ips.clone(),
            },
        })
    }

    /// Plans the Services and writes what changed; returns those whose plan is another.
    pub(crate) fn sync(&mut self, views: &Views, waiting: Waiting) -> (Vec<ObjectKey>, netlink::Result<()>) {
        let started = Instant::now();
        let mut changed = Vec::new();
        let nothing = Plan::default();
        self.triggers.extend(waiting.triggers);
        for key in waiting.services {
            let new = views.plan(&key, &self.node);
            let old = self.plans.get(&key).unwrap_or(&nothing);
            if *old == new {
                continue;
            }
            self.ruleset.set(&key, old, &new);
            self.metrics.replaced(old, &new);
            if new == nothing {
                self.plans.remove(&key);
            } else {
                self.plans.insert(key.clone(), new);
            }
            changed.push(key);
        }
        self.unclean.extend(changed.iter().cloned());
        if waiting.suspect && !self.ruleset.is_there().unwrap_or_default() {
            tracing::warn!("somebody deleted the proxy's tables; writing them again");
            self.unsure = true;
        }
        let written = self.write();
        if written.is_ok() {
            let (services, elapsed) = (changed.len(), started.elapsed());
            tracing::debug!(services, ?elapsed, "SyncProxyRules complete");
            self.metrics.synced(elapsed, &std::mem::take(&mut self.triggers));
            self.clean_flows();
        }
        (changed, written)
    }

    fn write(&mut self) -> netlink::Result<()> {
        if !self.unsure {
            match self.ruleset.commit() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.metrics.failed();
                    tracing::warn!(%error, "nftables sync failed; comparing with the kernel");
                }
            }
        }
        self.unsure = true;
        self.ruleset.reconcile().inspect_err(|_| self.metrics.failed())?;
        self.unsure = false;
        Ok(())
    }

    /// After the rules: a flow that ends now must not be made again by the old ones.
    fn clean_flows(&mut self) {
        let changed = std::mem::take(&mut self.unclean);
        let ports = changed.iter().filter_map(|key| self.plans.get(key)).flat_map(|plan| &plan.udp);
        let truth = Truth::new(ports, &self.node.ips);
        match clean(&mut self.conntrack, &truth) {
            Ok(deleted) => deleted.iter().for_each(|family| self.metrics.deleted_flow(*family)),
            Err(error) => tracing::warn!(%error, "Failed to clear all conntrack entries"),
        }
    }
}
