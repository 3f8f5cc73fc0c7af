//! SPDY/3 header blocks: names and values behind 32-bit lengths, compressed by zlib with the protocol's dictionary, one
//! zlib stream per direction for the life of the connection.

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::Error;

/// Names and values, names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The most that a block may hold unpacked.
const MAX_BLOCK: usize = 64 << 10;

/// The words of the dictionary (SPDY/3 §2.6.10.1), each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// And its end, which is plain text.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ').map(|w| w.replace('_', " ")) {
        dictionary.put_u32(word.len() as u32);
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

/// Packs header blocks.
pub(crate) struct Packer(Compress);

impl Packer {
    pub(crate) fn new() -> Packer {
        let mut zlib = Compress::new(Compression::default(), true);
        // Refused only in the middle of a stream; without it the peer could not read a thing and would say so.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Packer(zlib)
    }

    pub(crate) fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [&name.to_ascii_lowercase(), value] {
                block.put_u32(text.len() as u32);
                block.extend_from_slice(text.as_bytes());
            }
        }
        let (mut packed, start) = (Vec::with_capacity(block.len() + 64), self.0.total_in());
        loop {
            let done = (self.0.total_in() - start) as usize;
            let status = self.0.compress_vec(&block[done..], &mut packed, FlushCompress::Sync);
            let all_in = (self.0.total_in() - start) as usize == block.len();
            // A flush is complete when it left room in the output.
            if status.is_err() || (all_in && packed.len() < packed.capacity()) {
                return packed;
            }
            packed.reserve(256);
        }
    }
}

/// Unpacks header blocks.
pub(crate) struct Unpacker(Decompress);

impl Unpacker {
    pub(crate) fn new() -> Unpacker {
        Unpacker(Decompress::new(true))
    }

    pub(crate) fn unpack(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        let (mut block, start) = (Vec::with_capacity(1024), self.0.total_in());
        loop {
            let rest = &packed[(self.0.total_in() - start) as usize..];
            let before = (self.0.total_in(), self.0.total_out());
            match self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(Error::Protocol("header compression ended")),
                Ok(_) => {}
                // The first block asks for the dictionary.
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Error::Protocol("unknown dictionary"))?;
                    continue;
                }
                Err(_) => return Err(Error::Protocol("headers do not unpack")),
            }
            let all_in = (self.0.total_in() - start) as usize == packed.len();
            if all_in && block.len() < block.capacity() {
                return parse(&block);
            }
            if block.len() >= MAX_BLOCK {
                return Err(Error::Protocol("headers too large"));
            }
            if before == (self.0.total_in(), self.0.total_out()) && block.len() < block.capacity() {
                return Err(Error::Protocol("headers do not unpack"));
            }
            block.reserve(1024);
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    let short = Error::Protocol("header block too short");
    let mut headers = Vec::new();
    let count = block.try_get_u32().map_err(|_| Error::Protocol("header block too short"))?;
    for _ in 0..count {
        let mut text = || {
            let length = block.try_get_u32().ok()? as usize;
            let (text, rest) = block.split_at_checked(length)?;
            block = rest;
            String::from_utf8(text.to_vec()).ok()
        };
        match (text(), text()) {
            (Some(name), Some(value)) => headers.push((name, value)),
            _ => return Err(short),
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_of_any_size_survive_the_way() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let mut noise = 1u32;
        for size in (0..60_000).step_by(3571) {
            let value = (0..size)
                .map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    char::from(b' ' + (noise >> 24) as u8 % 90)
                })
                .collect();
            let block = vec![("name".to_owned(), value)];
            assert_eq!(unpacker.unpack(&packer.pack(&block)).unwrap(), block);
        }
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn headers_survive_the_way(blocks in prop::collection::vec(prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,300}"), 0..8), 1..6)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                let packed = packer.pack(&block);
                prop_assert_eq!(unpacker.unpack(&packed).unwrap(), block);
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(garbage: Vec<u8>, cut in 0usize..100) {
            let _ = Unpacker::new().unpack(&garbage);
            let _ = parse(&garbage);
            let packed = Packer::new().pack(&vec![("port".into(), "80".into())]);
            let _ = Unpacker::new().unpack(&packed[..cut.min(packed.len())]);
        }
    }
}
