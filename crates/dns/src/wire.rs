//! Messages as bytes: what an upstream sent is kept and passed on without decoding it, so that no record type is lost
//! and nothing but the header, the question's case, the TTLs and the EDNS record changes.

use hickory_proto::op::{Edns, Message, Metadata, Query, emit_message_parts};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::BinEncoder;

/// The UDP payload size we announce and the largest we send: what passes any path without fragments (DNS flag day 2020).
pub(crate) const UDP_SIZE: u16 = 1232;
const HEADER: usize = 12;
/// Type and class behind a question's name.
const QUESTION_TAIL: usize = 4;
/// An EDNS record without options.
const OPT_SIZE: usize = 11;
const OPT: u16 = 41;
const SOA: u16 = 6;

/// What an answer has to regard of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub id: u16,
    pub recursion_desired: bool,
    pub checking_disabled: bool,
    /// Whether the client speaks EDNS, and if so, whether it wants DNSSEC records.
    pub edns: Option<bool>,
    /// The largest answer that the client takes.
    pub limit: u16,
}

impl Asked {
    pub(crate) fn new(request: &Message, udp: bool) -> Asked {
        let edns = request.edns.as_ref();
        let limit = match edns {
            _ if !udp => u16::MAX,
            Some(edns) => edns.max_payload().clamp(512, UDP_SIZE),
            None => 512,
        };
        Asked {
            id: request.metadata.id,
            recursion_desired: request.metadata.recursion_desired,
            checking_disabled: request.metadata.checking_disabled,
            edns: edns.map(|e| e.flags().dnssec_ok),
            limit,
        }
    }

    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns == Some(true)
    }

    fn room(&self) -> u16 {
        if self.edns.is_some() { self.limit - OPT_SIZE as u16 } else { self.limit }
    }

    /// Ends a message with the EDNS record, if the client speaks EDNS.
    fn append_opt(&self, rcode_high: u8, out: &mut Vec<u8>) {
        let Some(dnssec_ok) = self.edns else { return };
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let flags = if dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, OPT as u8, size_high, size_low, rcode_high, 0, flags, 0, 0, 0]);
        let additionals = word(out, 10).unwrap_or(0) + 1;
        set_word(out, 10, additionals);
    }
}

/// Writes an answer of our own; what does not fit is left out and the truncation bit set.
pub(crate) fn encode(
    asked: &Asked,
    metadata: &Metadata,
    query: &Query,
    sections: [&[Record]; 3],
    out: &mut Vec<u8>,
) -> Result<(), hickory_proto::ProtoError> {
    out.clear();
    let mut encoder = BinEncoder::new(out);
    encoder.set_max_size(asked.room());
    let [answers, authorities, additionals] = sections;
    let mut query = std::iter::once(query);
    let (mut answers, mut authorities) = (answers.iter(), authorities.iter());
    let mut additionals = additionals.iter();
    let sections = (&mut answers, &mut authorities, &mut additionals);
    emit_message_parts(
        metadata,
        &mut query,
        sections.0,
        sections.1,
        sections.2,
        None::<&Edns>,
        None,
        &mut encoder,
    )?;
    // A record that did not fit was taken back, but its bytes are still there.
    encoder.trim();
    asked.append_opt(metadata.response_code.high(), out);
    Ok(())
}

/// Writes an answer that is no more than a header: to what could not be read as far as its question.
pub(crate) fn bare(request: &[u8], code: u8, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&request[..4]);
    out[2] = 0x80 | (request[2] & 0x79);
    out[3] = code & 0x0f;
    out.extend_from_slice(&[0; HEADER - 4]);
}

/// The question of a message, as bytes; `None` unless there is exactly one, its name written out.
pub(crate) fn question(message: &[u8]) -> Option<&[u8]> {
    let end = question_end(message)?;
    message.get(HEADER..end)
}

fn question_end(message: &[u8]) -> Option<usize> {
    if word(message, 4)? != 1 {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length if length < 64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 1 + QUESTION_TAIL;
    (end <= message.len() && at - HEADER < 255).then_some(end)
}

/// Whether two questions ask the same: names regardless of case, type and class to the bit.
pub(crate) fn same_question(a: &[u8], b: &[u8]) -> bool {
    let split = |q: &'_ [u8]| q.len().checked_sub(QUESTION_TAIL);
    match (split(a), split(b)) {
        (Some(x), Some(y)) => a[..x].eq_ignore_ascii_case(&b[..y]) && a[x..] == b[y..],
        _ => false,
    }
}

/// Writes the query we send upstream.
pub(crate) fn query(id: u16, question: &[u8], asked: &Asked, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    let checking_disabled = if asked.checking_disabled { 0x10 } else { 0 };
    out.extend_from_slice(&[0x01, checking_disabled, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(question);
    Asked { edns: Some(asked.dnssec_ok()), ..*asked }.append_opt(0, out);
}

/// Whether `message` is an answer to the query with this id and question.
pub(crate) fn answers(message: &[u8], id: u16, asked: &[u8]) -> bool {
    word(message, 0) == Some(id)
        && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && question(message).is_some_and(|q| same_question(q, asked))
}

/// Whether the truncation bit is set.
pub(crate) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// An upstream's answer, without its EDNS record.
#[derive(Debug)]
pub(crate) struct Stored {
    bytes: Box<[u8]>,
    /// Where the TTLs stand, in the order of the records.
    ttls: Box<[u16]>,
    rcode_high: u8,
    /// For how many seconds it may be kept, if at all.
    pub keep: Option<u32>,
}

impl Stored {
    /// Reads an answer; `None` if it is malformed.
    pub(crate) fn read(mut bytes: Vec<u8>) -> Option<Stored> {
        let mut at = question_end(&bytes)?;
        let (mut ttls, mut rcode_high) = (Vec::new(), 0);
        let (mut least, mut has_soa) = (u32::MAX, false);
        let mut counts = [word(&bytes, 6)?, word(&bytes, 8)?, word(&bytes, 10)?];
        'sections: for section in 0..counts.len() {
            for seen in 0..counts[section] {
                let start = at;
                at = skip_name(&bytes, at)?;
                let record_type = word(&bytes, at)?;
                let length = word(&bytes, at + 8)?;
                let end = at + 10 + usize::from(length);
                if end > bytes.len() {
                    return None;
                }
                if record_type == OPT {
                    rcode_high = bytes[at + 4];
                    // What follows it, such as a signature of the message, is void without it.
                    counts[section] = seen;
                    counts[section + 1..].fill(0);
                    at = start;
                    break 'sections;
                }
                let ttl = long(&bytes, at + 4)?;
                least = least.min(ttl);
                if record_type == SOA && section == 1 {
                    has_soa = true;
                    least = least.min(long(&bytes, end.checked_sub(4)?)?);
                }
                ttls.push(u16::try_from(at + 4).ok()?);
                at = end;
            }
        }
        bytes.truncate(at);
        for (i, count) in counts.iter().enumerate() {
            set_word(&mut bytes, 6 + 2 * i, *count);
        }
        let keep = match (bytes[3] & 0x0f, counts[0]) {
            _ if rcode_high != 0 || is_truncated(&bytes) => None,
            (0, 1..) => Some(least),
            // Only with a SOA does an answer say how long nothing will be there (RFC 2308).
            (0 | 3, _) if has_soa => Some(least),
            _ => None,
        };
        Some(Stored { bytes: bytes.into(), ttls: ttls.into(), rcode_high, keep })
    }

    /// As read, but for the EDNS record.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The response code, with its high part.
    pub(crate) fn code(&self) -> u16 {
        u16::from(self.rcode_high) << 4 | u16::from(self.bytes[3] & 0x0f)
    }

    /// Whether it says that something is not there.
    pub(crate) fn is_denial(&self) -> bool {
        self.code() == 3 || word(&self.bytes, 6) == Some(0)
    }

    /// What keeping it costs.
    pub(crate) fn size(&self) -> usize {
        size_of::<Stored>() + self.bytes.len() + 2 * self.ttls.len()
    }

    /// Writes it as the answer to a client who asked the same in its own spelling, `age` seconds after it came.
    pub(crate) fn write(&self, asked: &Asked, question: &[u8], age: u32, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.bytes);
        out[..2].copy_from_slice(&asked.id.to_be_bytes());
        let recursion_desired = u8::from(asked.recursion_desired);
        out[2] = 0x80 | (out[2] & 0x04) | recursion_desired;
        let authentic = if asked.dnssec_ok() { 0x20 } else { 0 };
        let checking_disabled = if asked.checking_disabled { 0x10 } else { 0 };
        out[3] = 0x80 | (out[3] & (authentic | 0x0f)) | checking_disabled;
        if let Some(place) = out.get_mut(HEADER..HEADER + question.len()) {
            place.copy_from_slice(question);
        }
        if age > 0 {
            for at in &self.ttls {
                let at = usize::from(*at);
                let left = long(out, at).unwrap_or(0).saturating_sub(age);
                out[at..at + 4].copy_from_slice(&left.to_be_bytes());
            }
        }
        let room = usize::from(asked.room());
        if out.len() > room {
            self.truncate(room, HEADER + question.len(), out);
        }
        asked.append_opt(self.rcode_high, out);
    }

    /// Leaves the records that fit: there are resolvers that take what is there and never ask over TCP.
    fn truncate(&self, room: usize, question_end: usize, out: &mut Vec<u8>) {
        let (mut end, mut left) = (question_end, 0);
        for at in &self.ttls {
            let at = usize::from(*at);
            let next = at + 6 + usize::from(word(out, at + 4).unwrap_or(0));
            if next > room {
                break;
            }
            (end, left) = (next, left + 1);
        }
        out.truncate(end);
        out[2] |= 0x02;
        for at in [6, 8, 10] {
            let count = word(out, at).unwrap_or(0).min(left);
            set_word(out, at, count);
            left -= count;
        }
    }
}

/// The place behind a name, which may end in a pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length < 64 => at += 1 + usize::from(length),
            length if length >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn set_word(message: &mut [u8], at: usize, value: u16) {
    message[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn long(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, MX, SOA as Soa, TXT};
    use hickory_proto::rr::{Name, RData, RecordType};
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn asked(edns: Option<bool>, limit: u16) -> Asked {
        Asked { id: 0xbeef, recursion_desired: true, checking_disabled: false, edns, limit }
    }

    /// An upstream's answer with `count` addresses, a name to compress and an EDNS record.
    fn upstream(code: ResponseCode, count: u8, soa: bool) -> Vec<u8> {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("www.example.com."), RecordType::A));
        let record = |ttl, data| Record::from_rdata(name("www.example.com."), ttl, data);
        message.add_answers((0..count).map(|n| record(300 + u32::from(n), RData::A(A::new(192, 0, 2, n)))));
        if soa {
            let soa = Soa::new(name("ns.example.com."), name("root.example.com."), 1, 2, 3, 4, 60);
            message.add_authority(Record::from_rdata(name("example.com."), 900, RData::SOA(soa)));
        }
        message.add_additional(record(400, RData::MX(MX::new(1, name("mx.example.com.")))));
        message.add_additional(record(400, RData::TXT(TXT::new(vec!["x".repeat(60)]))));
        message.add_additional(record(400, RData::CNAME(CNAME(name("example.com.")))));
        message.set_edns(Edns::new());
        message.to_vec().unwrap()
    }

    #[test]
    fn how_long_answers_are_kept() {
        let check = |code, count, soa, keep: Option<u32>| {
            let stored = Stored::read(upstream(code, count, soa)).unwrap();
            assert_eq!(stored.keep, keep, "{code} {count} {soa}");
        };
        check(ResponseCode::NoError, 2, false, Some(300));
        check(ResponseCode::NoError, 0, true, Some(60));
        check(ResponseCode::NoError, 0, false, None);
        check(ResponseCode::NXDomain, 0, true, Some(60));
        check(ResponseCode::NXDomain, 0, false, None);
        check(ResponseCode::ServFail, 0, true, None);
        check(ResponseCode::BADCOOKIE, 1, true, None);
    }

    #[test]
    fn passing_on_changes_what_must_change() {
        let bytes = upstream(ResponseCode::NoError, 100, true);
        let sent = Message::from_vec(&bytes).unwrap();
        let stored = Stored::read(bytes).unwrap();
        let question = crate::forward::question(&name("wWw.EXAMPLE.com."), &[0, 1, 0, 1]);
        let mut out = Vec::new();
        for (edns, limit, age) in
            [(None, u16::MAX, 0), (Some(true), u16::MAX, 310), (None, 512, 0), (Some(false), 1232, 1)]
        {
            stored.write(&asked(edns, limit), &question, age, &mut out);
            let got = Message::from_vec(&out).unwrap();
            let whole = limit == u16::MAX;
            assert!(out.len() <= limit.into() && (whole || out.len() + 100 > limit.into()), "{limit}");
            assert_eq!(got.metadata.truncation, !whole);
            assert_eq!((got.metadata.id, got.edns.is_some()), (0xbeef, edns.is_some()));
            assert_eq!(got.queries[0].name.to_ascii(), "wWw.EXAMPLE.com.");
            let expected = sent.all_sections().map(|r| (r.data.clone(), r.ttl.saturating_sub(age)));
            let found: Vec<_> = got.all_sections().map(|r| (r.data.clone(), r.ttl)).collect();
            assert_eq!(found, expected.take(found.len()).collect::<Vec<_>>());
            assert!(!whole || found.len() == 104);
        }
    }

    proptest! {
        /// Whatever an upstream sends, what is passed on keeps its limit and nothing panics.
        #[test]
        fn any_answer(
            count in 0u8..40,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            limit in 512u16..2000,
            age in 0u32..1000,
        ) {
            let mut bytes = upstream(ResponseCode::NoError, count, true);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut.index(4) == 0 {
                bytes.truncate(cut.index(bytes.len()));
            }
            let own = question(&bytes).map(<[u8]>::to_vec);
            if let (Some(stored), Some(own)) = (Stored::read(bytes), own) {
                let mut out = Vec::new();
                stored.write(&asked(Some(true), limit), &own, age, &mut out);
                prop_assert!(out.len() <= limit.into() && question(&out) == Some(&own));
            }
        }
    }
}
