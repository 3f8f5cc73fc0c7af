//! What names and values may look like. Every rule returns all that is wrong with its input, in the
//! words of upstream's `util/validation` and `api/validate/content`: an empty list means valid.

mod ip;
mod names;

pub use ip::*;
pub use names::*;

/// What is wrong with a value; nothing, when empty.
pub type Problems = Vec<String>;

/// Upstream's `MaxLenError` of `util/validation`; label keys and values say `bytes` instead.
pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes_error(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// Says which regular expression failed, with examples of what would have passed.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

/// A value is missing.
pub fn empty_error() -> String {
    "must be non-empty".to_owned()
}

/// A number is outside its range.
pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A number within bounds.
pub fn is_in_range(value: i64, low: i64, high: i64) -> Problems {
    if (low..=high).contains(&value) { vec![] } else { vec![inclusive_range_error(low, high)] }
}

/// A port number.
pub fn is_valid_port_num(port: i64) -> Problems {
    is_in_range(port, 1, 65535)
}

/// A group id.
pub fn is_valid_group_id(gid: i64) -> Problems {
    is_in_range(gid, 0, i32::MAX.into())
}

/// A user id.
pub fn is_valid_user_id(uid: i64) -> Problems {
    is_in_range(uid, 0, i32::MAX.into())
}

/// The message for numbers that must not be negative.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A percentage, as `93%`.
pub fn is_valid_percent(text: &str) -> Problems {
    match text.strip_suffix('%') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => vec![],
        _ => vec![regex_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )],
    }
}

/// A decimal integer without superfluous signs or zeros.
pub fn is_decimal_integer(text: &str) -> Problems {
    if text.is_empty() {
        return vec![empty_error()];
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
        && match digits.as_bytes() {
            [] => false,
            [b'0'] => text == "0",
            [b'0', ..] => false,
            _ => true,
        };
    if canonical { vec![] } else { vec!["must be a valid decimal integer in canonical form".to_owned()] }
}

#[cfg(test)]
mod tests;
