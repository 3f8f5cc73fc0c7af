//! The layouts as text, and this machine's own groups as root.

use super::*;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn layouts_are_told_apart() {
    let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
    let hybrid = "1 2 0:1 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  1 2 0:1 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                  1 2 0:1 / /c/unified rw - cgroup2 cgroup2 rw";
    let named =
        "1 2 0:1 / /c/systemd rw - cgroup cgroup rw,name=systemd\n1 2 0:1 / /c/u rw - cgroup2 cgroup2 rw";
    for (mounts, is_v2, dirs) in [
        (v2, true, "/sys/fs/cgroup/a/b"),
        (hybrid, false, "/c/cpu,cpuacct/a/b /c/systemd/a/b /c/unified/a/b"),
        (named, true, "/c/u/a/b"),
    ] {
        let cgroups = Cgroups::parse(mounts);
        assert_eq!(cgroups.is_v2(), is_v2);
        let group = cgroups.group("/a//b/").unwrap();
        let shown: Vec<_> = group.dirs().iter().map(|dir| dir.display().to_string()).collect();
        assert_eq!((shown.join(" ").as_str(), group.path()), (dirs, "/a/b"));
        assert!(cgroups.group("/a/../b").is_err());
    }
}

#[test]
fn shares_become_weights() {
    for (shares, weight) in [(0, 1), (2, 1), (102, 17), (1024, 100), (2048, 174), (262_144, 10_000)] {
        assert_eq!(shares_to_weight(shares), weight, "{shares}");
    }
}

fn group(name: &str) -> Cgroup {
    let path = format!("/tiphys-test-{}-{name}", std::process::id());
    Cgroups::detect().unwrap().group(&path).unwrap()
}

fn member(group: &Cgroup, script: &str) -> std::process::Child {
    let enter: String =
        group.dirs().iter().map(|dir| format!("echo $$ > {}/cgroup.procs && ", dir.display())).collect();
    let mut command = Command::new("sh");
    command.arg("-c").arg(enter + script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn root_limits_usage_and_killing() {
    let group = group("limits");
    group.create().unwrap();
    group.create().unwrap();
    let limits = |memory| Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_shares: Some(512),
        memory: Some(memory),
        memory_and_swap: Some(memory),
        pids: Some(50),
        ..Default::default()
    };
    // Up, and down again.
    for memory in [64 << 20, 128 << 20, 32 << 20] {
        group.apply(&limits(memory)).unwrap();
        assert_eq!(group.stats().memory.unwrap().limit, Some(memory as u64));
    }
    let mut child = member(&group, "echo in; sleep 1000 & trap '' TERM; wait; sleep 1000");
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let stats = group.stats();
    assert!(stats.memory.unwrap().usage > 0 && stats.cpu.unwrap().usage > 0 && stats.pids.unwrap() >= 1);
    // The child is ours to reap, in another thread, as the shim would.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    assert!(group.kill(Duration::from_secs(10)).unwrap());
    assert!(!reaper.join().unwrap().success());
    assert_eq!(group.processes().unwrap(), Vec::<i32>::new());
    // Half removed it is there still.
    let dirs = group.dirs();
    let (_, others) = dirs.split_last().unwrap();
    others.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
    assert!(group.exists());
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(!group.exists());
    assert!(group.kill(Duration::from_secs(1)).unwrap());
}

/// Pods start at once beneath tiers that none of them has made yet, and beneath what others made without CPUs.
#[test]
fn root_every_new_group_takes_processes() {
    let top = group("together");
    for round in 0..20 {
        if round == 1 {
            for dir in top.dirs() {
                fs::create_dir_all(dir.join(format!("bare-{round}/tier"))).unwrap();
            }
        }
        let start = std::sync::Barrier::new(8);
        let make_one = |i: usize| {
            let path = format!("{}/bare-{round}/tier/pod{i}", top.path());
            let group = Cgroups::detect().unwrap().group(&path).unwrap();
            start.wait();
            group.create().unwrap();
            assert!(member(&group, "exit 0").wait().unwrap().success(), "{path} takes no process");
        };
        std::thread::scope(|scope| {
            for i in 0..8 {
                scope.spawn(move || make_one(i));
            }
        });
    }
    top.remove().unwrap();
}

#[test]
fn root_devices_are_forbidden() {
    let rule = |minor| DeviceRule { kind: 'c', major: Some(1), minor: Some(minor), access: "rw".into() };
    let rules = [rule(3), DeviceRule { kind: 'a', major: None, minor: None, access: "m".into() }];
    let try_both = "cat /dev/null && echo null; head -c1 /dev/zero >/dev/null && echo zero";
    let output = |group: &Cgroup| {
        let output = member(group, try_both).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let group = group("devices");
    group.create().unwrap();
    assert_eq!(output(&group), "null\nzero\n");
    group.allow_devices(&rules).unwrap();
    assert_eq!(output(&group), "null\n");
    group.remove().unwrap();
    // The v2 program, on the unified tree of whatever layout.
    if let Some(unified) = &group.unified {
        make(unified, Kind::Plain).unwrap();
        devices::attach_for_test(unified, &rules).unwrap();
        let alone = Cgroup { v1: Vec::new(), ..group.clone() };
        assert_eq!(output(&alone), "null\n");
        // A privileged container's rules: what comes after the one that allows all is never reached.
        let all = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".into() };
        let free = unified.join("free");
        make(&free, Kind::Plain).unwrap();
        devices::attach_for_test(&free, std::slice::from_ref(&all)).unwrap();
        devices::attach_for_test(&free, &[rules[0].clone(), all, rules[0].clone()]).unwrap();
        remove_tree(unified).unwrap();
    }
}
