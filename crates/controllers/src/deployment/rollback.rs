//! The old rollback, asked for by an annotation: what `spec.rollbackTo` of the first versions became. Pure.
//! (`kubectl rollout undo` does not use it: it writes the old template itself.)

use super::sets::{HASH, NOT_COPIED, ROLLBACK, revision, same_template};
use api::apps::v1::{Deployment, ReplicaSet};

/// What a rollback comes to: the Deployment as it should be, and what is told: type, reason, message.
#[derive(Debug)]
pub(super) struct Rollback {
    pub deployment: Deployment,
    pub tell: (bool, &'static str, String),
}

/// The revision that is asked for; 0 is the last but one. What is no number is passed over.
pub(super) fn asked(deployment: &Deployment) -> Option<i64> {
    deployment.metadata.annotations.get(ROLLBACK)?.parse().ok()
}

pub(super) fn rollback(deployment: &Deployment, sets: &[ReplicaSet], asked: i64) -> Rollback {
    let mut changed = deployment.clone();
    changed.metadata.annotations.remove(ROLLBACK);
    let not_found = |deployment, text: &str| Rollback {
        deployment,
        tell: (false, "DeploymentRollbackRevisionNotFound", text.into()),
    };
    let mut wanted = asked;
    if wanted == 0 {
        let mut revisions: Vec<i64> = sets.iter().map(revision).collect();
        revisions.sort_unstable();
        wanted = revisions.iter().rev().nth(1).copied().unwrap_or(0);
        if wanted == 0 {
            return not_found(changed, "Unable to find last revision.");
        }
    }
    let Some(set) = sets.iter().find(|set| revision(set) == wanted) else {
        return not_found(changed, "Unable to find the revision to rollback to.");
    };
    let name = &deployment.metadata.name;
    if same_template(&set.spec.template, &deployment.spec.template) {
        let text = format!("The rollback revision contains the same template as current deployment {name:?}");
        return Rollback { deployment: changed, tell: (false, "DeploymentRollbackTemplateUnchanged", text) };
    }
    changed.spec.template = set.spec.template.clone();
    changed.spec.template.metadata.labels.remove(HASH);
    // The annotations come back with the template: they are about it (`kubernetes.io/change-cause`).
    let annotations = &mut changed.metadata.annotations;
    annotations.retain(|key, _| NOT_COPIED.contains(&key.as_str()));
    let theirs = set.metadata.annotations.iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    annotations.extend(theirs.map(|(key, value)| (key.clone(), value.clone())));
    let text = format!("Rolled back deployment {name:?} to revision {wanted}");
    Rollback { deployment: changed, tell: (true, "DeploymentRollback", text) }
}
