//! News of the packet filter: which tables somebody deleted.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::transaction::DELTABLE;
use super::{Family, Table};
use crate::netlink::{self, Error, Result, Socket};
use crate::netns::Netns;

/// The group that is told of every change to tables.
const NFNLGRP_NFTABLES: i32 = 7;

/// Hears of the changes in one network namespace. Its descriptor is readable when there is news.
#[derive(Debug)]
pub struct Monitor(Socket);

/// What [`Monitor::take`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These tables were deleted; they may have been made again since.
    Deleted(Vec<Table>),
    /// More was told than there was room for: anything may have happened.
    Lost,
}

impl Monitor {
    pub fn open_in(netns: &Netns) -> Result<Self> {
        Socket::listen_in(netns, netlink::Family::Netfilter, NFNLGRP_NFTABLES).map(Self)
    }

    /// Takes what was told since the last time, without waiting.
    pub fn take(&self) -> Result<News> {
        let told = match self.0.told() {
            Err(Error::Io(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(News::Lost),
            other => other?,
        };
        let deleted = told.iter().filter(|reply| reply.kind == DELTABLE).filter_map(|reply| {
            let (header, attributes) = reply.split(4)?;
            let family =
                [Family::Inet, Family::Ip, Family::Ip6].into_iter().find(|f| f.raw() == header[0])?;
            Some(Table::new(family, attributes.str(1)?))
        });
        Ok(News::Deleted(deleted.collect()))
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
