//! `tiphys simulator`: hollow nodes against the server of a kubeconfig. Upstream's nearest kin: kubemark's hollow nodes.

use crate::foreground;
use crate::places::DATA_DIR;
use crate::remote;
use anyhow::{Context as _, Result, bail};
use api::core::v1::Taint;
use apimachinery::quantity::Quantity;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Simulator {
    /// The API server and its user.
    #[arg(long, default_value_os_t = Path::new(DATA_DIR).join("admin.kubeconfig"))]
    kubeconfig: PathBuf,
    #[arg(long, default_value_t = 100)]
    nodes: u32,
    /// What the nodes' names begin with.
    #[arg(long, default_value = "hollow-node")]
    name: String,
    /// A label of every node, key=value.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// A taint of every node, key=value:effect.
    #[arg(long, value_parser = taint)]
    taint: Vec<Taint>,
    /// What every node has, resource=quantity, beside the defaults.
    #[arg(long, value_parser = amount)]
    capacity: Vec<(String, Quantity)>,
    /// Leave pods as they were bound.
    #[arg(long)]
    no_pods: bool,
    /// Connections that the nodes share.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("not key=value")?;
    Ok((key.into(), value.into()))
}

fn amount(text: &str) -> Result<(String, Quantity)> {
    let (name, quantity) = pair(text)?;
    Ok((name, quantity.parse().map_err(|error| anyhow::anyhow!("{quantity:?}: {error}"))?))
}

fn taint(text: &str) -> Result<Taint> {
    let (rest, effect) = text.rsplit_once(':').context("not key=value:effect")?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        bail!("{effect:?} is no effect");
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Ok(Taint { key: key.into(), value: value.into(), effect: effect.into(), ..Default::default() })
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(flags: Simulator) -> Result<()> {
    pki::tls::install_provider();
    let mut config = ::simulator::Config::new(flags.nodes);
    config.name = flags.name;
    config.labels.extend(flags.label);
    config.taints = flags.taint;
    config.capacity.extend(flags.capacity);
    config.run_pods = !flags.no_pods;
    let connections =
        (0..flags.connections.max(1)).map(|_| remote::of_kubeconfig(&flags.kubeconfig, "tiphys-simulator"));
    let clients = connections.collect::<Result<Vec<_>>>().context("--kubeconfig")?;
    foreground::run(|shutdown| async move {
        ::simulator::run(config, clients, shutdown).await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let read = taint("a.b/c=d:NoSchedule").unwrap();
        assert_eq!((&*read.key, &*read.value, &*read.effect), ("a.b/c", "d", "NoSchedule"));
        assert_eq!(taint("a:NoExecute").unwrap().value, "");
        assert!(taint("a=b").is_err() && taint("a=b:Never").is_err());
        assert_eq!(amount("cpu=500m").unwrap().1.to_string(), "500m");
        assert!(amount("cpu").is_err() && amount("cpu=x").is_err());
    }
}
