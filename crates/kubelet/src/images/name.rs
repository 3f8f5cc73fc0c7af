//! Image names: which are well-formed, and the tag that a name without one gets. Upstream: distribution/reference.

/// The name with `:latest` when it has neither tag nor digest.
pub(super) fn with_default_tag(image: &str) -> Result<String, String> {
    let invalid = |why: &str| format!("couldn't parse image name {image:?}: {why}");
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let last = rest.rsplit('/').next().unwrap_or_default();
    let (name, tag) = match last.split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    let well_formed =
        |name: &str| components_ok(name) && tag.is_none_or(tag_ok) && digest.is_none_or(digest_ok);
    if !well_formed(name) {
        let lower = name.to_ascii_lowercase();
        let why =
            if lower != name && well_formed(&lower) { ": repository name must be lowercase" } else { "" };
        return Err(invalid(&format!("invalid reference format{why}")));
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

fn components_ok(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        let host = parts.remove(0);
        let (host, port) = host.rsplit_once(':').unwrap_or((host, "0"));
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':');
        if host.is_empty()
            || !host.chars().all(ok)
            || port.is_empty()
            || !port.bytes().all(|b| b.is_ascii_digit())
        {
            return false;
        }
    }
    parts.iter().all(|part| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
    })
}

fn tag_ok(tag: &str) -> bool {
    let mut chars = tag.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && tag.len() <= 128
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn digest_ok(digest: &str) -> bool {
    let parts = digest.split_once(':');
    parts.is_some_and(|(name, hex)| {
        !name.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (input, want) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1", Some("nginx:1")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            (digest.as_str(), Some(digest.as_str())),
            ("", None),
            ("Nginx", None),
            ("a b", None),
            ("nginx:", None),
            ("http://x", None),
        ] {
            assert_eq!(with_default_tag(input).ok().as_deref(), want, "{input}");
        }
    }
}
