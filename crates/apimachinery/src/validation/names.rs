//! Rules for names, label keys and values, variables, headers and paths.

use super::{Problems, empty_error, max_bytes_error, max_len_error, regex_error};
use crate::field::{Error, ErrorList, Path};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_WITH_UNDERSCORE: &str =
    "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const WILDCARD_SUBDOMAIN: &str = "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/// How long a DNS label may be.
pub const DNS1123_LABEL_MAX_LENGTH: usize = 63;
/// How long a DNS subdomain may be.
pub const DNS1123_SUBDOMAIN_MAX_LENGTH: usize = 253;
/// How long the value of a label may be.
pub const LABEL_VALUE_MAX_LENGTH: usize = 63;

/// Whether `text` is `first`, any of `inner`, `last`, as in `first(inner*last)?`.
fn framed(text: &str, first: fn(u8) -> bool, inner: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => first(*only),
        [start, middle @ .., end] => first(*start) && middle.iter().all(|byte| inner(*byte)) && last(*end),
    }
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn matches_label(text: &str) -> bool {
    framed(text, lower_or_digit, |byte| lower_or_digit(byte) || byte == b'-', lower_or_digit)
}

fn matches_subdomain(text: &str) -> bool {
    text.split('.').all(matches_label)
}

fn matches_label_with_underscore(text: &str) -> bool {
    let text = text.strip_prefix('_').unwrap_or(text);
    framed(text, lower_or_digit, |byte| lower_or_digit(byte) || matches!(byte, b'-' | b'_'), lower_or_digit)
}

fn matches_label_key(text: &str) -> bool {
    framed(text, alphanumeric, |byte| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.'), alphanumeric)
}

/// Length first, then shape: what most rules come down to.
fn check(text: &str, max: usize, shape: bool, message: impl FnOnce() -> String) -> Problems {
    let mut problems = Problems::new();
    if text.len() > max {
        problems.push(max_len_error(max));
    }
    if !shape {
        problems.push(message());
    }
    problems
}

/// A DNS label (RFC 1123).
pub fn is_dns1123_label(text: &str) -> Problems {
    check(text, DNS1123_LABEL_MAX_LENGTH, matches_label(text), || {
        if matches_subdomain(text) {
            return "must not contain dots".to_owned();
        }
        regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            LABEL,
            &["my-name", "123-abc"],
        )
    })
}

/// A DNS subdomain (RFC 1123): what most objects are named.
pub fn is_dns1123_subdomain(text: &str) -> Problems {
    check(text, DNS1123_SUBDOMAIN_MAX_LENGTH, matches_subdomain(text), || {
        regex_error(SUBDOMAIN_MESSAGE, SUBDOMAIN, &["example.com"])
    })
}

/// A DNS subdomain whose labels may begin with and hold underscores.
pub fn is_dns1123_subdomain_with_underscore(text: &str) -> Problems {
    let shape = text.split('.').all(matches_label_with_underscore);
    check(text, DNS1123_SUBDOMAIN_MAX_LENGTH, shape, || {
        regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_WITH_UNDERSCORE,
            &["example.com"],
        )
    })
}

/// A DNS label that begins with a letter (RFC 1035): what Services are named.
pub fn is_dns1035_label(text: &str) -> Problems {
    let shape = text.starts_with(|c: char| c.is_ascii_lowercase()) && matches_label(text);
    check(text, DNS1123_LABEL_MAX_LENGTH, shape, || {
        regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        )
    })
}

/// A DNS subdomain behind `*.`.
pub fn is_wildcard_dns1123_subdomain(text: &str) -> Problems {
    let shape = text.strip_prefix("*.").is_some_and(matches_subdomain);
    check(text, DNS1123_SUBDOMAIN_MAX_LENGTH, shape, || {
        regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            WILDCARD_SUBDOMAIN,
            &["*.example.com"],
        )
    })
}

/// Whether a name stands alone or gets something appended, as that of `generateName` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameUse {
    Whole,
    Prefix,
}

/// A prefix may end in a dash, because something will follow.
fn mask_trailing_dash(name: &str, name_use: NameUse) -> String {
    match name.strip_suffix('-') {
        // Upstream cuts the character before the dash too; the length rule then counts one less.
        Some(rest) if name_use == NameUse::Prefix && !rest.is_empty() => {
            let cut = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..cut])
        }
        _ => name.to_owned(),
    }
}

/// A name that must be a DNS subdomain.
pub fn name_is_dns_subdomain(name: &str, name_use: NameUse) -> Problems {
    is_dns1123_subdomain(&mask_trailing_dash(name, name_use))
}

/// A name that must be a DNS label.
pub fn name_is_dns_label(name: &str, name_use: NameUse) -> Problems {
    is_dns1123_label(&mask_trailing_dash(name, name_use))
}

/// A name that must be a DNS label and begin with a letter.
pub fn name_is_dns1035_label(name: &str, name_use: NameUse) -> Problems {
    is_dns1035_label(&mask_trailing_dash(name, name_use))
}

/// Something that can stand between slashes in a URL: the least a name must be.
pub fn is_path_segment_name(name: &str) -> Problems {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    is_path_segment_prefix(name)
}

/// The beginning of such a name.
pub fn is_path_segment_prefix(name: &str) -> Problems {
    ["/", "%"]
        .into_iter()
        .filter(|illegal| name.contains(illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// A label's key, or another name qualified by a domain: `example.com/name`, or `name`.
/// Upstream's `IsQualifiedName` and `IsLabelKey`.
pub fn is_qualified_name(text: &str) -> Problems {
    let shape = || {
        regex_error(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            LABEL_KEY,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut problems = Problems::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                shape()
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                problems.push(format!("prefix part {}", empty_error()));
            } else {
                if prefix.len() > DNS1123_SUBDOMAIN_MAX_LENGTH {
                    problems.push(format!("prefix part {}", max_bytes_error(DNS1123_SUBDOMAIN_MAX_LENGTH)));
                }
                if !matches_subdomain(prefix) {
                    let why = regex_error(SUBDOMAIN_MESSAGE, SUBDOMAIN, &["example.com"]);
                    problems.push(format!("prefix part {why}"));
                }
            }
            name
        }
    };
    if name.is_empty() {
        problems.push(format!("name part {}", empty_error()));
    } else if name.len() > DNS1123_LABEL_MAX_LENGTH {
        problems.push(format!("name part {}", max_bytes_error(DNS1123_LABEL_MAX_LENGTH)));
    }
    if !matches_label_key(name) {
        problems.push(format!("name part {}", shape()));
    }
    problems
}

/// A label's value.
pub fn is_valid_label_value(text: &str) -> Problems {
    let mut problems = Problems::new();
    if text.len() > LABEL_VALUE_MAX_LENGTH {
        problems.push(max_bytes_error(LABEL_VALUE_MAX_LENGTH));
    }
    if !text.is_empty() && !matches_label_key(text) {
        problems.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// The name of a port: an IANA service name (RFC 6335).
pub fn is_valid_port_name(text: &str) -> Problems {
    let mut problems = Problems::new();
    if text.len() > 15 {
        problems.push(max_len_error(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| lower_or_digit(byte) || byte == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// An identifier as in C.
pub fn is_c_identifier(text: &str) -> Problems {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let shape = text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
    check(text, usize::MAX, shape, || {
        regex_error(
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )
    })
}

/// The name of an HTTP header.
pub fn is_http_header_name(text: &str) -> Problems {
    let shape = !text.is_empty() && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-');
    check(text, usize::MAX, shape, || {
        regex_error(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )
    })
}

fn word_character(byte: u8) -> bool {
    alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.')
}

/// The name of an environment variable, by the strict rule.
pub fn is_env_var_name(text: &str) -> Problems {
    let shape = text.bytes().next().is_some_and(|byte| word_character(byte) && !byte.is_ascii_digit())
        && text.bytes().all(word_character);
    let mut problems = check(text, usize::MAX, shape, || {
        regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        )
    });
    problems.extend(has_ch_dir_prefix(text));
    problems
}

/// The name of an environment variable, by the relaxed rule of today: printable ASCII without `=`.
pub fn is_relaxed_env_var_name(text: &str) -> Problems {
    let mut problems = Problems::new();
    if text.is_empty() {
        problems.push(format!("environment variable name {}", empty_error()));
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// A key of a ConfigMap or Secret.
pub fn is_config_map_key(text: &str) -> Problems {
    let shape = !text.is_empty() && text.bytes().all(word_character);
    let mut problems = check(text, DNS1123_SUBDOMAIN_MAX_LENGTH, shape, || {
        regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        )
    });
    problems.extend(has_ch_dir_prefix(text));
    problems
}

/// Keys become file names, and these lead elsewhere.
fn has_ch_dir_prefix(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A domain of at least three parts, such as a finalizer's.
pub fn is_fully_qualified_name(path: &Path, name: &str) -> ErrorList {
    let problem = if name.is_empty() {
        return Error::required(path, "").into();
    } else if let problems @ [_, ..] = &*is_dns1123_subdomain(name) {
        problems.join(",")
    } else if name.split('.').count() < 3 {
        "should be a domain with at least three segments separated by dots".to_owned()
    } else {
        return ErrorList::new();
    };
    Error::invalid(path, name, problem).into()
}

/// A domain name of at least two parts, each a label; it may end in a dot.
pub fn is_fully_qualified_domain_name(path: &Path, name: &str) -> ErrorList {
    if name.is_empty() {
        return Error::required(path, "").into();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let problems = is_dns1123_subdomain(name);
    if !problems.is_empty() {
        return Error::invalid(path, name, problems.join(",")).into();
    }
    if name.split('.').count() < 2 {
        let why = "should be a domain with at least two segments separated by dots";
        return Error::invalid(path, name, why).into();
    }
    for label in name.split('.') {
        let problems = is_dns1123_label(label);
        if !problems.is_empty() {
            return Error::invalid(path, label, problems.join(",")).into();
        }
    }
    ErrorList::new()
}

/// A path behind a domain, as `acme.io/foo`.
pub fn is_domain_prefixed_path(path: &Path, text: &str) -> ErrorList {
    if text.is_empty() {
        return Error::required(path, "").into();
    }
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => (host, rest),
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return Error::invalid(path, text, why).into();
        }
    };
    let mut errors: ErrorList =
        is_dns1123_subdomain(host).into_iter().map(|why| Error::invalid(path, host, why)).collect();
    let in_path = |byte: u8| alphanumeric(byte) || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(in_path) {
        let why = regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(Error::invalid(path, rest, why));
    }
    errors
}

/// A key behind a domain, as `acme.io/foo`.
pub fn is_domain_prefixed_key(path: &Path, key: &str) -> ErrorList {
    if key.is_empty() {
        return Error::required(path, "").into();
    }
    let errors: ErrorList =
        is_qualified_name(key).into_iter().map(|why| Error::invalid(path, key, why)).collect();
    if errors.is_empty() && !key.contains('/') {
        let why = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        return Error::invalid(path, key, why).into();
    }
    errors
}
