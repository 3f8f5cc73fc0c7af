//! Files that change all at once: they are written into a fresh directory, and one rename of the link `..data` shows them.
//! Readers see the old set or the new one, never a mixture. Upstream: `AtomicWriter`, on-disk names included.

use super::payload::Payload;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `dir` show exactly these files; `prepare` sees the fresh directory before anyone else. Does nothing when they
/// are there already.
pub(super) fn write(
    dir: &Path,
    files: &Payload,
    prepare: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    for path in files.keys() {
        validate(path)?;
    }
    let data = dir.join(DATA);
    let old = match std::fs::read_link(&data) {
        Ok(target) if target.components().count() == 1 => Some(dir.join(target)),
        _ => None,
    };
    if let Some(old) = &old
        && same(old, files)
        && links_ok(dir, files)
    {
        return Ok(());
    }
    let fresh = fresh_dir(dir)?;
    let shown = fill(&fresh, files).and_then(|()| prepare(&fresh)).and_then(|()| show(dir, &fresh, files));
    if let Err(error) = shown {
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(error);
    }
    remove_stale_links(dir, files)?;
    match old {
        Some(old) if old != fresh => match std::fs::remove_dir_all(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A path must stay within, and must not look like the writer's own names.
fn validate(path: &str) -> io::Result<()> {
    let components: Vec<Component> = Path::new(path).components().collect();
    let plain = components.iter().all(|c| matches!(c, Component::Normal(_)));
    let first = path.split('/').next().unwrap_or_default();
    if path.is_empty() || !plain || first.starts_with("..") || path.len() > 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

fn same(old: &Path, files: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if list(old, Path::new(""), &mut found).is_err() || found.len() != files.len() {
        return false;
    }
    files.iter().all(|(path, file)| {
        found.contains(Path::new(path)) && std::fs::read(old.join(path)).is_ok_and(|bytes| bytes == file.data)
    })
}

fn list(root: &Path, at: &Path, out: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(at))? {
        let entry = entry?;
        let inner = at.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &inner, out)?;
        } else {
            out.insert(inner);
        }
    }
    Ok(())
}

fn fresh_dir(dir: &Path) -> io::Result<PathBuf> {
    let time = crate::clock::time().to_string();
    let stamp: String =
        time.chars().filter(|c| *c != 'Z').map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    let mut number = crate::clock::now() as u32;
    loop {
        let path = dir.join(format!("..{stamp}.{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
            Err(error) => return Err(error),
        }
    }
}

fn fill(fresh: &Path, files: &Payload) -> io::Result<()> {
    for (path, file) in files {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut out, &file.data)?;
        if let Some(user) = file.user {
            std::os::unix::fs::fchown(&out, u32::try_from(user).ok(), None)?;
        }
        // Set explicitly: the process' umask must not matter.
        out.set_permissions(std::fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn top_level(files: &Payload) -> BTreeSet<&str> {
    files.keys().filter_map(|path| path.split('/').next()).collect()
}

fn show(dir: &Path, fresh: &Path, files: &Payload) -> io::Result<()> {
    let name = fresh.file_name().unwrap_or_default();
    let new_data = dir.join(NEW_DATA);
    match std::fs::remove_file(&new_data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &new_data)?;
    std::fs::rename(&new_data, dir.join(DATA))?;
    for top in top_level(files) {
        let link = dir.join(top);
        let target = Path::new(DATA).join(top);
        match std::fs::read_link(&link) {
            Ok(known) if known == target => {}
            _ => {
                let _ = std::fs::remove_file(&link);
                symlink(target, link)?;
            }
        }
    }
    Ok(())
}

fn links_ok(dir: &Path, files: &Payload) -> bool {
    top_level(files)
        .iter()
        .all(|top| std::fs::read_link(dir.join(top)).is_ok_and(|t| t == Path::new(DATA).join(top)))
}

fn remove_stale_links(dir: &Path, files: &Payload) -> io::Result<()> {
    let wanted = top_level(files);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn files(list: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640, user: None };
        list.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn shows_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
        let data = || std::fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), |_| Ok(())).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        let before = data();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), |_| Ok(())).unwrap();
        assert_eq!(data(), before, "nothing changed, nothing moved");
        write(dir.path(), &files(&[("a", "3")]), |_| Ok(())).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
        assert!(!dir.path().join(before).exists());
        let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        for bad in ["../x", "/x", "", "a/../../b", "..data"] {
            assert!(write(dir.path(), &files(&[(bad, "")]), |_| Ok(())).is_err(), "{bad}");
        }
    }
}
