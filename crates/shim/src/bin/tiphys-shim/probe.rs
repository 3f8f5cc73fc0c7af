//! Whether pods can have user namespaces here: one is made, and a mount of the directory is mapped with it. Kernel, file
//! system and limits all have a say, and only trying tells.

use std::io;
use std::os::fd::OwnedFd;

use shim::protocol::IdMap;

use crate::rootfs::{self, Users};
use crate::{mounts, sys};

fn attempt(dir: &str) -> io::Result<()> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let Some(child) = sys::clone(libc::CLONE_NEWUSER, None)? else {
        drop(go);
        // Ends when the parent has, whatever becomes of it.
        let _ = io::Read::read(&mut std::fs::File::from(wait), &mut [0]);
        sys::quit(0)
    };
    drop(wait);
    let tried = map(dir, child);
    drop(go);
    // Reaped by whoever inherits it, at the latest.
    // SAFETY: integers and a null pointer.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    tried
}

fn map(dir: &str, child: i32) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{file}"), "0 65536 65536")?;
    }
    let namespace = OwnedFd::from(std::fs::File::open(format!("/proc/{child}/ns/user"))?);
    let ids = vec![IdMap { container: 0, host: 65536, length: 65536 }];
    let mount = mounts::clone_path(dir)?;
    rootfs::idmap(&mount, Some(&Users { namespace, uids: ids.clone(), gids: ids }))
}

/// Exits with 0 if it can be done; else says why not, and exits with 1.
pub(crate) fn idmap(dir: &str) -> i32 {
    match attempt(dir) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}
