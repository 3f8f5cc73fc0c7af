//! What users compute with.

use cel::env::Environment;
use cel::types::Type;

pub(crate) const CEL: &[&str] = &[
    "self.a.all(x, x > 0) && has(self.b) ? 'a' + string(1) : b\"\\x00\"",
    "object.spec.containers.exists(c, c.image.startsWith('x'))",
    "[1, 2u, 3.5].map(x, x < 2, x * 2)[0] in {'a': 1}.values()",
    "duration('1h').getHours() == 1 || timestamp('2024-01-02T03:04:05Z') > now",
    "quantity('1Gi').isLessThan(quantity('2Gi')) && url('https://a/b').getHost() == r'''a'''",
    "isIP('::1') && cidr('10.0.0.0/8').containsIP('10.1.1.1') // comment",
    "optional.of(1).orValue(2) + [?self.x][0] - -9223372036854775808",
];
pub(crate) const PATTERNS: &[&str] =
    &["^(a+)+$", "[[:alpha:]]\\pL{2,5}?", "(?i)a|b*", "\\Q.*\\E", "a{1000}", "(?P<n>x)\\b", "[^\\x{10FFFF}]"];

/// Compiled, estimated, planned and evaluated with nothing at hand.
pub(crate) fn cel(data: &[u8]) {
    let env = Environment::kubernetes().variable("self", Type::Dyn).variable("object", Type::Dyn);
    if let Ok(checked) = env.compile(&String::from_utf8_lossy(data)) {
        let _ = checked.program();
    }
}

pub(crate) fn re2(data: &[u8]) {
    if let Ok(regex) = cel::re2::compile(&String::from_utf8_lossy(data)) {
        let _ = regex.is_match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!");
    }
}
