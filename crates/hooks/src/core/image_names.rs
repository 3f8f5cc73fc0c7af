//! Names of images, as far as they decide when an image is pulled. Upstream: `ParseImageName`.

/// Whether an image's tag is `latest`, or it has neither tag nor digest. What is no name of an image has no tag.
pub(super) fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    // The first part is a host where it cannot be a part of a path.
    let is_host = |part: &str| {
        part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
    };
    let path = match image.split_once('/') {
        Some((host, rest)) if is_host(host) => match is_host_name(host) {
            true => rest,
            false => return false,
        },
        _ => image,
    };
    let (path, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    // An identifier alone is no name.
    let is_id = image.len() == 64 && image.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    tag == "latest" && !is_id && path.split('/').all(is_component)
}

fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
}

/// Small letters and digits, with a dot, up to two underscores or any number of dashes between them.
fn is_component(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(is_plain).filter(|between| !between.is_empty());
    let fit = |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-');
    part.starts_with(is_plain) && part.ends_with(is_plain) && separators.into_iter().all(fit)
}

#[test]
fn images_of_the_latest_version() {
    for latest in ["i", "i:latest", "a/b_c/d--e", "localhost/i", "h.io:5000/a/b:latest", "Host/a", "h:1/i"] {
        assert!(is_latest(latest), "{latest}");
    }
    let id = "0123456789abcdef".repeat(4);
    for other in
        ["", "Not Valid!", "i:1", "i@sha256:0", "A", "a/B", "a/", "a___b", "-a", "h.io/a:1", "h_x.io/a", &id]
    {
        assert!(!is_latest(other), "{other}");
    }
}
