//! Service addresses and node ports. They are given out as an admission step; what was given but is not stored yet is
//! reserved for a while, so that two requests at once never get the same.

use crate::admission::{Attributes, Operation, Plugin};
use crate::registry::decode;
use crate::resources::Served;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::status::Status;
use apimachinery::validation::{Cidr, parse_cidr_sloppy, parse_ip_sloppy};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;

/// How long something given out waits for its Service to be stored.
const RESERVED: Duration = Duration::from_secs(60);
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// What is taken: of addresses and of (protocol, node port).
#[derive(Default)]
struct Taken {
    ips: HashSet<IpAddr>,
    ports: HashSet<(String, u16)>,
}

#[derive(Default)]
struct Reserved {
    ips: HashMap<IpAddr, Instant>,
    ports: HashMap<(String, u16), Instant>,
}

/// Gives addresses and ports to Services.
pub struct ServiceAllocator {
    store: Arc<dyn Store>,
    range: Cidr,
    reserved: Mutex<Reserved>,
}

impl std::fmt::Debug for ServiceAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAllocator").field("range", &self.range).finish_non_exhaustive()
    }
}

impl ServiceAllocator {
    /// `range` is the IPv4 service CIDR.
    pub fn new(store: Arc<dyn Store>, range: &str) -> Result<Self, String> {
        let cidr = parse_cidr_sloppy(range).filter(|c| c.address.is_ipv4());
        let range = cidr.ok_or_else(|| format!("service CIDR {range:?} is not an IPv4 block"))?;
        Ok(ServiceAllocator { store, range, reserved: Mutex::default() })
    }

    fn taken(&self, services: &Arc<Served>, except: &str) -> Taken {
        let mut taken = Taken::default();
        let snapshot = self.store.snapshot(&services.prefix);
        for entry in snapshot.entries.values().filter(|e| *e.name != *except) {
            let Ok(stored) = decode(services, entry) else { continue };
            let spec = &stored.value["spec"];
            taken.ips.extend(cluster_ips(spec).filter_map(|ip| ip.parse::<IpAddr>().ok()));
            taken.ports.extend(node_ports(spec));
        }
        taken
    }

    fn allocate(
        &self,
        services: &Arc<Served>,
        key: &str,
        name: &str,
        spec: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let mut reserved = self.reserved.lock();
        let now = Instant::now();
        reserved.ips.retain(|_, at| now.duration_since(*at) < RESERVED);
        reserved.ports.retain(|_, at| now.duration_since(*at) < RESERVED);
        let taken = self.taken(services, key);
        let mut errors = ErrorList::default();
        let path = Path::new("spec");
        let ty = spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
        if ty == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if old.is_some()
                    && let Some(map) = spec.as_object_mut()
                {
                    map.remove(field);
                }
            }
            return Ok(());
        }
        if let Some(old) = old.filter(|o| o["type"] != "ExternalName") {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec[field].is_null() && !old[field].is_null() {
                    spec[field] = old[field].clone();
                }
            }
        }
        let wanted = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        if wanted == "None" {
            spec["clusterIPs"] = json!(["None"]);
        } else {
            let kept =
                old.and_then(|o| o["clusterIP"].as_str()).is_some_and(|ip| ip == wanted && !ip.is_empty());
            let ip =
                if wanted.is_empty() { self.next_ip(&taken, &reserved) } else { parse_ip_sloppy(&wanted) };
            let at = path.child("clusterIPs");
            match ip {
                None if wanted.is_empty() => {
                    return Err(Status::internal_error("failed to allocate a serviceIP: range is full"));
                }
                None => errors.push(Error::invalid(
                    &at.index(0),
                    wanted.as_str(),
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                )),
                Some(ip) if !kept && !self.range.contains(ip) => {
                    let range = self.range.canonical();
                    errors.push(Error::invalid(
                        &at,
                        &json!([wanted]),
                        format!("failed to allocate IP {ip}: the provided IP is not in the valid range. The range of valid IPs is {range}"),
                    ));
                }
                Some(ip) if !kept && (taken.ips.contains(&ip) || reserved.ips.contains_key(&ip)) => {
                    errors.push(Error::invalid(
                        &at,
                        &json!([ip.to_string()]),
                        format!("failed to allocate IP {ip}: provided IP is already allocated"),
                    ));
                }
                Some(ip) => {
                    reserved.ips.insert(ip, now);
                    spec["clusterIP"] = ip.to_string().into();
                    spec["clusterIPs"] = json!([ip.to_string()]);
                }
            }
        }
        if spec["ipFamilies"].is_null() {
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        if spec["ipFamilyPolicy"].is_null() {
            spec["ipFamilyPolicy"] = "SingleStack".into();
        }
        self.allocate_ports(&taken, &mut reserved, &ty, spec, old, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&services.group_kind(), name, &errors)) }
    }

    fn allocate_ports(
        &self,
        taken: &Taken,
        reserved: &mut Reserved,
        ty: &str,
        spec: &mut Value,
        old: Option<&Value>,
        errors: &mut ErrorList,
    ) {
        let needs =
            ty == "NodePort" || ty == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false;
        let before: Vec<(String, u16)> = old.map(|o| node_ports(o).collect()).unwrap_or_default();
        let old_ports = old.and_then(|o| o["ports"].as_array()).cloned().unwrap_or_default();
        let Some(ports) = spec["ports"].as_array_mut() else { return };
        let mut own: HashSet<(String, u16)> = HashSet::new();
        for (i, port) in ports.iter_mut().enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let asked = port["nodePort"].as_u64().unwrap_or(0);
            if !needs {
                // Ports of a Service that no longer has a type with node ports go; explicit ones were refused by validation.
                if asked > 0
                    && before.iter().any(|(_, p)| u64::from(*p) == asked)
                    && let Some(map) = port.as_object_mut()
                {
                    map.remove("nodePort");
                }
                continue;
            }
            if asked > 0 {
                let number = u16::try_from(asked).unwrap_or(0);
                let key = (protocol, number);
                if before.contains(&key) || own.contains(&key) {
                    continue;
                }
                let at = Path::new("spec").child("ports").index(i).child("nodePort");
                if !NODE_PORTS.contains(&number) {
                    errors.push(Error::invalid(
                        &at,
                        asked as i64,
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    ));
                } else if taken.ports.contains(&key) || reserved.ports.contains_key(&key) {
                    errors.push(Error::invalid(&at, asked as i64, "provided port is already allocated"));
                } else {
                    reserved.ports.insert(key.clone(), Instant::now());
                    own.insert(key);
                }
                continue;
            }
            // The same port of the same Service keeps its node port.
            let same = old_ports
                .iter()
                .find(|o| o["port"] == port["port"] && o["protocol"].as_str().unwrap_or("TCP") == protocol);
            if let Some(kept) = same.and_then(|o| o["nodePort"].as_u64()).filter(|p| *p > 0) {
                port["nodePort"] = kept.into();
                continue;
            }
            let start = usize::from(uuid::Uuid::new_v4().as_u128() as u16);
            let count = NODE_PORTS.len();
            let free = (0..count).map(|n| NODE_PORTS.start() + ((start + n) % count) as u16).find(|p| {
                let key = (protocol.clone(), *p);
                !taken.ports.contains(&key) && !reserved.ports.contains_key(&key) && !own.contains(&key)
            });
            match free {
                Some(number) => {
                    reserved.ports.insert((protocol.clone(), number), Instant::now());
                    own.insert((protocol, number));
                    port["nodePort"] = number.into();
                }
                None => errors.push(Error::internal(
                    &Path::new("spec").child("ports").index(i).child("nodePort"),
                    "failed to allocate a nodePort: range is full",
                )),
            }
        }
    }

    /// A free address from the upper part of the range: the lower is for addresses that people choose (KEP-3070).
    fn next_ip(&self, taken: &Taken, reserved: &Reserved) -> Option<IpAddr> {
        let IpAddr::V4(network) = self.range.network() else { return None };
        let size = 1_u32.checked_shl(32 - u32::from(self.range.prefix)).unwrap_or(0);
        let usable = size.checked_sub(2)?;
        let lower = (size / 16).clamp(16, 256).min(usable);
        let start = uuid::Uuid::new_v4().as_u128() as u32 % usable.saturating_sub(lower).max(1);
        let upper = (0..usable - lower).map(|n| lower + (start + n) % (usable - lower));
        upper
            .chain(0..lower)
            .map(|n| IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() + 1 + n)))
            .find(|ip| !taken.ips.contains(ip) && !reserved.ips.contains_key(ip))
    }
}

fn cluster_ips(spec: &Value) -> impl Iterator<Item = &str> {
    let many = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    many.chain(spec["clusterIP"].as_str())
}

fn node_ports(spec: &Value) -> impl Iterator<Item = (String, u16)> + '_ {
    spec["ports"].as_array().into_iter().flatten().filter_map(|p| {
        let number = u16::try_from(p["nodePort"].as_u64()?).ok().filter(|n| *n > 0)?;
        Some((p["protocol"].as_str().unwrap_or("TCP").to_owned(), number))
    })
}

impl Plugin for ServiceAllocator {
    fn name(&self) -> &'static str {
        "ServiceAllocation"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let applies = attributes.is("", "services")
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update);
        let result = match &mut attributes.object {
            Some(object) if applies => {
                let key = format!("{}/{}", attributes.namespace, attributes.name);
                let old = attributes.old.map(|o| &o["spec"]);
                let name = attributes.name.to_owned();
                self.allocate(attributes.resource, &key, &name, &mut object["spec"], old)
            }
            _ => Ok(()),
        };
        Box::pin(std::future::ready(result))
    }
}
