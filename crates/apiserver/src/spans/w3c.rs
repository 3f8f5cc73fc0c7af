//! The context of a trace in the headers of requests (W3C Trace Context): where a request comes from, and what others
//! are told who are asked because of it.

use http::{HeaderMap, HeaderName, HeaderValue};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// What goes along with a trace, which is nobody's business here.
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const SAMPLED: u8 = 1;
/// The most members that a state has.
const MEMBERS: usize = 32;

/// Where in which trace somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpanContext {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub sampled: bool,
    /// The other services' notes.
    pub state: String,
    pub baggage: Option<HeaderValue>,
    /// Somebody else has made it.
    pub remote: bool,
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
        text
    })
}

/// Trace, span and flags of a `traceparent`.
fn parent(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let mut parts = text.split('-');
    let [version] = bytes::<1>(parts.next()?)?;
    let (trace, span) = (bytes(parts.next()?)?, bytes(parts.next()?)?);
    let [flags] = bytes::<1>(parts.next()?)?;
    // Later versions may say more; this one says no more, and has two flags.
    let known = version != 0 || (parts.next().is_none() && flags <= 3);
    (version != 255 && known && trace != [0; 16] && span != [0; 8]).then_some((trace, span, flags))
}

/// A state that is well-formed enough to be handed on.
fn state(headers: &HeaderMap) -> String {
    let texts = headers.get_all(STATE).iter().filter_map(|value| value.to_str().ok());
    let members: Vec<&str> =
        texts.flat_map(|text| text.split(',')).map(str::trim).filter(|member| !member.is_empty()).collect();
    match members.len() <= MEMBERS && members.iter().all(|member| member.contains('=')) {
        true => members.join(","),
        false => String::new(),
    }
}

/// The context that a request came with.
pub(crate) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let (trace, span, flags) = parent(headers.get(PARENT)?.to_str().ok()?)?;
    Some(SpanContext {
        trace,
        span,
        sampled: flags & SAMPLED != 0,
        state: state(headers),
        baggage: headers.get(BAGGAGE).cloned(),
        remote: true,
    })
}

/// Tells whoever is asked now.
pub(crate) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    let flags = u8::from(context.sampled);
    let text = format!("00-{}-{}-{flags:02x}", hex(&context.trace), hex(&context.span));
    let state = Some(context.state.as_str()).filter(|state| !state.is_empty());
    for (name, value) in [
        (PARENT, HeaderValue::from_str(&text).ok()),
        (STATE, state.and_then(|state| HeaderValue::from_str(state).ok())),
        (BAGGAGE, context.baggage.clone()),
    ] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn contexts_are_read_and_told() {
        let given = [("traceparent", GOOD), ("tracestate", "a=1, b=2"), ("baggage", "k=v")];
        let context = extract(&headers(&given)).unwrap();
        assert!(context.sampled && context.remote);
        let mut told = headers(&[("traceparent", "another")]);
        inject(&context, &mut told);
        assert_eq!(told, headers(&[("traceparent", GOOD), ("tracestate", "a=1,b=2"), ("baggage", "k=v")]));
        let unsampled = GOOD.replace("-01", "-00");
        let context = extract(&headers(&[("traceparent", &unsampled), ("tracestate", "junk")])).unwrap();
        let mut told = HeaderMap::new();
        inject(&context, &mut told);
        assert_eq!(told, headers(&[("traceparent", &unsampled)]));
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        let check = |text: &str, good: bool| {
            assert_eq!(extract(&headers(&[("traceparent", text)])).is_some(), good, "{text}");
        };
        check(GOOD, true);
        check(&GOOD.to_uppercase(), false);
        check(&format!("{GOOD}-more"), false);
        check(&format!("cc{}-more", &GOOD[2..]), true);
        check(&format!("ff{}", &GOOD[2..]), false);
        check(&GOOD.replace("-01", "-09"), false);
        check(&GOOD.replace("b7ad6b7169203331", "0000000000000000"), false);
        check(&GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false);
        check(&GOOD[1..], false);
        check("", false);
        check("00-é", false);
    }
}
