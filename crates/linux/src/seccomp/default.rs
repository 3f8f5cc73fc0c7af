//! The profile `RuntimeDefault`: what containerd's and Docker's lets through, said by what it does not. A call that the
//! table does not know (a newer kernel's) is refused as well.

use super::{Action, Comparison, Condition, Profile, Rule, compile};
use crate::capabilities;

/// Refused to everyone.
const NEVER: &str = "_sysctl add_key afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle \
    io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl lock migrate_pages move_pages mpx \
    nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname open_tree_attr pivot_root prof profil putpmsg \
    query_module readdir request_key security sgetmask sigaction signal sigpending sigsuspend ssetmask stty swapoff swapon \
    sysfs tuxcall ulimit uselib userfaultfd ustat vm86 vm86old vserver";

/// Allowed to those who have one of the capabilities of their lines.
const GUARDED: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Allowed only with certain arguments, in every case but the one noted.
const CONDITIONAL: [&str; 3] = ["personality", "socket", "clone"];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7e02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The profile for a container with these capabilities (its bounding set).
pub fn runtime_default(capabilities: u64) -> Profile {
    let has = |name: &str| capabilities::mask(name).is_ok_and(|mask| capabilities & mask != 0);
    let guarded = |call: &str| {
        let mut lines =
            GUARDED.iter().filter(|(_, calls)| calls.split_whitespace().any(|name| name == call)).peekable();
        lines.peek()?;
        Some(lines.any(|(capability, _)| has(capability)))
    };
    let allowed = |call: &&str| {
        !NEVER.split_whitespace().any(|name| name == *call)
            && !CONDITIONAL.contains(call)
            && guarded(call).unwrap_or(true)
    };
    let mut rules = vec![Rule {
        names: compile::names().filter(allowed).map(str::to_owned).collect(),
        action: Action::Allow,
        conditions: Vec::new(),
    }];
    let mut allow = |name: &str, op: Comparison, value: u64, value_two: u64| {
        let conditions = vec![Condition { index: 0, value, value_two, op }];
        rules.push(Rule { names: vec![name.to_owned()], action: Action::Allow, conditions });
    };
    // Linux, 32 bit, and their UNAME26 variants; asking.
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        allow("personality", Comparison::Equal, persona, 0);
    }
    allow("socket", Comparison::Less, AF_ALG, 0);
    allow("socket", Comparison::Equal, AF_ALG + 1, 0);
    allow("socket", Comparison::Greater, AF_VSOCK, 0);
    if has("CAP_SYS_ADMIN") {
        rules.push(Rule { names: vec!["clone".into()], action: Action::Allow, conditions: Vec::new() });
    } else {
        allow("clone", Comparison::MaskedEqual, NAMESPACES, 0);
        // Its flags are behind a pointer; told that it does not exist, libc falls back to clone.
        let action = Action::Errno(libc::ENOSYS as u16);
        rules.push(Rule { names: vec!["clone3".into()], action, conditions: Vec::new() });
    }
    Profile { default: Action::Errno(libc::EPERM as u16), i386: true, rules, flags: 0 }
}
