//! Whether a pod may use an image that is there already: what one pod pulled with its Secrets is no other's to use.
//! Upstream: `KubeletEnsureSecretPulledImages`, `pullmanager/image_pull_manager.go`.

use super::keyring::{Credential, Source};
use super::records::{Credentials, Record, Records};
use cri::v1;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::SystemTime;

/// Of an image's many Secrets, so many are remembered while only reading.
const MOST_WHILE_MATCHING: usize = 100;

/// `imagePullCredentialsVerificationPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    NeverVerify,
    /// Images that came past the kubelet are everybody's.
    #[default]
    NeverVerifyPreloadedImages,
    /// These names, and all beneath those that end in `/*`, are everybody's.
    NeverVerifyAllowlistedImages(Vec<String>),
    AlwaysVerify,
}

impl Policy {
    /// The policy of that name.
    pub fn parse(name: &str, allowed: &[String]) -> Result<Policy, String> {
        Ok(match name {
            "NeverVerify" => Policy::NeverVerify,
            "" | "NeverVerifyPreloadedImages" => Policy::NeverVerifyPreloadedImages,
            "NeverVerifyAllowlistedImages" => Policy::NeverVerifyAllowlistedImages(allowed.to_vec()),
            "AlwaysVerify" => Policy::AlwaysVerify,
            other => return Err(format!("unknown image pull credential verification policy: {other}")),
        })
    }

    fn verifies(&self, image: &str, pulled: bool) -> bool {
        match self {
            Policy::NeverVerify => false,
            Policy::NeverVerifyPreloadedImages => pulled,
            Policy::NeverVerifyAllowlistedImages(allowed) => {
                let name = without_tag(image);
                !allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => pattern == name,
                })
            }
            Policy::AlwaysVerify => true,
        }
    }
}

/// An image's name alone.
pub(super) fn without_tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let slash = name.rfind('/').map_or(0, |slash| slash + 1);
    name[slash..].find(':').map_or(name, |colon| &name[..slash + colon])
}

/// What is known of an image before anybody's credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everybody may use it, and why, as metrics call it.
    Free(&'static str),
    /// Nobody may without a pull.
    MustPull,
    /// Those may who have what it was pulled with.
    Of(Credentials),
}

/// Who may use what.
#[derive(Debug)]
pub(crate) struct Verification {
    policy: Policy,
    records: Records,
    /// Pulls that go on, by image.
    pulling: Mutex<HashMap<String, usize>>,
    /// Records are read, changed and written by one at a time.
    writing: Mutex<()>,
}

impl Verification {
    pub(crate) fn new(policy: Policy, records: Records) -> Self {
        Verification { policy, records, pulling: Mutex::default(), writing: Mutex::default() }
    }

    /// How many intents and records there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.records.counts()
    }

    /// Images of pulls that an earlier kubelet did not see the end of were pulled by nobody knows whom.
    pub(crate) fn adopt(&self, images: &[v1::Image]) {
        for image in self.records.intents() {
            let named =
                |one: &&v1::Image| one.repo_tags.contains(&image) || one.repo_digests.contains(&image);
            if let Some(present) = images.iter().find(named) {
                self.note(&image, &present.id, None);
                self.records.forget_intent(&image);
            }
        }
    }

    /// What there is to say of an image that is there before anybody's credentials are known.
    pub(super) fn judge(&self, image: &str, image_ref: &str) -> Verdict {
        let record = self.records.get(image_ref);
        let pulled = record.is_some()
            || self.records.has(image_ref)
            || self.pulling.lock().contains_key(image)
            || self.records.intends(image);
        if !self.policy.verifies(image, pulled) {
            return Verdict::Free("credentialPolicyAllowed");
        }
        let known = record.and_then(|mut record| record.credential_mapping.remove(without_tag(image)));
        match known {
            Some(known) if known.node_pods_accessible => Verdict::Free("credentialRecordFound"),
            Some(known)
                if !known.kubernetes_secrets.is_empty() || !known.kubernetes_service_accounts.is_empty() =>
            {
                Verdict::Of(known)
            }
            _ => Verdict::MustPull,
        }
    }

    /// Whether one of these opens an image that was pulled with what is known.
    pub(super) fn opens(
        &self,
        image: &str,
        image_ref: &str,
        known: &Credentials,
        with: &[Credential],
    ) -> bool {
        let secrets = with.iter().filter_map(|credential| match &credential.source {
            Source::Secret(secret) => Some(secret),
            _ => None,
        });
        for secret in secrets {
            for other in &known.kubernetes_secrets {
                let same = secret.is_same_object(other);
                let equal =
                    !other.credential_hash.is_empty() && secret.credential_hash == other.credential_hash;
                if !same && !equal {
                    continue;
                }
                // The same content elsewhere, or the same Secret with other content, is known from now on.
                if (same != equal) && known.kubernetes_secrets.len() < MOST_WHILE_MATCHING {
                    self.note(image, image_ref, Some(of(&Source::Secret(secret.clone()))));
                }
                return true;
            }
        }
        // Whatever the token is for, a pod has one service account.
        let account = with.iter().find_map(|credential| match &credential.source {
            Source::Account(account) => Some(account),
            _ => None,
        });
        account.is_some_and(|account| known.kubernetes_service_accounts.contains(account))
    }

    /// A pull begins.
    pub(super) fn begins(&self, image: &str) -> std::io::Result<()> {
        let mut pulling = self.pulling.lock();
        self.records.intend(image)?;
        *pulling.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// A pull has ended; `pulled` is the image it brought, and whose credentials it took.
    pub(super) fn ended(&self, image: &str, pulled: Option<(&str, &Source)>) {
        if let Some((image_ref, source)) = pulled
            && !self.note(image, image_ref, Some(of(source)))
        {
            // The intent stays: the image counts as pulled.
            return;
        }
        let mut pulling = self.pulling.lock();
        match pulling.get_mut(image) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.records.forget_intent(image);
                pulling.remove(image);
            }
        }
    }

    /// Remembers; `None` when it is not known with what. Whether that is on disk.
    fn note(&self, image: &str, image_ref: &str, credentials: Option<Credentials>) -> bool {
        let _writing = self.writing.lock();
        let known = self.records.get(image_ref);
        let new = known.is_none();
        let mut record = known.unwrap_or_else(|| Record::new(image_ref));
        let changed = credentials.is_some_and(|credentials| record.merge(without_tag(image), credentials));
        if !new && !changed {
            return true;
        }
        let written = self.records.put(record);
        if let Err(error) = &written {
            tracing::warn!(image, image_ref, %error, "failed to write image pulled record");
        }
        written.is_ok()
    }

    /// Forgets images that are no more; what was noted since `until` stays.
    pub(super) fn prune(&self, present: &[v1::Image], until: SystemTime) {
        let _writing = self.writing.lock();
        let since = until.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for record in self.records.all() {
            let at = record.last_updated_time.map_or(0, |at| u64::try_from(at.unix()).unwrap_or(0));
            if at < since && !present.iter().any(|image| image.id == record.image_ref) {
                self.records.forget(&record.image_ref);
            }
        }
    }
}

/// What a pull with credentials from there says of an image.
fn of(source: &Source) -> Credentials {
    match source {
        Source::Node => Credentials { node_pods_accessible: true, ..Default::default() },
        Source::Secret(secret) => {
            Credentials { kubernetes_secrets: vec![secret.clone()], ..Default::default() }
        }
        Source::Account(account) => {
            Credentials { kubernetes_service_accounts: vec![account.clone()], ..Default::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{PullAccount, PullSecret};
    use super::*;

    impl Verification {
        fn must_pull(&self, image: &str, image_ref: &str, with: &[Source]) -> bool {
            let with = with.iter().map(|source| Credential { source: source.clone(), ..Default::default() });
            match self.judge(image, image_ref) {
                Verdict::Free(_) => false,
                Verdict::MustPull => true,
                Verdict::Of(known) => !self.opens(image, image_ref, &known, &with.collect::<Vec<_>>()),
            }
        }
    }

    fn secret(name: &str, content: &str) -> Source {
        Source::Secret(PullSecret {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            credential_hash: content.into(),
        })
    }

    #[test]
    fn a_service_account_opens_what_it_pulled() {
        let dir = tempfile::tempdir().unwrap();
        let known = Verification::new(Policy::default(), Records::open(dir.path()).unwrap());
        let account = |uid: &str| {
            Source::Account(PullAccount { namespace: "ns".into(), name: "robot".into(), uid: uid.into() })
        };
        known.begins("r.io/x:1").unwrap();
        known.ended("r.io/x:1", Some(("id", &account("1"))));
        assert!(!known.must_pull("r.io/x:1", "id", &[secret("a", "b"), account("1")]));
        assert!(known.must_pull("r.io/x:1", "id", &[account("2")]), "a later one of that name");
        assert!(known.must_pull("r.io/x:1", "id", &[Source::Node]));
    }

    #[test]
    fn what_one_pulled_is_not_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let open = |policy| Verification::new(policy, Records::open(dir.path()).unwrap());
        let known = open(Policy::default());
        let (mine, other) = (secret("mine", "a"), secret("other", "b"));
        assert!(!known.must_pull("r.io/x:1", "id", &[]), "preloaded");
        known.begins("r.io/x:1").unwrap();
        assert!(known.must_pull("r.io/x:1", "id", &[]), "being pulled");
        known.ended("r.io/x:1", Some(("id", &mine)));
        let may =
            |known: &Verification, image: &str, secrets: &[Source]| !known.must_pull(image, "id", secrets);
        assert!(may(&known, "r.io/x:1", &[other.clone(), mine.clone()]));
        assert!(may(&known, "r.io/x:2", std::slice::from_ref(&mine)), "the tag is not looked at");
        assert!(!may(&known, "r.io/x:1", &[]) && !may(&known, "r.io/x:1", std::slice::from_ref(&other)));
        assert!(!may(&known, "r.io/y:1", std::slice::from_ref(&mine)), "another name for it");
        // Content that is known opens in another Secret as well, and this one with other content from then on.
        assert!(may(&known, "r.io/x:1", &[secret("other", "a")]));
        assert!(may(&known, "r.io/x:1", &[secret("other", "c")]));
        // Over a restart; and what was begun then.
        known.begins("r.io/z:1").unwrap();
        let known = open(Policy::default());
        assert!(may(&known, "r.io/x:1", std::slice::from_ref(&mine)) && !may(&known, "r.io/x:1", &[]));
        let present =
            v1::Image { id: "zid".into(), repo_tags: vec!["r.io/z:1".into()], ..Default::default() };
        known.adopt(&[present]);
        assert!(
            known.must_pull("r.io/z:1", "zid", std::slice::from_ref(&mine))
                && known.records.intents().is_empty()
        );
        // Pulled with nobody's credentials it is everybody's.
        known.begins("r.io/x:1").unwrap();
        known.ended("r.io/x:1", Some(("id", &Source::Node)));
        assert!(may(&known, "r.io/x:1", &[]));
        known.prune(&[], SystemTime::now() + std::time::Duration::from_secs(5));
        assert!(known.records.all().is_empty() && may(&known, "r.io/x:1", &[]));
        assert!(!may(&open(Policy::AlwaysVerify), "r.io/x:1", &[mine]));
        let allow = Policy::NeverVerifyAllowlistedImages(vec!["r.io/team/*".into(), "r.io/x".into()]);
        let allow = open(allow);
        assert!(
            may(&allow, "r.io/x:1", &[])
                && may(&allow, "r.io/team/y@sha256:1", &[])
                && !may(&allow, "r.io/z", &[])
        );
    }
}
