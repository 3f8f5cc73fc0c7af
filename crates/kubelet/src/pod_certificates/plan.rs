//! What is to be done next for one source of certificates, from what has become of its request and what time it is. Pure.
//!
//! A source asks, waits, holds a certificate, asks for the next when the signer said to, and goes on holding while it waits.
//! A refusal is for good. Upstream: `credState` of `pkg/kubelet/podcertificate`.

use api::certificates::v1beta1::PodCertificateRequest;
use apimachinery::quote::quote;
use apimachinery::time::Time;

const MINUTE: i64 = 60;
/// After this long, a request that is not to be seen is taken for deleted.
pub(super) const ABANDONED: i64 = 10 * MINUTE;
/// How long after its time a refresh is overdue.
const OVERDUE: i64 = 10 * MINUTE;

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub name: String,
    /// In PEM.
    pub key: String,
    pub abandon_at: Time,
}

/// A key and its certificates, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub key: String,
    pub chain: String,
    refresh_at: Time,
    not_after: Time,
    told_overdue: bool,
    told_expired: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Initial,
    Wait(Asked),
    Fresh(Held),
    Refresh(Held, Asked),
    /// With why.
    Refused(Refusal, String),
}

/// How a request can end without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Denied,
    Failed,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub state: State,
    /// Whether a request is to be made; `state.asked` says what that makes of the state.
    pub ask: bool,
    /// Warnings for the pod: reason and message.
    pub events: Vec<(&'static str, String)>,
    /// When to look again, if nothing is heard before.
    pub again: Option<Time>,
}

impl State {
    /// The name of the request that is waited for.
    pub(super) fn request(&self) -> Option<&str> {
        match self {
            State::Wait(asked) | State::Refresh(_, asked) => Some(&asked.name),
            _ => None,
        }
    }

    /// The state after a request was made.
    pub(super) fn asked(self, asked: Asked) -> State {
        match self {
            State::Fresh(held) => State::Refresh(held, asked),
            _ => State::Wait(asked),
        }
    }

    /// What the volume gets, or why nothing.
    pub(super) fn held(&self) -> Result<&Held, String> {
        match self {
            State::Fresh(held) | State::Refresh(held, _) => Ok(held),
            State::Refused(_, why) => Err(why.clone()),
            State::Initial | State::Wait(_) => Err("credential bundle is not issued yet".into()),
        }
    }

    /// As metrics name it. Upstream: `metricsState`.
    pub(super) fn called(&self, now: Time) -> &'static str {
        match self {
            State::Initial | State::Wait(_) => "not_yet_issued",
            State::Fresh(held) | State::Refresh(held, _) if now > held.not_after => "expired",
            State::Fresh(held) | State::Refresh(held, _) if held.is_overdue(now) => "overdue_for_refresh",
            State::Fresh(_) | State::Refresh(..) => "fresh",
            State::Refused(Refusal::Denied, _) => "denied",
            State::Refused(Refusal::Failed, _) => "failed",
        }
    }
}

impl Held {
    fn is_overdue(&self, now: Time) -> bool {
        now.unix() > self.refresh_at.unix() + OVERDUE
    }

    /// Says once each that the certificate should be another by now, and that it is good for nothing any more.
    fn warn(&mut self, now: Time) -> Vec<(&'static str, String)> {
        let mut events = Vec::new();
        if self.is_overdue(now) && !self.told_overdue {
            self.told_overdue = true;
            events.push(("CertificateOverdueForRefresh", "PodCertificate refresh overdue".to_owned()));
        }
        if now > self.not_after && !self.told_expired {
            self.told_expired = true;
            events.push(("CertificateExpired", "PodCertificate expired".to_owned()));
        }
        events
    }

    /// When there will be something to say.
    fn warns_at(&self) -> Option<Time> {
        let overdue =
            (!self.told_overdue).then(|| Time::from_unix(self.refresh_at.unix().saturating_add(OVERDUE + 1)));
        let expired = (!self.told_expired).then(|| Time::from_unix(self.not_after.unix().saturating_add(1)));
        overdue.into_iter().chain(expired).min()
    }
}

/// The next step. `request` is the one that is waited for, if it is to be seen; certificates that are issued now are
/// refreshed `jitter` seconds late, so that not all ask at once.
pub(super) fn next(state: State, request: Option<&PodCertificateRequest>, now: Time, jitter: i64) -> Step {
    match state {
        State::Initial => Step { ask: true, ..Step::default() },
        State::Wait(asked) => match ended(request, &asked, now, jitter) {
            Some(end) => end.unwrap_or_else(|| next(State::Initial, None, now, jitter)),
            None => {
                let again = request.is_none().then_some(asked.abandon_at);
                Step { state: State::Wait(asked), again, ..Step::default() }
            }
        },
        State::Fresh(held) if now < held.refresh_at => {
            Step { again: Some(held.refresh_at), state: State::Fresh(held), ..Step::default() }
        }
        State::Fresh(mut held) => {
            let events = held.warn(now);
            Step { state: State::Fresh(held), ask: true, events, again: None }
        }
        State::Refresh(mut held, asked) => match ended(request, &asked, now, jitter) {
            Some(Some(end)) => end,
            Some(None) => next(State::Fresh(held), None, now, jitter),
            None => {
                let events = held.warn(now);
                let seen = request.is_none().then_some(asked.abandon_at);
                let again = seen.into_iter().chain(held.warns_at()).min();
                Step { state: State::Refresh(held, asked), ask: false, events, again }
            }
        },
        refused @ State::Refused(..) => Step { state: refused, ..Step::default() },
    }
}

/// What the end of a request comes to: none if it has not ended, and nothing to be had if it must be gone.
fn ended(
    request: Option<&PodCertificateRequest>,
    asked: &Asked,
    now: Time,
    jitter: i64,
) -> Option<Option<Step>> {
    let Some(request) = request else { return (now >= asked.abandon_at).then_some(None) };
    let status = &request.status;
    let condition =
        status.conditions.iter().find(|one| matches!(&*one.type_, "Issued" | "Denied" | "Failed"))?;
    let (refusal, refused, verb) = match &*condition.type_ {
        "Denied" => (Refusal::Denied, "Denied", "was denied"),
        "Failed" => (Refusal::Failed, "Failed", "failed"),
        _ => {
            let refresh = status.begin_refresh_at.unwrap_or(now).unix().saturating_add(jitter);
            let held = Held {
                key: asked.key.clone(),
                chain: cleaned(&status.certificate_chain),
                refresh_at: Time::from_unix(refresh),
                not_after: status.not_after.unwrap_or(now),
                told_overdue: false,
                told_expired: false,
            };
            let again = Some(held.refresh_at);
            return Some(Some(Step { state: State::Fresh(held), again, ..Step::default() }));
        }
    };
    let (reason, message) = (quote(&condition.reason), quote(&condition.message));
    let why = format!(
        "PodCertificateRequest was permanently {}: reason={reason} message={message}",
        refused.to_lowercase()
    );
    // Upstream means to say this: its own event takes the condition's reason for a format.
    let meta = &request.metadata;
    let told = format!(
        "PodCertificateRequest {}/{} {verb}, reason={reason}, message={message}",
        meta.namespace, meta.name
    );
    Some(Some(Step { state: State::Refused(refusal, why), events: vec![(refused, told)], ..Step::default() }))
}

/// The certificates, and nothing of what stands around them.
fn cleaned(chain: &str) -> String {
    let blocks = pki::pem::sections(chain.as_bytes());
    blocks.iter().map(|(_, der)| pki::pem::encode("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn at(seconds: i64) -> Time {
        Time::from_unix(seconds)
    }

    fn asked(name: &str, at_second: i64) -> Asked {
        Asked { name: name.into(), key: format!("key of {name}"), abandon_at: at(at_second + ABANDONED) }
    }

    /// A request with a condition, issued for an hour from second 0 and to be refreshed after 1000 seconds.
    fn request(condition: &str) -> PodCertificateRequest {
        let conditions = match condition {
            "" => json!([]),
            kind => json!([{"type": kind, "status": "True", "reason": "Why", "message": "so \"it\" is"}]),
        };
        let status = json!({
            "conditions": conditions,
            "certificateChain": format!("of us\n{}and others", pki::pem::encode("CERTIFICATE", b"leaf")),
            "beginRefreshAt": at(1000).to_string(),
            "notAfter": at(3600).to_string(),
        });
        apimachinery::value::from_value(
            json!({"metadata": {"namespace": "ns", "name": "req"}, "status": status}),
        )
        .unwrap()
    }

    fn fresh(name: &str) -> State {
        next(State::Wait(asked(name, 0)), Some(&request("Issued")), at(1), 60).state
    }

    #[test]
    fn a_source_asks_waits_and_holds_what_is_issued() {
        let first = next(State::default(), None, at(0), 0);
        assert!(first.ask);
        let waits = first.state.asked(asked("one", 0));
        assert_eq!(waits.request(), Some("one"));
        assert_eq!(waits.held().unwrap_err(), "credential bundle is not issued yet");
        let pending = next(waits.clone(), Some(&request("")), at(1), 0);
        assert_eq!((&pending.state, pending.ask, pending.again), (&waits, false, None));
        let issued = next(waits, Some(&request("Issued")), at(1), 60);
        assert_eq!(issued.again, Some(at(1060)));
        let held = issued.state.held().unwrap();
        assert_eq!(held.key, "key of one");
        assert_eq!(held.chain, pki::pem::encode("CERTIFICATE", b"leaf"));
    }

    #[test]
    fn requests_that_are_not_to_be_seen_are_made_anew_after_a_while() {
        let waits = State::Wait(asked("one", 0));
        let step = next(waits.clone(), None, at(ABANDONED - 1), 0);
        assert_eq!((step.ask, step.again), (false, Some(at(ABANDONED))));
        let step = next(waits, None, at(ABANDONED), 0);
        assert_eq!((step.ask, step.state), (true, State::Initial));
        // What is held stays held.
        let step = next(fresh("one").asked(asked("two", 1060)), None, at(1060 + ABANDONED), 0);
        assert!(step.ask);
        assert_eq!(step.state.held().unwrap().key, "key of one");
    }

    #[test]
    fn certificates_are_refreshed_when_the_signer_says_so() {
        let held = fresh("one");
        let step = next(held.clone(), None, at(1059), 0);
        assert_eq!((step.ask, step.again), (false, Some(at(1060))));
        let step = next(held, None, at(1060), 0);
        assert!(step.ask && step.events.is_empty());
        let waits = step.state.asked(asked("two", 1060));
        assert_eq!(waits.held().unwrap().key, "key of one");
        let pending = next(waits.clone(), Some(&request("")), at(1100), 0);
        assert_eq!((pending.events.len(), pending.again), (0, Some(at(1060 + OVERDUE + 1))));
        let mut second = request("Issued");
        second.status.begin_refresh_at = Some(at(2000));
        let step = next(waits, Some(&second), at(1101), 0);
        assert_eq!(step.state.held().unwrap().key, "key of two");
        assert_eq!(step.again, Some(at(2000)));
    }

    #[test]
    fn what_is_late_is_told_once() {
        let reasons = |step: &Step| step.events.iter().map(|(reason, _)| *reason).collect::<Vec<_>>();
        let waits = fresh("one").asked(asked("two", 1060));
        let late = next(waits, Some(&request("")), at(1060 + OVERDUE + 1), 0);
        assert_eq!(reasons(&late), ["CertificateOverdueForRefresh"]);
        assert_eq!(late.again, Some(at(3601)));
        let expired = next(late.state, Some(&request("")), at(3601), 0);
        assert_eq!(reasons(&expired), ["CertificateExpired"]);
        assert_eq!(expired.again, None);
        assert!(next(expired.state, Some(&request("")), at(9000), 0).events.is_empty());
    }

    #[test]
    fn metrics_name_what_there_is() {
        let waits = || State::Wait(asked("one", 0));
        let check = |state: &State, seconds: i64, want: &str| assert_eq!(state.called(at(seconds)), want);
        check(&State::Initial, 0, "not_yet_issued");
        check(&waits(), 0, "not_yet_issued");
        for state in [fresh("one"), fresh("one").asked(asked("two", 1060))] {
            check(&state, 1060 + OVERDUE, "fresh");
            check(&state, 1060 + OVERDUE + 1, "overdue_for_refresh");
            check(&state, 3601, "expired");
        }
        for (condition, want) in [("Denied", "denied"), ("Failed", "failed")] {
            check(&next(waits(), Some(&request(condition)), at(1), 0).state, 1, want);
        }
    }

    #[test]
    fn refusals_are_for_good() {
        for (condition, verb) in [("Denied", "was denied"), ("Failed", "failed")] {
            for before in [State::Wait(asked("one", 0)), fresh("one").asked(asked("two", 1060))] {
                let step = next(before, Some(&request(condition)), at(1061), 0);
                let why = format!(
                    "PodCertificateRequest was permanently {}: reason=\"Why\" message=\"so \\\"it\\\" is\"",
                    condition.to_lowercase()
                );
                assert_eq!(step.state.held().unwrap_err(), why);
                let told = format!(
                    "PodCertificateRequest ns/req {verb}, reason=\"Why\", message=\"so \\\"it\\\" is\""
                );
                assert_eq!(step.events, [(condition, told)]);
                let after = next(step.state.clone(), None, at(1_000_000), 0);
                assert_eq!((after.state, after.ask, after.again), (step.state, false, None));
            }
        }
    }
}
