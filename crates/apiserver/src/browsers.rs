//! What browsers are told: pages of which other origins may read answers (CORS), and that this server is spoken to over TLS
//! alone (HSTS).

use crate::body::{self, Answer};
use apimachinery::field::aggregate;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use regex::Regex;

/// See the module. The default tells them nothing.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    origins: Vec<Regex>,
    transport: Option<HeaderValue>,
}

const HELP: &str = "List of allowed origins for CORS, comma separated. An allowed origin can be a regular expression to support subdomain matching. If this list is empty CORS will not be enabled. Please ensure each expression matches the entire hostname by anchoring to the start with '^' or including the '//' prefix, and by anchoring to the end with '$' or including the ':' port separator suffix. Examples of valid expressions are '//example\\.com(:|$)' and '^https://example\\.com(:|$)'";

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
);

/// What pages of an allowed origin may do.
fn rights() -> [(HeaderName, HeaderValue); 4] {
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date")),
        (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
    ]
}

fn origin(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err(format!("empty value in --cors-allowed-origins, help: {HELP}"));
    }
    let invalid =
        |why: &str| format!("--cors-allowed-origins has an invalid regular expression: {why}, help: {HELP}");
    let regex = Regex::new(text).map_err(|error| invalid(&error.to_string()))?;
    // CVE-2022-1996.
    let (start, end) = (text.contains('^') || text.contains("//"), text.contains('$') || text.contains(':'));
    if start && end {
        return Ok(regex);
    }
    Err(invalid("regular expression does not pin to start/end of host in the origin header"))
}

fn directive(text: &str) -> Option<String> {
    let max_age = text.split_once('=').is_some_and(|(name, value)| name == "max-age" && !value.contains('='));
    match text {
        _ if text.trim().is_empty() => Some("empty value in strict-transport-security-directives".to_owned()),
        "includeSubDomains" | "preload" => None,
        _ if max_age => None,
        _ => Some(
            "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. see https://tools.ietf.org/html/rfc6797#section-6.1 for more information"
                .to_owned(),
        ),
    }
}

impl Browsers {
    /// Of expressions for origins, and directives of `Strict-Transport-Security`.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, in upstream's words.
    pub fn new(origins: &[String], directives: &[String]) -> Result<Self, String> {
        let mut errors: Vec<String> = directives.iter().filter_map(|text| directive(text)).collect();
        let mut regexes = Vec::new();
        for text in origins {
            match origin(text) {
                Ok(regex) => regexes.push(regex),
                Err(why) => errors.push(why),
            }
        }
        if let Some(errors) = aggregate(errors) {
            return Err(errors);
        }
        let transport = (!directives.is_empty()).then(|| directives.join("; "));
        let transport = transport.map(|text| text.parse()).transpose();
        let transport = transport.map_err(|error: header::InvalidHeaderValue| error.to_string())?;
        Ok(Browsers { origins: regexes, transport })
    }

    /// The origin of a request, if it is an allowed one.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN).filter(|_| !self.origins.is_empty())?;
        let text = std::str::from_utf8(origin.as_bytes()).ok().filter(|text| !text.is_empty())?;
        self.origins.iter().any(|regex| regex.is_match(text)).then(|| origin.clone())
    }

    /// The answer to a browser that asks what it may do, for a page of an allowed origin.
    pub(crate) fn preflight(method: &Method, origin: Option<&HeaderValue>) -> Option<Answer> {
        (method == Method::OPTIONS && origin.is_some()).then(|| {
            let mut answer = Answer::new(body::full(""));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        })
    }

    /// Adds to an answer what its browser is to know.
    pub(crate) fn tell(&self, origin: Option<HeaderValue>, answer: &mut Answer) {
        let headers = answer.headers_mut();
        if let Some(transport) = &self.transport {
            headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert_with(|| transport.clone());
        }
        let Some(origin) = origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.extend(rights());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn origins_are_matched_whole() {
        let browsers = Browsers::new(&texts(&[r"//a\.com(:|$)", r"^https://b\.com$"]), &[]).unwrap();
        for (origin, allowed) in [
            ("https://a.com", true),
            ("http://a.com:8080", true),
            ("https://a.com.evil", false),
            ("https://b.com", true),
            ("http://b.com", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            assert_eq!(browsers.allowed(&headers).is_some(), allowed, "{origin}");
        }
        assert_eq!(browsers.allowed(&HeaderMap::new()), None);
    }

    #[test]
    fn upstreams_words_for_what_is_wrong() {
        let refused = |origins: &[&str], directives: &[&str]| {
            Browsers::new(&texts(origins), &texts(directives)).unwrap_err()
        };
        let pin = "regular expression does not pin to start/end of host in the origin header";
        assert_eq!(
            refused(&["a.com"], &[]),
            format!("--cors-allowed-origins has an invalid regular expression: {pin}, help: {HELP}")
        );
        assert_eq!(refused(&[], &["", "preload"]), "empty value in strict-transport-security-directives");
        for wrong in ["max-age", "max-age=1=2", "Preload"] {
            assert!(refused(&[], &[wrong]).starts_with("--strict-transport-security-directives invalid"));
        }
        let told = Browsers::new(&[], &texts(&["max-age=31536000", "includeSubDomains"])).unwrap();
        assert_eq!(told.transport.unwrap(), "max-age=31536000; includeSubDomains");
    }
}
