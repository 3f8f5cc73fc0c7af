//! A network namespace with an address and a default route, from which no packet leaves: the node's whole world.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

/// The node's address (RFC 5737: documentation only).
pub const NODE_IP: &str = "192.0.2.10";

/// A named network namespace, removed by [`Net::remove`].
#[derive(Debug, Clone)]
pub struct Net {
    name: String,
}

impl Net {
    /// Makes it, with the usual address.
    pub fn make(name: &str) -> Net {
        Net::make_at(name, NODE_IP)
    }

    /// Makes it. The uplink's other end is in there too, so that what is sent outwards is dropped, until it is plugged in
    /// elsewhere.
    pub fn make_at(name: &str, address: &str) -> Net {
        let net = Net { name: name.to_owned() };
        shell(&format!("ip netns add {name}"));
        let out = net
            .command("sh")
            .args(["-ec", &format!("ip link set lo up; ip link add uplink type veth peer name outside; for end in uplink outside; do ip link set $end addrgenmode none; ip link set $end up; done; ip addr add {address}/24 dev uplink; ip route add default dev uplink")])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        net
    }

    pub fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// A program that will run in it; `ip netns exec` would hide the cgroups.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// What a shell command prints in it.
    pub fn run(&self, script: &str) -> String {
        let out = self.command("sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a closure on a thread that is in it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                rustix::thread::move_into_link_name_space(
                    namespace.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub fn remove(&self) {
        shell(&format!("ip netns del {}", self.name));
    }
}

/// What nodes are plugged into: a link that some share, and links of their own for others, which are routed to.
#[derive(Debug)]
pub struct Switch(Net);

impl Switch {
    /// `name` is that of its network namespace.
    pub fn make(name: &str) -> Switch {
        shell(&format!("ip netns add {name}"));
        let switch = Switch(Net { name: name.to_owned() });
        // It answers for every address, as nodes have no other gateway than their link.
        switch.0.run(
            "echo 1 >/proc/sys/net/ipv4/ip_forward; ip link add lan type bridge; ip addr add 192.0.2.1/24 dev lan
            ip link set lan up; echo 1 >/proc/sys/net/ipv4/conf/lan/proxy_arp",
        );
        switch
    }

    fn take(&self, node: &Net, port: &str) {
        node.run(&format!("ip link set outside netns {} name {port}", self.0.name));
        self.0.run(&format!("ip link set {port} addrgenmode none; ip link set {port} up"));
    }

    /// Puts a node on the link that others are on.
    pub fn plug(&self, node: &Net, port: &str) {
        self.take(node, port);
        self.0.run(&format!("ip link set {port} master lan"));
    }

    /// Puts a node on a link of its own, on which the switch has an address.
    pub fn plug_apart(&self, node: &Net, port: &str, address: &str) {
        self.take(node, port);
        self.0.run(&format!(
            "ip addr add {address}/24 dev {port}; echo 1 >/proc/sys/net/ipv4/conf/{port}/proxy_arp"
        ));
    }

    /// Gives a node its link back, whose other end goes nowhere again.
    pub fn unplug(&self, node: &Net, port: &str) {
        self.0.run(&format!(
            "ip link set {port} nomaster; ip link set {port} netns {} name outside",
            node.name
        ));
        node.run("ip link set outside addrgenmode none; ip link set outside up");
    }

    pub fn remove(&self) {
        self.0.remove();
    }
}

fn shell(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}
