//! CNI plugins, run as programs: configuration on stdin, parameters in the environment, result on stdout.

mod conf;
mod exec;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

pub use conf::List;

use crate::{PodIps, PortMapping};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read CNI configuration {0:?}: {1}")]
    Conf(PathBuf, String),
    #[error("failed to find plugin {0:?} in path {1:?}")]
    NotFound(String, Vec<PathBuf>),
    #[error("run {0}")]
    Run(String, #[source] std::io::Error),
    /// The plugin's own words.
    #[error("plugin type={plugin:?} failed ({command}): {message}")]
    Failed { plugin: String, command: &'static str, code: i64, message: String },
    #[error("unable to parse the result of {0}: {1}")]
    BadResult(String, String),
}

/// Whose network, and with what parameters.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub container_id: String,
    pub netns: PathBuf,
    pub args: Vec<(String, String)>,
    pub port_mappings: Vec<PortMapping>,
}

/// Where configurations and programs are.
#[derive(Debug, Clone)]
pub struct Plugins {
    conf_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
}

impl Plugins {
    pub fn new(conf_dir: PathBuf, bin_dirs: Vec<PathBuf>) -> Self {
        Self { conf_dir, bin_dirs }
    }

    /// The configuration in force: the first valid one in name order. Read anew each time, as users drop them in.
    pub async fn load(&self) -> Result<Option<List>, Error> {
        let dir = self.conf_dir.clone();
        match tokio::task::spawn_blocking(move || conf::first(&dir)).await {
            Ok(list) => list,
            Err(e) => Err(Error::Conf(self.conf_dir.clone(), e.to_string())),
        }
    }

    /// ADD along the chain; each plugin sees the result of the one before, the last one's is the network's.
    pub async fn add(&self, list: &List, invocation: &Invocation) -> Result<Value, Error> {
        let mut result: Option<Value> = None;
        for plugin in list.plugins() {
            let conf = list.plugin_conf(plugin, invocation, result.as_ref());
            let printed = self.exec("ADD", plugin, &conf, Some(invocation)).await?;
            let name = plugin["type"].as_str().unwrap_or_default();
            let value = printed.ok_or_else(|| Error::BadResult(name.into(), "no result".into()))?;
            result = Some(value);
        }
        result.ok_or_else(|| Error::BadResult(list.name().into(), "no plugins".into()))
    }

    /// DEL backwards along the chain as it was when ADD ran.
    pub async fn delete(
        &self,
        list: &Value,
        invocation: &Invocation,
        result: Option<&Value>,
    ) -> Result<(), Error> {
        let list = List::of(list.clone());
        for plugin in list.plugins().iter().rev() {
            let conf = list.plugin_conf(plugin, invocation, result.filter(|_| list.at_least(0, 4)));
            self.exec("DEL", plugin, &conf, Some(invocation)).await?;
        }
        Ok(())
    }

    /// CHECK along the chain (since 0.4.0, unless the list forbids it).
    pub async fn check(&self, list: &Value, invocation: &Invocation, result: &Value) -> Result<(), Error> {
        let list = List::of(list.clone());
        if !list.at_least(0, 4) || list.value()["disableCheck"] == json!(true) {
            return Ok(());
        }
        for plugin in list.plugins() {
            let conf = list.plugin_conf(plugin, invocation, Some(result));
            self.exec("CHECK", plugin, &conf, Some(invocation)).await?;
        }
        Ok(())
    }

    /// STATUS along the chain (since 1.1.0).
    pub async fn status(&self, list: &List) -> Result<(), Error> {
        if list.at_least(1, 1) {
            for plugin in list.plugins() {
                self.exec("STATUS", plugin, &list.bare_conf(plugin), None).await?;
            }
        }
        Ok(())
    }

    /// GC along the chain (since 1.1.0): plugins free what belongs to none of the containers named.
    pub async fn collect_garbage(&self, list: &List, alive: &[String]) -> Result<(), Error> {
        if list.at_least(1, 1) && list.value()["disableGC"] != json!(true) {
            let attachments: Vec<_> =
                alive.iter().map(|id| json!({"containerID": id, "ifname": exec::IFNAME})).collect();
            for plugin in list.plugins() {
                let mut conf = list.bare_conf(plugin);
                conf.insert("cni.dev/valid-attachments".into(), json!(attachments));
                // The key of the specification's first draft, which released plugins read.
                conf.insert("cni.dev/attachments".into(), json!(attachments));
                self.exec("GC", plugin, &conf, None).await?;
            }
        }
        Ok(())
    }

    async fn exec(
        &self,
        command: &'static str,
        plugin: &Value,
        conf: &Map<String, Value>,
        invocation: Option<&Invocation>,
    ) -> Result<Option<Value>, Error> {
        let name = plugin["type"].as_str().unwrap_or_default();
        exec::run(&self.bin_dirs, command, name, conf, invocation).await
    }
}

/// The pod's addresses in a result of any version: a list since 0.3.0, `ip4` and `ip6` before.
pub fn ips(result: &Value) -> Result<PodIps, Error> {
    let listed = result["ips"].as_array().into_iter().flatten().map(|ip| {
        // An address on an interface outside the sandbox (a bridge's) is not the pod's.
        let interface = ip["interface"].as_u64().and_then(|i| result["interfaces"].get(i as usize));
        let inside = interface.is_none_or(|i| i["sandbox"].as_str().is_some_and(|s| !s.is_empty()));
        (inside, &ip["address"])
    });
    let old = ["ip4", "ip6"].into_iter().filter_map(|k| result.get(k)).map(|v| (true, &v["ip"]));
    let ips: Vec<_> = listed
        .chain(old)
        .filter(|(inside, _)| *inside)
        .filter_map(|(_, address)| address.as_str()?.split('/').next()?.parse().ok())
        .collect();
    if ips.is_empty() {
        Err(Error::BadResult("the chain".into(), "no IP address".into()))
    } else {
        Ok(PodIps(ips))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_results_of_every_version() {
        let check = |result: Value, expected: &[&str]| {
            let ips = ips(&result).map(|ips| ips.0).unwrap_or_default();
            assert_eq!(ips.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(
            json!({"ips": [{"address": "10.1.2.3/24"}, {"address": "fd00::1/64"}]}),
            &["10.1.2.3", "fd00::1"],
        );
        check(json!({"ip4": {"ip": "10.1.2.3/24"}}), &["10.1.2.3"]);
        let interfaces = json!([{"name": "br0"}, {"name": "eth0", "sandbox": "/run/netns/x"}]);
        let ips =
            json!([{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.2/24", "interface": 1}]);
        check(json!({"interfaces": interfaces, "ips": ips}), &["10.0.0.2"]);
        check(json!({}), &[]);
    }
}
