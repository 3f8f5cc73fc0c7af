//! Named formats: what Kubernetes' names and values may look like.

use apimachinery::validation::{
    NameUse, is_qualified_name, is_valid_label_value, name_is_dns_label, name_is_dns_subdomain,
    name_is_dns1035_label,
};
use base64::Engine;

use super::url::parse_request;
use crate::decls::Row;
use crate::time::{Timestamp, parse_date};
use crate::value::{Evaluated, NO_OVERLOAD, Val};

pub(crate) const ROWS: &[Row] = &[
    Row("validate", "format-validate", "kubernetes.NamedFormat.(string): optional(list(string))", validate),
    Row("format.named", "format-named", "(string): optional(kubernetes.NamedFormat)", named),
    Row("format.dns1123Label", "format.dns1123Label", "(): kubernetes.NamedFormat", |_| of("dns1123Label")),
    Row("format.dns1123Subdomain", "format.dns1123Subdomain", "(): kubernetes.NamedFormat", |_| {
        of("dns1123Subdomain")
    }),
    Row("format.dns1035Label", "format.dns1035Label", "(): kubernetes.NamedFormat", |_| of("dns1035Label")),
    Row("format.qualifiedName", "format.qualifiedName", "(): kubernetes.NamedFormat", |_| {
        of("qualifiedName")
    }),
    Row("format.dns1123LabelPrefix", "format.dns1123LabelPrefix", "(): kubernetes.NamedFormat", |_| {
        of("dns1123LabelPrefix")
    }),
    Row(
        "format.dns1123SubdomainPrefix",
        "format.dns1123SubdomainPrefix",
        "(): kubernetes.NamedFormat",
        |_| of("dns1123SubdomainPrefix"),
    ),
    Row("format.dns1035LabelPrefix", "format.dns1035LabelPrefix", "(): kubernetes.NamedFormat", |_| {
        of("dns1035LabelPrefix")
    }),
    Row("format.labelValue", "format.labelValue", "(): kubernetes.NamedFormat", |_| of("labelValue")),
    Row("format.uri", "format.uri", "(): kubernetes.NamedFormat", |_| of("uri")),
    Row("format.uuid", "format.uuid", "(): kubernetes.NamedFormat", |_| of("uuid")),
    Row("format.byte", "format.byte", "(): kubernetes.NamedFormat", |_| of("byte")),
    Row("format.date", "format.date", "(): kubernetes.NamedFormat", |_| of("date")),
    Row("format.datetime", "format.datetime", "(): kubernetes.NamedFormat", |_| of("datetime")),
];

/// A format.
#[derive(Debug)]
pub struct NamedFormat {
    /// The name under which expressions find it.
    pub key: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// What is wrong with a text.
    pub problems: fn(&str) -> Vec<String>,
    /// The length of its pattern, for what it costs.
    pub max_regex: u64,
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat {
        key: "dns1123Label",
        name: "DNS1123Label",
        problems: |text| name_is_dns_label(text, NameUse::Whole),
        max_regex: 30,
    },
    NamedFormat {
        key: "dns1123Subdomain",
        name: "DNS1123Subdomain",
        problems: |text| name_is_dns_subdomain(text, NameUse::Whole),
        max_regex: 60,
    },
    NamedFormat {
        key: "dns1035Label",
        name: "DNS1035Label",
        problems: |text| name_is_dns1035_label(text, NameUse::Whole),
        max_regex: 30,
    },
    NamedFormat { key: "qualifiedName", name: "QualifiedName", problems: is_qualified_name, max_regex: 60 },
    NamedFormat {
        key: "dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        problems: |text| name_is_dns_label(text, NameUse::Prefix),
        max_regex: 30,
    },
    NamedFormat {
        key: "dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        problems: |text| name_is_dns_subdomain(text, NameUse::Prefix),
        max_regex: 60,
    },
    NamedFormat {
        key: "dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        problems: |text| name_is_dns1035_label(text, NameUse::Prefix),
        max_regex: 30,
    },
    NamedFormat { key: "labelValue", name: "LabelValue", problems: is_valid_label_value, max_regex: 40 },
    NamedFormat {
        key: "uri",
        name: "URI",
        problems: |text| parse_request(text).err().into_iter().collect(),
        max_regex: 1103,
    },
    NamedFormat {
        key: "uuid",
        name: "uuid",
        problems: |text| unless(is_uuid(text), "does not match the UUID format"),
        max_regex: 80,
    },
    NamedFormat {
        key: "byte",
        name: "byte",
        problems: |text| {
            unless(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")
        },
        max_regex: 84,
    },
    NamedFormat {
        key: "date",
        name: "date",
        problems: |text| unless(parse_date(text).is_some(), "invalid date"),
        max_regex: 79,
    },
    NamedFormat {
        key: "datetime",
        name: "datetime",
        problems: |text| unless(Timestamp::parse_lenient(text).is_some(), "invalid datetime"),
        max_regex: 79,
    },
];

fn unless(fits: bool, problem: &str) -> Vec<String> {
    if fits { Vec::new() } else { vec![problem.into()] }
}

/// Groups of 8, 4, 4, 4 and 12 hexadecimal digits, dashes between them or not.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.get(..length) {
            Some(group) if group.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest = &rest[length..],
            _ => return false,
        }
    }
    rest.is_empty()
}

fn find(key: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|format| format.key == key)
}

fn of<'a>(key: &str) -> Evaluated<'a> {
    find(key).map(Val::Format).ok_or(NO_OVERLOAD)
}

fn named<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let key = args[0].as_str().ok_or(NO_OVERLOAD)?;
    Ok(find(key).map_or(Val::NONE, |format| Val::some(Val::Format(format))))
}

fn validate<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Val::Format(format), Some(text)) = (&args[0], args[1].as_str()) else { return Err(NO_OVERLOAD) };
    let problems = (format.problems)(text);
    if problems.is_empty() {
        return Ok(Val::NONE);
    }
    Ok(Val::some(Val::from(problems.into_iter().map(Val::from).collect::<Vec<_>>())))
}
