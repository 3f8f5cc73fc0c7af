use super::*;
use crate::field::{ErrorList, Path};

fn check(rule: fn(&str) -> Problems, good: &[&str], bad: &[(&str, &str)]) {
    for text in good {
        assert_eq!(rule(text), Problems::new(), "{text}");
    }
    for (text, want) in bad {
        assert_eq!(rule(text).join(" | "), *want, "{text}");
    }
}

#[test]
fn names() {
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let long = "a".repeat(64);
    check(
        is_dns1123_label,
        &["a", "0", "a-b", "1--2"],
        &[
            ("a.b", "must not contain dots"),
            ("", label),
            ("-a", label),
            ("A", label),
            (&long, "must be no more than 63 characters"),
        ],
    );
    check(
        is_dns1123_subdomain,
        &["a", "a.b-c.d"],
        &[(
            "a..b",
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        )],
    );
    check(is_dns1123_subdomain_with_underscore, &["_a.b_c", "a"], &[]);
    check(
        is_dns1035_label,
        &["a", "a-1"],
        &[(
            "1a",
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        )],
    );
    check(is_wildcard_dns1123_subdomain, &["*.a.b"], &[]);
    assert_ne!(is_wildcard_dns1123_subdomain("*."), Problems::new());
    assert_eq!(name_is_dns_label("web-", NameUse::Prefix), Problems::new());
    assert_ne!(name_is_dns_label("web-", NameUse::Whole), Problems::new());
    assert_ne!(name_is_dns_label("-", NameUse::Prefix), Problems::new());
    check(
        is_path_segment_name,
        &["a:b", ""],
        &[("..", "may not be '..'"), ("a/%", "may not contain '/' | may not contain '%'")],
    );
}

#[test]
fn labels_and_keys() {
    let name = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    check(
        is_qualified_name,
        &["a", "A.b_c-D", "example.com/a"],
        &[
            ("", &format!("name part must be non-empty | name part {name}")),
            ("/a", "prefix part must be non-empty"),
            ("a b", &format!("name part {name}")),
            (
                "a/b/c",
                &format!(
                    "a valid label key {name} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
                ),
            ),
            (&"a".repeat(64), "name part must be no more than 63 bytes"),
        ],
    );
    check(
        is_valid_label_value,
        &["", "a", "A_b.c-1"],
        &[
            (
                "a b",
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (&"a".repeat(64), "must be no more than 63 bytes"),
        ],
    );
    check(
        is_config_map_key,
        &["a", ".a", "A_b-c.d"],
        &[("..", "must not be '..'"), ("..a", "must not start with '..'")],
    );
}

#[test]
fn words() {
    check(
        is_valid_port_name,
        &["http", "a-1"],
        &[
            (
                "",
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-) | must contain at least one letter (a-z)",
            ),
            ("-a--b", "must not contain consecutive hyphens | must not begin or end with a hyphen"),
            ("1", "must contain at least one letter (a-z)"),
        ],
    );
    check(is_c_identifier, &["_a1"], &[]);
    check(is_env_var_name, &["a.b-c", "_"], &[]);
    assert_eq!(is_env_var_name("1a").len(), 1);
    check(
        is_relaxed_env_var_name,
        &["1 a!"],
        &[
            ("", "environment variable name must be non-empty"),
            (
                "a=b",
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
        ],
    );
    check(
        is_http_header_name,
        &["X-A"],
        &[(
            "a b",
            "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        )],
    );
    check(
        is_valid_percent,
        &["1%", "100%"],
        &[(
            "1",
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        )],
    );
    check(
        is_decimal_integer,
        &["0", "-1", "10"],
        &[
            ("", "must be non-empty"),
            ("-0", "must be a valid decimal integer in canonical form"),
            ("01", "must be a valid decimal integer in canonical form"),
        ],
    );
    assert_eq!(is_valid_port_num(0), ["must be between 1 and 65535, inclusive"]);
}

#[test]
fn addresses() {
    let check = |rule: fn(&Path, &str) -> ErrorList, text: &str, want: &str| {
        assert_eq!(rule(&Path::new("ip"), text).to_string(), want, "{text}");
    };
    for (text, want) in [
        ("10.0.0.1", ""),
        ("2001:db8::1", ""),
        ("10.0.0.01", r#"ip: Invalid value: "10.0.0.01": must not have leading 0s"#),
        (
            "::ffff:10.0.0.1",
            r#"ip: Invalid value: "::ffff:10.0.0.1": must not be an IPv4-mapped IPv6 address"#,
        ),
        ("2001:DB8::1", r#"ip: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")"#),
        ("x", r#"ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#),
        (
            "256.0.0.1",
            r#"ip: Invalid value: "256.0.0.1": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
        ),
    ] {
        check(is_valid_ip, text, want);
    }
    for (text, want) in [
        ("10.0.0.0/8", ""),
        ("::/0", ""),
        ("10.0.0.1/8", r#"ip: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length"#),
        (
            "10.0.0.0/08",
            r#"ip: Invalid value: "10.0.0.0/08": must not have leading 0s in IP or prefix length"#,
        ),
        (
            "10.0.0.0/33",
            r#"ip: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
        ),
    ] {
        check(is_valid_cidr, text, want);
    }
    check(is_valid_interface_address, "10.0.0.1/8", "");
    assert_eq!(
        warnings_for_cidr(&Path::new("c"), "10.0.0.1/08"),
        [
            r#"c: CIDR value "10.0.0.1/08" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)"#,
            r#"c: non-standard CIDR value "10.0.0.1/08" is invalid: use "10.0.0.0/8""#,
        ]
    );
    assert_eq!(
        warnings_for_ip(&Path::new("c"), "010.0.0.1"),
        [r#"c: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#]
    );
}
