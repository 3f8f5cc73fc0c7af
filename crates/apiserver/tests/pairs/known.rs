//! Where we answer otherwise than upstream, and mean to.

/// File, the beginning of the case's name, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("*", "update of no version", "upstream answers a resourceVersion that is no number with a 500"),
    ("*", "apply what is unknown", "upstream answers an unknown field in an applied object with a 500"),
    ("*", "strategic nonsense", "upstream answers an unknown directive with a 500"),
];

pub fn reason(file: &str, case: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(f, c, _)| (*f == file || *f == "*") && case.starts_with(c)).map(|(.., why)| *why)
}
