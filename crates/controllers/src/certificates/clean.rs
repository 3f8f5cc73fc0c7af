//! When a request has had its time. Pure.

use api::certificates::v1::CertificateSigningRequest;
use apimachinery::time::Time;
use pki::Certificate;

const APPROVED: i64 = 3600;
const DENIED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

/// When the request may be removed.
fn due(request: &CertificateSigningRequest) -> Option<i64> {
    let status = &request.status;
    if status.conditions.is_empty() {
        return Some(request.metadata.creation_timestamp.unix() + PENDING);
    }
    let issued = !status.certificate.is_empty();
    let of_condition = |kind: &str, updated: Option<Time>| {
        let after = match kind {
            "Approved" if issued => APPROVED,
            "Approved" => PENDING,
            "Denied" | "Failed" => DENIED,
            _ => return None,
        };
        updated.filter(|time| !time.is_zero()).map(|time| time.unix() + after)
    };
    let each = status.conditions.iter();
    let aged = each.filter_map(|c| of_condition(&c.type_, c.last_update_time)).min();
    // With the certificate's own end, if that comes sooner.
    let approved = status.conditions.iter().any(|c| c.type_ == "Approved");
    let ends = Certificate::from_pem(&status.certificate.0).ok().map(|c| c.not_after.as_second());
    aged.into_iter().chain(ends.filter(|_| approved && issued)).min()
}

pub(super) fn is_due(request: &CertificateSigningRequest, now: Time) -> bool {
    due(request).is_some_and(|due| now.unix() > due)
}

pub(super) fn due_in(request: &CertificateSigningRequest, now: Time) -> Option<i64> {
    due(request).map(|due| due + 1 - now.unix())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn requests_have_their_time() {
        let check = |condition: &str, certificate: &str, hours: i64| {
            let conditions = match condition {
                "" => json!([]),
                kind => json!([{"type": kind, "status": "True", "lastUpdateTime": "1970-01-01T00:00:00Z"}]),
            };
            let request: CertificateSigningRequest = apimachinery::value::from_value(json!({
                "metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"},
                "status": {"conditions": conditions, "certificate": certificate},
            }))
            .unwrap();
            let end = hours * 3600;
            assert!(!is_due(&request, Time::from_unix(end)));
            assert!(is_due(&request, Time::from_unix(end + 1)));
            assert_eq!(due_in(&request, Time::from_unix(end)), Some(1));
        };
        check("", "", 24);
        check("Approved", "", 24);
        check("Approved", "bm9uZQ==", 1);
        check("Denied", "", 1);
        check("Failed", "", 1);
    }
}
