//! The sockets of the cluster's DNS, which pods go on asking on while the server restarts: a small process keeps them.

use crate::places::Places;
use anyhow::{Context as _, Result};
use shim::held::{Held, Place, end};
use shim::spawn::Program;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};

/// Seconds that they are kept for a server that does not come back.
const PATIENCE: u32 = 300;

fn cgroup(places: &Places) -> Result<linux::cgroup::Cgroup> {
    let name = format!("{}/sockets", places.shims_cgroup);
    Ok(linux::cgroup::Cgroups::detect()?.group(&name)?)
}

fn place(places: &Places) -> Place {
    Place { socket: places.run_dir.join("held.sock"), patience: PATIENCE, cgroups: Vec::new() }
}

/// The sockets of this address: those that an earlier server left, or new ones.
pub(crate) fn listen(
    places: &Places,
    address: SocketAddr,
) -> Result<((UdpSocket, TcpListener), Option<Held>)> {
    let mut place = place(places);
    // One that listens elsewhere is of no use here.
    let label = address.to_string();
    if let Some((held, fds)) = Held::take(&place, &label)
        && let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(fds)
    {
        return Ok(((udp.into(), tcp.into()), Some(held)));
    }
    let udp = UdpSocket::bind(address).with_context(|| format!("UDP on {address}"))?;
    let tcp = TcpListener::bind(udp.local_addr()?).with_context(|| format!("TCP on {address}"))?;
    let mut keep = || -> Result<Held> {
        let group = cgroup(places)?;
        group.create()?;
        place.cgroups = group.dirs();
        std::fs::create_dir_all(&places.run_dir)?;
        let program = Program::new(runtime::SHIM)?;
        Ok(Held::keep(&program, &place, &label, &[udp.as_fd(), tcp.as_fd()])?)
    };
    let held = match keep() {
        Ok(held) => Some(held),
        Err(error) => {
            tracing::warn!(%error, "the cluster's DNS refuses questions while the server restarts: nobody holds its sockets");
            None
        }
    };
    Ok(((udp, tcp), held))
}

/// Lets go of them.
pub(crate) fn release(places: &Places) -> Result<()> {
    end(&place(places).socket);
    cgroup(places)?.remove().context("removing the cgroup of the holder of sockets")?;
    Ok(())
}
