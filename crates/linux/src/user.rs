//! Users and groups of an image, from the text of its /etc/passwd and /etc/group; and opening those files within a root
//! file system that is not to be trusted. Numbers beyond a signed 32-bit integer are refused, never wrapped around
//! (CVE-2024-40635).

use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use crate::path;

/// Image files are not trusted to be small.
const MAX_FILE: u64 = 8 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    #[error("uids and gids must be in range 0-2147483647, got {0:?}")]
    OutOfRange(String),
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
}

/// Who a process is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Groups of /etc/group that name the user, without `gid`.
    pub groups: Vec<u32>,
    pub home: Option<String>,
    pub name: Option<String>,
}

/// Reads `file` (such as `/etc/passwd`) within `root`; empty when there is none.
pub fn read(root: &Path, file: &str) -> io::Result<String> {
    let opened = path::Root::open(root)?.open_file(Path::new(file));
    let opened = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    let mut bytes = Vec::new();
    opened.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid`; empty is root. Names are looked up first, as numbers may be names;
/// a number without an entry stands for itself, with group 0.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Identity, Error> {
    let (user, wanted) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let entries = || passwd.lines().filter_map(Entry::parse);
    let entry = entries()
        .find(|entry| entry.name == user)
        .or_else(|| entries().find(|entry| Some(entry.uid) == number));
    let mut identity = match (entry, number) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: Some(entry.home.to_owned()).filter(|home| !home.is_empty()),
            name: Some(entry.name.to_owned()),
        },
        (None, Some(uid)) => Identity { uid, ..Identity::default() },
        (None, None) => return Err(Error::NoUser(user.to_owned())),
    };
    match wanted {
        Some(wanted) => identity.gid = group_id(wanted, group)?,
        None => {
            if let Some(name) = &identity.name {
                identity.groups = groups_of(name, group);
                identity.groups.retain(|gid| *gid != identity.gid);
            }
        }
    }
    Ok(identity)
}

/// The groups whose member lists name the user.
pub fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let gid = in_range(fields.nth(2)?)?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        })
        .collect();
    groups.dedup();
    groups
}

fn group_id(wanted: &str, group: &str) -> Result<u32, Error> {
    let number = number(wanted)?;
    let found = group.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = in_range(fields.nth(1)?)?;
        (name == wanted).then_some(gid)
    });
    found.or(number).ok_or_else(|| Error::NoGroup(wanted.to_owned()))
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Entry<'a>> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        (!name.is_empty()).then_some(())?;
        Some(Entry { name, uid: in_range(uid)?, gid: in_range(gid)?, home })
    }
}

fn in_range(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok())
}

/// Some for a number in range, None for a name; a number out of range is an error and not a name.
fn number(text: &str) -> Result<Option<u32>, Error> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    in_range(text).map(Some).ok_or_else(|| Error::OutOfRange(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/srv:/bin/false\nbig:x:4294967296:0::/:\nshort:x\n1000:x:7:8::/:\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:web\nlogs:x:55:root,web\nbig:x:4294967297:web\n";

    fn check(spec: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let got = resolve(spec, PASSWD, GROUP);
        match expected {
            Ok((uid, gid, groups)) => {
                let got = got.unwrap();
                assert_eq!((got.uid, got.gid, got.groups.as_slice()), (uid, gid, groups), "{spec}");
            }
            Err(message) => assert_eq!(got.unwrap_err().to_string(), message, "{spec}"),
        }
    }

    #[test]
    fn users_are_resolved_and_overflow_refused() {
        check("", Ok((0, 0, &[55])));
        check("web", Ok((33, 44, &[55])));
        check("33", Ok((33, 44, &[55])));
        check("web:logs", Ok((33, 55, &[])));
        check("12:13", Ok((12, 13, &[])));
        check("12", Ok((12, 0, &[])));
        check("1000", Ok((7, 8, &[])));
        check("nobody", Err("unable to find user nobody: no matching entries in passwd file"));
        check("web:nobody", Err("unable to find group nobody: no matching entries in group file"));
        check("big", Err("unable to find user big: no matching entries in passwd file"));
        for spec in ["4294967296", "2147483648", "-1", "99999999999999999999"] {
            check(spec, Err(&format!("uids and gids must be in range 0-2147483647, got {spec:?}")));
        }
        check("web:4294967296", Err("uids and gids must be in range 0-2147483647, got \"4294967296\""));
    }

    #[test]
    fn files_are_read_within_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        assert_eq!(read(dir.path(), "/etc/passwd").unwrap(), "");
        std::os::unix::fs::symlink("/../../../../etc/hostname", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(read(dir.path(), "/etc/passwd").unwrap(), "");
        std::fs::write(dir.path().join("etc/real"), "a:x:1:1::/:\n").unwrap();
        std::os::unix::fs::symlink("/etc/real", dir.path().join("etc/linked")).unwrap();
        assert_eq!(read(dir.path(), "/etc/linked").unwrap(), "a:x:1:1::/:\n");
    }
}
