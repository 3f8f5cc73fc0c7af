//! URLs, as Go's `net/url` takes them apart.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use apimachinery::quote::quote;

use crate::decls::Row;
use crate::value::{Error, Evaluated, Key, Map, NO_OVERLOAD, Text, Val, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("url", "string_to_url", "(string): kubernetes.URL", url),
    Row("getScheme", "url_get_scheme", "kubernetes.URL.(): string", |args| {
        Ok(Val::from(of(args)?.scheme.clone()))
    }),
    Row("getHost", "url_get_host", "kubernetes.URL.(): string", |args| Ok(Val::from(of(args)?.host.clone()))),
    Row("getHostname", "url_get_hostname", "kubernetes.URL.(): string", |args| {
        Ok(Val::from(of(args)?.hostname().to_owned()))
    }),
    Row("getPort", "url_get_port", "kubernetes.URL.(): string", |args| {
        Ok(Val::from(of(args)?.port().to_owned()))
    }),
    Row("getEscapedPath", "url_get_escaped_path", "kubernetes.URL.(): string", |args| {
        Ok(Val::from(of(args)?.path.clone()))
    }),
    Row("getQuery", "url_get_query", "kubernetes.URL.(): map(string, list(string))", query),
    Row("isURL", "is_url_string", "(string): bool", is_url),
];

/// A URL.
#[derive(Clone, Debug, Default)]
pub struct Url {
    scheme: String,
    opaque: String,
    user: Option<String>,
    /// With its port.
    host: String,
    /// Escaped.
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

impl Url {
    /// Takes a URL apart, as `url.Parse`; an error reads as Go's.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_any(text)
    }

    /// `https`, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Name and password, escaped.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What follows `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// What follows `#`.
    pub fn fragment(&self) -> Option<&str> {
        self.fragment.as_deref()
    }

    fn port_at(&self) -> Option<usize> {
        let at = self.host.rfind(':')?;
        let bracket = self.host.rfind(']').unwrap_or(0);
        (at >= bracket && self.host[at + 1..].bytes().all(|byte| byte.is_ascii_digit())).then_some(at)
    }

    fn hostname(&self) -> &str {
        let host = &self.host[..self.port_at().unwrap_or(self.host.len())];
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        self.port_at().map_or("", |at| &self.host[at + 1..])
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if self.opaque.is_empty() {
            if !self.scheme.is_empty() || !self.host.is_empty() || self.user.is_some() {
                if !self.host.is_empty() || !self.path.is_empty() || self.user.is_some() {
                    f.write_str("//")?;
                }
                if let Some(user) = &self.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&self.host)?;
            }
            f.write_str(&self.path)?;
        } else {
            f.write_str(&self.opaque)?;
        }
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        if let Some(fragment) = self.fragment.as_ref().filter(|fragment| !fragment.is_empty()) {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}

/// Whether the text comes from a request line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Request,
    Anywhere,
}

fn wrong(text: &str, why: &str) -> String {
    format!("parse {}: {why}", quote(text))
}

/// As `url.ParseRequestURI`.
pub(crate) fn parse_request(text: &str) -> Result<Url, String> {
    parse(text, From::Request).map_err(|why| wrong(text, &why))
}

/// As `url.Parse`.
fn parse_any(text: &str) -> Result<Url, String> {
    let (before, fragment) = text.split_once('#').map_or((text, None), |(b, f)| (b, Some(f)));
    let mut url = parse(before, From::Anywhere).map_err(|why| wrong(before, &why))?;
    if let Some(fragment) = fragment {
        unescape(fragment, false).map_err(|why| wrong(text, &why))?;
        url.fragment = Some(fragment.to_owned());
    }
    Ok(url)
}

fn parse(text: &str, from: From) -> Result<Url, String> {
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() && from == From::Request {
        return Err("empty url".into());
    }
    if text == "*" {
        return Ok(Url { path: "*".into(), ..Url::default() });
    }
    let (scheme, rest) = scheme(text)?;
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), ..Url::default() };
    let (mut rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
    url.query = query.map(String::from);
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            url.opaque = rest.to_owned();
            return Ok(url);
        }
        if from == From::Request {
            return Err("invalid URI for request".into());
        }
        let segment = rest.split('/').next().unwrap_or_default();
        if segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let authority = !url.scheme.is_empty() || (from == From::Anywhere && !rest.starts_with("///"));
    if let Some(after) = rest.strip_prefix("//").filter(|_| authority) {
        let end = after.find('/').unwrap_or(after.len());
        let (place, path) = after.split_at(end);
        rest = path;
        let (user, host) = place.rsplit_once('@').map_or((None, place), |(u, h)| (Some(u), h));
        if let Some(user) = user {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
            if !user.bytes().all(allowed) {
                return Err("net/url: invalid userinfo".into());
            }
            unescape(user, false)?;
            url.user = Some(user.to_owned());
        }
        url.host = parse_host(host)?;
    }
    let path = unescape(rest, false)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&byte);
    url.path = if rest.bytes().all(allowed) { rest.to_owned() } else { escape_path(&path) };
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn parse_host(host: &str) -> Result<String, String> {
    let colon = |port: &str| match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        None if port.is_empty() => Ok(()),
        _ => Err(format!("invalid port {} after host", quote(port))),
    };
    if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        colon(&host[end + 1..])?;
        return Ok(host.to_owned());
    }
    if let Some(at) = host.rfind(':') {
        colon(&host[at..])?;
    }
    let bytes = unescape_host(host)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// In a host, only what is not ASCII may be escaped, and little else may stand there at all.
fn unescape_host(host: &str) -> Result<Vec<u8>, String> {
    for byte in host.bytes() {
        if byte < 0x80 && !byte.is_ascii_alphanumeric() && !b"-_.~!$&'()*+,;=:[]<>\"%".contains(&byte) {
            return Err(format!("invalid character {} in host name", quote(&char::from(byte).to_string())));
        }
    }
    unescape(host, false)
}

fn unescape(text: &str, plus: bool) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits =
                    bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let value = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
                let Some(value) = value else {
                    let shown: String = text[at..].chars().take(3).collect();
                    return Err(format!("invalid URL escape {}", quote(&shown)));
                };
                out.push(value);
                at += 3;
            }
            b'+' if plus => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Ok(out)
}

fn escape_path(path: &[u8]) -> String {
    path.iter().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            out.push((*byte).into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

fn of<'v>(args: &'v [Val<'_>]) -> Result<&'v Url, Error> {
    match &args[0] {
        Val::Url(url) => Ok(url),
        _ => Err(NO_OVERLOAD),
    }
}

fn url<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    let parsed = parse_request(text).and_then(|_| parse_any(text));
    parsed
        .map(|url| Val::Url(Arc::new(url)))
        .map_err(|why| failed_with(format!("URL parse error during conversion from string: {why}")))
}

fn is_url<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(parse_request(args[0].as_str().ok_or(NO_OVERLOAD)?).is_ok()))
}

fn query<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let url = of(args)?;
    let mut found: BTreeMap<String, Vec<Val<'a>>> = BTreeMap::new();
    for pair in url.query.iter().flat_map(|query| query.split('&')) {
        // What cannot be read is left out.
        if pair.is_empty() || pair.contains(';') {
            continue;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Ok(key), Ok(value)) = (unescape(key, true), unescape(value, true)) {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            found.entry(text(key)).or_default().push(Val::from(text(value)));
        }
    }
    let entries =
        found.into_iter().map(|(key, values)| (Key::String(Text::Shared(key.into())), Val::from(values)));
    Ok(Val::Map(Map::of(entries.collect())))
}
