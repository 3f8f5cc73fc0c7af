//! The two ends of a pod's wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use linux::netlink::route::{Address, Mac, Neighbour, NeighbourTable, Route, Routing, Scope, VethEnd};
use linux::netns::Netns;
use linux::sysctl;

use super::{Error, Host, full_prefix, io};

/// What every pod sees as its gateway. No interface has these addresses.
const GATEWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1))];

/// The pod's side is always called this, as CNI does.
const POD_INTERFACE: &str = "eth0";

/// A wire to be: names, addresses.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// The node's side.
    pub interface: &'a str,
    pub ips: &'a [IpAddr],
    pub mtu: u32,
    /// The node's own addresses, as sources for what it sends to pods.
    pub node_ips: &'a [IpAddr],
}

/// The node-side name for a sandbox: the prefix and as much of a hash as fits into fifteen bytes.
pub fn interface_name(prefix: &str, sandbox: &str) -> String {
    let mut name = format!("{prefix}{:016x}", hash(sandbox));
    name.truncate(15);
    name
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// A locally administered address that follows from the name, so that both sides know the other's.
fn mac(first: u8, interface: &str) -> Mac {
    let [a, b, c, d, e, ..] = hash(interface).to_be_bytes();
    [first, a, b, c, d, e]
}

impl Veth<'_> {
    /// Whether the wire is there. A pair has both ends or none, so the node's end tells.
    pub fn exists(&self, host: &Host) -> Result<bool, Error> {
        Ok(host.routing()?.link(self.interface)?.is_some())
    }

    /// Makes the wire and everything on it. What is already right stays; a failure leaves no half behind.
    pub fn make(&self, host: &Host, pod: &Netns) -> Result<(), Error> {
        let mut routing = host.routing()?;
        let outcome = self.try_make(host, &mut routing, pod);
        if outcome.is_err() {
            let _ = routing.delete_link(self.interface);
        }
        outcome
    }

    fn try_make(&self, host: &Host, routing: &mut Routing, pod: &Netns) -> Result<(), Error> {
        let (ours, theirs) = (mac(0x0a, self.interface), mac(0x0e, self.interface));
        let ends =
            (VethEnd { name: self.interface, mac: ours }, VethEnd { name: POD_INTERFACE, mac: theirs });
        linux::steps::step("making a pod's interface");
        match routing.add_veth(&ends.0, &ends.1, pod.as_fd(), self.mtu) {
            Err(e) if !e.is_exists() => return Err(e.into()),
            _ => {}
        }
        let Some(link) = routing.link(self.interface)? else {
            // The name is taken inside the pod, not here.
            return Err(io(format!("interface {POD_INTERFACE} exists in the sandbox"))(
                std::io::ErrorKind::AlreadyExists.into(),
            ));
        };
        host.run(|| node_sysctls(self.interface))
            .and_then(|r| r)
            .map_err(io("sysctls of the pod's interface"))?;
        for ip in self.ips {
            // Routes first ask for the neighbour when a packet comes: it must be there by then.
            routing.set_neighbour(&neighbour(link.index, *ip, theirs))?;
            let source = self.node_ips.iter().copied().find(|n| n.is_ipv4() == ip.is_ipv4());
            routing.set_route(&Route { source, ..Route::direct(*ip, full_prefix(ip), link.index) })?;
        }
        linux::steps::step("setting a pod's interface up inside");
        let ipv6 = self.ips.iter().any(IpAddr::is_ipv6);
        pod.run(|| pod_sysctls(ipv6)).and_then(|r| r).map_err(io("sysctls inside the pod"))?;
        self.make_inside(&mut Routing::open_in(pod)?, ours)
    }

    fn make_inside(&self, routing: &mut Routing, gateway_mac: Mac) -> Result<(), Error> {
        let Some(link) = routing.link(POD_INTERFACE)? else {
            return Err(io(format!("interface {POD_INTERFACE}"))(std::io::ErrorKind::NotFound.into()));
        };
        for ip in self.ips {
            let (ip, prefix) = (*ip, full_prefix(ip));
            routing.add_address(&Address { link: link.index, ip, prefix, scope: Scope::Global })?;
        }
        routing.set_up(link.index)?;
        for gateway in GATEWAYS {
            if !self.ips.iter().any(|ip| ip.is_ipv4() == gateway.is_ipv4()) {
                continue;
            }
            routing.set_neighbour(&neighbour(link.index, gateway, gateway_mac))?;
            if gateway.is_ipv4() {
                routing.set_route(&Route::direct(gateway, 32, link.index))?;
            }
            routing.set_route(&Route::default_via(gateway, link.index))?;
        }
        Ok(())
    }

    /// Removes the wire; its routes and neighbours go with it.
    pub fn remove(&self, host: &Host) -> Result<(), Error> {
        linux::steps::step("removing a pod's interface");
        Ok(host.routing()?.delete_link(self.interface)?)
    }
}

fn neighbour(link: u32, ip: IpAddr, mac: Mac) -> Neighbour {
    Neighbour { link, ip, mac, table: NeighbourTable::Resolution }
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6/conf").exists()
}

fn node_sysctls(interface: &str) -> std::io::Result<()> {
    let v4 = |key, value| sysctl::write(&["net", "ipv4", "conf", interface, key], value);
    // A pod cannot speak in another's name.
    v4("rp_filter", "1")?;
    v4("forwarding", "1")?;
    // An answer to 127.0.0.1:<hostPort> comes back this way; strangers' packets to 127/8 are dropped before.
    v4("route_localnet", "1")?;
    if has_ipv6() {
        let v6 = |key, value| sysctl::write(&["net", "ipv6", "conf", interface, key], value);
        v6("accept_ra", "0")?;
        v6("accept_dad", "0")?;
    }
    Ok(())
}

fn pod_sysctls(ipv6: bool) -> std::io::Result<()> {
    if ipv6 || has_ipv6() {
        let v6 = |key, value| sysctl::write(&["net", "ipv6", "conf", POD_INTERFACE, key], value);
        v6("accept_ra", "0")?;
        v6("accept_dad", "0")?;
    }
    Ok(())
}
