//! The process of a container: arguments, environment, who it is, what it may do.

use super::{Inputs, app_armor};
use crate::record::UserRecord;
use cri::v1::security_profile::ProfileType;
use cri::v1::{LinuxContainerSecurityContext, SecurityProfile, SupplementalGroupsPolicy};
use cri::{Error, Result};
use linux::{capabilities, seccomp, user};
use shim::protocol::{Capabilities, Process, Seccomp, User};
use std::io::Read;
use std::path::{Path, PathBuf};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Image files are not trusted to be small.
const MAX_FILE: u64 = 8 << 20;

pub(super) fn process(inputs: &Inputs<'_>, security: &LinuxContainerSecurityContext) -> Result<Process> {
    let config = inputs.config;
    let user = user(inputs, security)?;
    let capabilities = capability_sets(security)?;
    let cwd = match (config.working_dir.as_str(), inputs.image.working_dir.as_deref()) {
        ("", None | Some("")) => "/",
        ("", Some(of_image)) => of_image,
        (given, _) => given,
    };
    let linux = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    Ok(Process {
        args: args(inputs)?,
        env: env(inputs),
        cwd: cwd.to_owned(),
        user: User { uid: user.uid, gid: user.gid, groups: user.groups },
        umask: None,
        no_new_privileges: security.no_new_privs,
        rlimits: Vec::new(),
        oom_score_adj: linux.map(|linux| linux.oom_score_adj.clamp(-1000, 1000) as i32),
        seccomp: filter(security, capabilities.bounding, inputs.seccomp_dir)?,
        capabilities,
        app_armor: app_armor::profile(security, &app_armor::Machine)?,
    })
}

/// A command replaces the image's entrypoint and its arguments; arguments alone replace only the image's.
fn args(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let (config, image) = (inputs.config, inputs.image);
    let mut all = config.command.clone();
    let mut args = config.args.clone();
    if all.is_empty() {
        all = image.entrypoint.clone().unwrap_or_default();
        if args.is_empty() {
            args = image.cmd.clone().unwrap_or_default();
        }
    }
    all.extend(args);
    match all.is_empty() {
        true => Err(Error::invalid_argument("no command specified")),
        false => Ok(all),
    }
}

/// The image's, then the pod's, each name once, the last value winning in the first one's place.
fn env(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", inputs.hostname)];
    if inputs.config.tty {
        env.push("TERM=xterm".into());
    }
    let given = inputs
        .config
        .envs
        .iter()
        .map(|pair| format!("{}={}", pair.key, String::from_utf8_lossy(&pair.value)));
    for entry in inputs.image.env.iter().flatten().cloned().chain(given) {
        let name = entry.split('=').next().unwrap_or("");
        let same = |known: &String| known.split('=').next() == Some(name);
        match env.iter().position(same) {
            Some(at) => env[at] = entry,
            None => env.push(entry),
        }
    }
    env
}

/// Who it is: the security context's word, else the image's; names are looked up in the image.
fn user(inputs: &Inputs<'_>, security: &LinuxContainerSecurityContext) -> Result<UserRecord> {
    let invalid = |error: user::Error| Error::invalid_argument(error.to_string());
    let id = |value: &Option<cri::v1::Int64Value>| value.as_ref().map(|value| value.value);
    let (uid, gid) = (id(&security.run_as_user), id(&security.run_as_group));
    let spec = match (security.run_as_username.as_str(), uid) {
        ("", None) if gid.is_some() => {
            return Err(Error::invalid_argument("user group is specified without user"));
        }
        ("", None) => inputs.image.user.clone().unwrap_or_default(),
        ("", Some(uid)) => uid.to_string(),
        (name, _) => name.to_owned(),
    };
    let spec = match gid {
        Some(gid) => format!("{}:{gid}", spec.split(':').next().unwrap_or("")),
        None => spec,
    };
    let (passwd, group) = (image_file(inputs.lower, "etc/passwd")?, image_file(inputs.lower, "etc/group")?);
    let identity = user::resolve(&spec, &passwd, &group).map_err(invalid)?;
    let mut groups = Vec::new();
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(name) = &identity.name
    {
        groups = user::groups_of(name, &group);
    }
    for gid in &security.supplemental_groups {
        let gid = u32::try_from(*gid).ok().filter(|gid| *gid <= i32::MAX as u32);
        groups.push(gid.ok_or_else(|| invalid(user::Error::OutOfRange(format!("{gid:?}"))))?);
    }
    // As containerd: the primary group is among them.
    groups.push(identity.gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(UserRecord { uid: identity.uid, gid: identity.gid, groups })
}

/// A file of the stacked layers, as text; empty when there is none.
fn image_file(lower: &[PathBuf], path: &str) -> Result<String> {
    for layer in lower {
        let failed = |error: std::io::Error| Error::unknown(format!("reading {path} of the image: {error}"));
        let root = linux::path::Root::open(layer).map_err(failed)?;
        match root.open_file(Path::new(path)) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A whiteout, or something that is no file: the layers below are hidden.
            Err(_) => break,
        }
    }
    Ok(String::new())
}

fn capability_sets(security: &LinuxContainerSecurityContext) -> Result<Capabilities> {
    let changes = security.capabilities.clone().unwrap_or_default();
    let names = |list: &'static str| {
        move |error: capabilities::Unknown| Error::invalid_argument(format!("{list}: {error}"))
    };
    let base = if security.privileged { capabilities::ALL } else { capabilities::DEFAULT };
    let (add, drop) = (&changes.add_capabilities, &changes.drop_capabilities);
    let set = capabilities::change(base, add.iter().map(String::as_str), drop.iter().map(String::as_str))
        .map_err(names("capabilities"))?;
    let ambient = changes.add_ambient_capabilities.iter().map(String::as_str);
    let ambient = capabilities::change(0, ambient, []).map_err(names("ambient capabilities"))?;
    let set = set | ambient;
    Ok(Capabilities { bounding: set, effective: set, permitted: set, ambient })
}

fn filter(security: &LinuxContainerSecurityContext, bounding: u64, dir: &Path) -> Result<Option<Seccomp>> {
    let profile = security.seccomp.clone().unwrap_or(SecurityProfile {
        profile_type: ProfileType::Unconfined.into(),
        localhost_ref: String::new(),
    });
    if security.privileged {
        return Ok(None);
    }
    let failed = |error: &dyn std::fmt::Display| {
        Error::invalid_argument(format!(
            "failed to load seccomp profile {:?}: {error}",
            profile.localhost_ref
        ))
    };
    let profile = match profile.profile_type() {
        ProfileType::Unconfined => return Ok(None),
        ProfileType::RuntimeDefault => seccomp::runtime_default(bounding),
        ProfileType::Localhost => {
            // The kubelet gives an absolute path, in CRI's older form after `localhost/`.
            let path = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
            let bytes = std::fs::read(dir.join(path)).map_err(|error| failed(&error))?;
            seccomp::Profile::parse(&bytes).map_err(|error| failed(&error))?
        }
    };
    let filter = profile.compile().map_err(|error| failed(&error))?;
    Ok(Some(Seccomp { filter: filter.instructions, flags: filter.flags }))
}
