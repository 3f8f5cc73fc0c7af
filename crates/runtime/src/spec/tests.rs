//! Decisions from inputs, on a rootfs of two small layers.

use super::*;
use cri::v1::{self, Int64Value, KeyValue};

struct Case {
    config: ContainerConfig,
    image: ExecConfig,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("upper")).unwrap();
        std::fs::create_dir_all(dir.path().join("base/etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n";
        std::fs::write(dir.path().join("base/etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("base/etc/group"), "root:x:0:\nweb:x:34:\nextra:x:50:web\n").unwrap();
        let strings = |list: &[&str]| Some(list.iter().map(|s| s.to_string()).collect());
        let image = ExecConfig {
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["default"]),
            env: strings(&["A=image", "PATH=/image"]),
            ..Default::default()
        };
        Case { config: ContainerConfig::default(), image, dir }
    }

    fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        let linux = self.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }

    fn build(&self) -> Result<Built> {
        let group = linux::cgroup::Cgroups::detect().unwrap().group("/none").unwrap();
        let dir = self.dir.path();
        build(&Inputs {
            id: "id",
            config: &self.config,
            sandbox: &PodSandboxConfig::default(),
            image: &self.image,
            lower: &[dir.join("upper"), dir.join("base")],
            dir,
            sandbox_dir: dir,
            shm: dir,
            cgroup: &group,
            hostname: "host",
            seccomp_dir: dir,
            volumes: &[],
        })
    }

    fn process(&self) -> protocol::Process {
        self.build().unwrap().spec.process
    }
}

#[test]
fn commands_and_environment() {
    let mut case = Case::new();
    let check = |case: &Case, expected: &str| assert_eq!(case.process().args.join(" "), expected);
    check(&case, "/entry default");
    case.config.args = vec!["arg".into()];
    check(&case, "/entry arg");
    case.config.command = vec!["/cmd".into()];
    check(&case, "/cmd arg");
    case.config.args.clear();
    check(&case, "/cmd");
    case.config.envs = vec![KeyValue { key: "A".into(), value: b"pod".to_vec() }];
    assert_eq!(case.process().env, ["PATH=/image", "HOSTNAME=host", "A=pod"]);
    case.config.command.clear();
    case.image = ExecConfig::default();
    assert_eq!(case.build().err().unwrap().message, "no command specified");
}

#[test]
fn identities() {
    let check = |set: &dyn Fn(&mut Case), expected: std::result::Result<(u32, u32, &[u32]), &str>| {
        let mut case = Case::new();
        set(&mut case);
        let shown = case.build().map(|built| built.spec.process.user);
        match (shown, expected) {
            (Ok(user), Ok((uid, gid, groups))) => {
                assert_eq!((user.uid, user.gid, user.groups.as_slice()), (uid, gid, groups))
            }
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{error}"),
            (shown, expected) => panic!("{shown:?} is not {expected:?}"),
        }
    };
    let number = |value| Some(Int64Value { value });
    check(&|_| {}, Ok((0, 0, &[0])));
    check(&|case| case.image.user = Some("web".into()), Ok((33, 34, &[34, 50])));
    check(&|case| case.image.user = Some("web:extra".into()), Ok((33, 50, &[50])));
    check(&|case| case.security().run_as_username = "web".into(), Ok((33, 34, &[34, 50])));
    check(&|case| case.security().run_as_user = number(1000), Ok((1000, 0, &[0])));
    let both = |case: &mut Case| {
        case.security().run_as_user = number(33);
        case.security().run_as_group = number(7);
        case.security().supplemental_groups = vec![9, 7];
    };
    check(&both, Ok((33, 7, &[7, 9, 50])));
    let strict = |case: &mut Case| {
        both(case);
        case.security().set_supplemental_groups_policy(SupplementalGroupsPolicy::Strict);
    };
    check(&strict, Ok((33, 7, &[7, 9])));
    check(&|case| case.security().run_as_group = number(7), Err("without user"));
    for bad in ["4294967296", "2147483648", "-1"] {
        check(&|case| case.image.user = Some(bad.into()), Err("range"));
    }
    check(&|case| case.image.user = Some("nobody".into()), Err("nobody"));
    check(&|case| case.security().run_as_user = number(4294967296), Err("range"));
    check(&|case| case.security().supplemental_groups = vec![-1], Err("range"));
}

use cri::v1::SupplementalGroupsPolicy;

#[test]
fn rights() {
    let mut case = Case::new();
    let built = case.build().unwrap();
    assert_eq!(built.spec.process.capabilities.bounding, linux::capabilities::DEFAULT);
    assert!(built.spec.masked_paths.contains(&"/proc/kcore".to_string()));
    assert!(built.spec.process.seccomp.is_none());
    assert!(built.devices.iter().all(|rule| rule.kind != 'a'));
    case.security().capabilities =
        Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    case.security().seccomp = Some(v1::SecurityProfile::default());
    let process = case.process();
    assert_eq!(process.capabilities.bounding, 0);
    assert!(!process.seccomp.unwrap().filter.is_empty());
    // Neither an absent nor an empty profile is ever "no profile" (CVE-2023-2431).
    let localhost = |name: &str| {
        Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::Localhost.into(),
            localhost_ref: name.into(),
        })
    };
    std::fs::write(case.dir.path().join("empty.json"), "").unwrap();
    for name in ["absent.json", "empty.json"] {
        case.security().seccomp = localhost(name);
        assert!(case.build().is_err(), "{name}");
    }
    case.security().privileged = true;
    let built = case.build().unwrap();
    assert!(built.spec.masked_paths.is_empty() && built.spec.process.seccomp.is_none());
    assert_eq!(built.devices[0].kind, 'a');
    case.security().capabilities =
        Some(v1::Capability { add_capabilities: vec!["CAP_NONE".into()], ..Default::default() });
    assert!(case.build().is_err());
}

#[test]
fn mounts_are_ordered_and_replaceable() {
    let mut case = Case::new();
    let host = case.dir.path().to_string_lossy().into_owned();
    let mount =
        |path: &str| v1::Mount { container_path: path.into(), host_path: host.clone(), ..Default::default() };
    case.config.mounts =
        vec![mount("/data/deep/er"), mount("/data/"), mount("/etc/hosts"), mount("/dev/shm")];
    let built = case.build().unwrap();
    let shown: Vec<&str> = built.spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(
        shown,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/data",
            "/etc/hosts",
            "/dev/shm",
            "/data/deep/er",
        ]
    );
    case.config.mounts[0].set_propagation(v1::MountPropagation::PropagationBidirectional);
    assert_eq!(case.build().unwrap().spec.propagation, protocol::Propagation::Shared);
    case.config.mounts[0].recursive_read_only = true;
    assert!(case.build().is_err());
}

#[test]
fn signals_by_any_name() {
    for (name, number) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
        assert_eq!(signals::parse(name), Some(number), "{name}");
        assert_eq!(signals::from_cri(signals::to_cri(number)), Some(number), "{name}");
    }
    for bad in ["", "0", "65", "SIGFOO", "TERM+1", "RTMAX+1", "-1"] {
        assert_eq!(signals::parse(bad), None, "{bad}");
    }
    assert_eq!(signals::from_cri(v1::Signal::RuntimeDefault), None);
}
