//! What Go says of handshakes that fail: users and metrics know its words.

use jiff::Timestamp;
use rustls::CertificateError;
use rustls_pki_types::UnixTime;
use std::io;
use std::net::IpAddr;

/// What is wrong with the TLS of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody vouches for who answers, and why.
    #[error("tls: failed to verify certificate: x509: {0}")]
    Distrust(String),
    #[error("tls: {0}")]
    Other(String),
}

/// What is wrong with the TLS of a connection to a host, if it is that.
pub fn failure(error: &io::Error, host: &str) -> Option<Failure> {
    Some(match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(why) => Failure::Distrust(distrust(why, host)),
        other => Failure::Other(other.to_string()),
    })
}

fn distrust(error: &CertificateError, host: &str) -> String {
    const EXPIRED: &str = "certificate has expired or is not yet valid";
    match error {
        // The latter where an authority has the name of the one that signed it, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::NotValidYet => EXPIRED.to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{EXPIRED}: current time {} is after {}", moment(time), moment(not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("{EXPIRED}: current time {} is before {}", moment(time), moment(not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => other_name(presented, host),
        other => other.to_string(),
    }
}

fn moment(time: &UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or_default();
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// A certificate of other names: each as `DnsName("a")` or `IpAddress(10.0.0.1)`.
fn other_name(presented: &[String], host: &str) -> String {
    let of = |kind: &str| -> Vec<&str> {
        let named = presented.iter().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('('));
        named.map(|name| name.trim_end_matches(')').trim_matches('"')).collect()
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    let names = of(if is_address { "IpAddress" } else { "DnsName" });
    match (names.is_empty(), is_address) {
        (true, true) => {
            format!("cannot validate certificate for {host} because it doesn't contain any IP SANs")
        }
        (true, false) => format!("certificate is not valid for any names, but wanted to match {host}"),
        (false, _) => format!("certificate is valid for {}, not {host}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn certificates_are_refused_in_gos_words() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let told = |why: CertificateError, host: &str| {
            let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(why));
            let text = failure(&error, host).unwrap().to_string();
            text.strip_prefix("tls: failed to verify certificate: x509: ").unwrap().to_owned()
        };
        assert_eq!(told(CertificateError::UnknownIssuer, "a"), "certificate signed by unknown authority");
        assert_eq!(
            told(CertificateError::ExpiredContext { time: at(86_400), not_after: at(3_600) }, "a"),
            "certificate has expired or is not yet valid: current time 1970-01-02T00:00:00Z is after 1970-01-01T01:00:00Z"
        );
        let named = |presented: &[&str], host: &str| {
            let name = rustls_pki_types::ServerName::try_from(host.to_owned()).unwrap();
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            told(CertificateError::NotValidForNameContext { expected: name, presented }, host)
        };
        let presented = ["DnsName(\"b\")", "DnsName(\"c\")", "IpAddress(10.0.0.2)"];
        assert_eq!(named(&presented, "a"), "certificate is valid for b, c, not a");
        assert_eq!(named(&presented, "10.0.0.1"), "certificate is valid for 10.0.0.2, not 10.0.0.1");
        assert_eq!(named(&[], "a"), "certificate is not valid for any names, but wanted to match a");
        assert_eq!(
            named(&presented[..1], "10.0.0.1"),
            "cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs"
        );
        assert_eq!(failure(&io::ErrorKind::ConnectionRefused.into(), "a"), None);
    }
}
