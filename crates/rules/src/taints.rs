//! Which tolerations bear which taints. Upstream: `ToleratesTaint`, `FindMatchingUntoleratedTaint`.

use api::core::v1::{Taint, Toleration};

/// The pod is not scheduled there unless it tolerates the taint.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// As above, softly.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// As `NoSchedule`, and running pods leave.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether this toleration bears this taint. `Lt` and `Gt` belong to a feature gate that v1.36 has off.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match toleration.operator.as_str() {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        _ => false,
    }
}

/// Whether any of the tolerations bears the taint.
pub fn any_tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

/// The first taint that `counts` and that no toleration bears.
pub fn first_untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    counts: impl Fn(&Taint) -> bool,
) -> Option<&'a Taint> {
    taints.iter().find(|taint| counts(taint) && !any_tolerates(tolerations, taint))
}

/// Whether the taint keeps pods from being scheduled (`NoSchedule` or `NoExecute`).
pub fn keeps_pods_away(taint: &Taint) -> bool {
    taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerating() {
        let taint =
            Taint { key: "k".into(), value: "v".into(), effect: NO_SCHEDULE.into(), ..Default::default() };
        for (key, operator, value, effect, want) in [
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "", "v", "", true),
            ("k", "", "w", "", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("", "Exists", "", "NoExecute", false),
            ("k", "Gt", "1", "", false),
        ] {
            let toleration = Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
                ..Default::default()
            };
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration:?}");
        }
    }
}
