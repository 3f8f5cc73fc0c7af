//! The bytes of netlink: requests with nested attributes, and answers taken apart without trusting a length.

const HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ROOT_MATCH: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A request under construction.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of `kind` with flags beside the ones each call needs (create, replace, …), and the family's fixed
    /// header.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    #[expect(clippy::len_without_is_empty, reason = "a message always has its header")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn acknowledged(self) -> Self {
        self.flagged(NLM_F_ACK)
    }

    pub(crate) fn dumped(self) -> Self {
        self.flagged(NLM_F_ROOT_MATCH)
    }

    fn flagged(mut self, more: u16) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends an attribute in network order, as netfilter wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends an attribute in host order, as rtnetlink wants its numbers.
    pub fn ne32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a string with its terminator.
    pub fn str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends attributes as they were received.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
        self.pad();
    }

    /// Appends an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_after(kind, &[], fill)
    }

    /// Like [`Message::nest`], with bytes before the inner attributes (a veth peer carries a link header there).
    pub fn nest_after(&mut self, kind: u16, header: &[u8], fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attr(kind | NESTED, header);
        fill(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    pub(crate) fn finish(&mut self, sequence: u32) -> &[u8] {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// One message from the kernel.
#[derive(Debug, Clone)]
pub struct Reply {
    pub kind: u16,
    pub sequence: u32,
    flags: u16,
    payload: Vec<u8>,
}

pub(crate) struct Status {
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

impl Reply {
    pub(crate) fn interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// The outcome, when this message is the end of an exchange and not an object.
    pub(crate) fn status(&self) -> Option<Status> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let errno = self.payload.get(..4).map_or(0, |b| -i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let mut detail = String::new();
        if self.kind == NLMSG_ERROR && self.flags & NLM_F_ACK_TLVS != 0 {
            // The request's header follows the number, its body only when it was not capped.
            let echoed = if self.flags & NLM_F_CAPPED != 0 {
                HEADER
            } else {
                self.payload
                    .get(4..8)
                    .map_or(HEADER, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize)
            };
            let tlvs = self.payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default();
            if let Some(text) = attributes(tlvs).find(1) {
                detail = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
            }
        }
        Some(Status { errno, detail })
    }

    /// The family's fixed header of `len` bytes, and the attributes behind it.
    pub fn split(&self, len: usize) -> Option<(&[u8], Attributes<'_>)> {
        let header = self.payload.get(..len)?;
        Some((header, attributes(self.payload.get(len.next_multiple_of(4)..).unwrap_or_default())))
    }
}

/// Takes a datagram apart; stops at the first length that does not fit.
pub(crate) fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut out = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = bytes.get(HEADER..len) else { break };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind != NLMSG_NOOP {
            out.push(Reply {
                kind,
                flags: u16::from_ne_bytes([header[6], header[7]]),
                sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
                payload: payload.to_vec(),
            });
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

/// The attributes of a message or of a nested attribute, in order.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { bytes }
}

/// An iterator over `(type, value)`, with look-ups by type on a fresh copy of itself.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self;
        rest.find_map(|(k, value)| (k == kind).then_some(value))
    }

    pub fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.get(..8)?.try_into().ok()?))
    }

    pub fn ne32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn str(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    pub fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(attributes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.bytes.get(..4)?;
        let len = u16::from_ne_bytes([head[0], head[1]]) as usize;
        let value = self.bytes.get(4..len)?;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        self.bytes = self.bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}
