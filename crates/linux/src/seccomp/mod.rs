//! Seccomp profiles: the default one of containers, and OCI's JSON, compiled to a BPF program that the shim loads.
//! No libseccomp: the compiler is `compile`, the numbers are `syscalls.txt`.
//! On x86-64 a filter covers x86-64 and i386; x32 calls fail with ENOSYS, as on kernels built without them.

mod compile;
mod default;

use serde::Deserialize;
use thiserror::Error;

pub use default::runtime_default;

#[derive(Debug, Error)]
pub enum Error {
    /// An empty profile is never taken for "no profile" (CVE-2023-2431).
    #[error("seccomp profile is empty")]
    Empty,
    #[error("seccomp profile: {0}")]
    Parse(#[from] serde_json::Error),
    #[error("seccomp profile: unknown {what} {value:?}")]
    Unknown { what: &'static str, value: String },
    #[error("seccomp profile: argument index {0} is out of range")]
    Argument(u32),
    #[error("seccomp profile is too large: {0} instructions")]
    TooLarge(usize),
    #[error("seccomp filters are not supported on this architecture")]
    Architecture,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
    Trace(u16),
    Log,
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Comparison {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A comparison with one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub index: u32,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: Comparison,
}

/// What happens to some calls, if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

/// A whole profile. Names that this machine does not know are skipped, as upstream does: profiles are written for many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub default: Action,
    /// Whether 32-bit programs are covered; if not, they are killed.
    pub i386: bool,
    pub rules: Vec<Rule>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
}

/// What the kernel loads: `struct sock_filter` each, with code in bits 48..64, jt in 40..48, jf in 32..40, k in 0..32.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub instructions: Vec<u64>,
    pub flags: u32,
}

impl Profile {
    /// Compiles for this machine.
    pub fn compile(&self) -> Result<Filter, Error> {
        compile::compile(self)
    }

    /// Reads the OCI form (`linux.seccomp` of the runtime specification), which Localhost profiles are written in.
    pub fn parse(json: &[u8]) -> Result<Profile, Error> {
        if json.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty);
        }
        let file: File = serde_json::from_slice(json)?;
        let default = action(&file.default_action, file.default_errno_ret)?;
        let mut rules = Vec::new();
        for syscall in file.syscalls {
            let action = action(&syscall.action, syscall.errno_ret)?;
            if let Some(condition) = syscall.args.iter().find(|condition| condition.index > 5) {
                return Err(Error::Argument(condition.index));
            }
            // As runc: an argument named twice means alternatives, since a conjunction could not say more.
            let mut indexes: Vec<u32> = syscall.args.iter().map(|condition| condition.index).collect();
            indexes.sort_unstable();
            indexes.dedup();
            let alternatives = match indexes.len() == syscall.args.len() {
                true => vec![syscall.args],
                false => syscall.args.into_iter().map(|condition| vec![condition]).collect(),
            };
            for conditions in alternatives {
                rules.push(Rule { names: syscall.names.clone(), action, conditions });
            }
        }
        let mut flags = 0;
        for flag in &file.flags {
            flags |= match flag.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => 1,
                "SECCOMP_FILTER_FLAG_LOG" => 2,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 32,
                other => return Err(Error::Unknown { what: "flag", value: other.to_owned() }),
            };
        }
        let i386 = file.architectures.iter().any(|arch| arch == "SCMP_ARCH_X86");
        Ok(Profile { default, i386, rules, flags })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Syscall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, Error> {
    let unknown = || Error::Unknown { what: "action", value: name.to_owned() };
    let errno = u16::try_from(errno.unwrap_or(libc::EPERM as u32)).map_err(|_| unknown())?;
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        _ => return Err(unknown()),
    })
}
