//! How a remote command ended, as the error channel tells it: a `Status` in JSON from v4 on, before that a message or
//! nothing.

use serde::{Deserialize, Serialize};

use crate::Error;

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It ran and exited with this code, which is not zero.
    ExitCode(i32),
    /// It could not be run or watched; upstream's text around it is added here (an internal error).
    Failed(String),
    /// A `Status` made elsewhere: its JSON and its message.
    Status {
        json: Vec<u8>,
        message: String,
    },
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Status {
    metadata: Metadata,
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    message: String,
}

const NON_ZERO: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

impl Outcome {
    /// What goes over the error channel.
    pub(crate) fn encode(self, has_status: bool) -> Vec<u8> {
        let cause = |reason: &str, message: &str| {
            Some(Details { causes: vec![Cause { reason: reason.into(), message: message.into() }] })
        };
        let status = match self {
            Outcome::Status { json, message } => return if has_status { json } else { message.into_bytes() },
            Outcome::Success => Status { status: "Success".into(), ..Status::default() },
            Outcome::ExitCode(code) => Status {
                status: "Failure".into(),
                message: format!("command terminated with non-zero exit code: exit status {code}"),
                reason: NON_ZERO.into(),
                details: cause(EXIT_CODE, &code.to_string()),
                ..Status::default()
            },
            Outcome::Failed(reason) => Status {
                status: "Failure".into(),
                message: format!("Internal error occurred: {reason}"),
                reason: "InternalError".into(),
                details: cause("", &reason),
                code: Some(500),
                ..Status::default()
            },
        };
        match has_status {
            // Plain data always encodes.
            true => serde_json::to_vec(&status).unwrap_or_default(),
            false => status.message.into_bytes(),
        }
    }

    /// What the peer said.
    pub(crate) fn decode(data: Vec<u8>, has_status: bool) -> Result<Outcome, Error> {
        let text = || String::from_utf8_lossy(&data).into_owned();
        if !has_status {
            return Ok(if data.is_empty() { Outcome::Success } else { Outcome::Failed(text()) });
        }
        let status: Status = serde_json::from_slice(&data).map_err(|_| Error::Status(text()))?;
        if status.status == "Success" {
            return Ok(Outcome::Success);
        }
        if status.reason == NON_ZERO {
            let causes = status.details.unwrap_or_default().causes;
            let code = causes.iter().find(|c| c.reason == EXIT_CODE).and_then(|c| c.message.parse().ok());
            return code.map(Outcome::ExitCode).ok_or_else(|| Error::Status(text()));
        }
        Ok(Outcome::Status { message: status.message, json: data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |outcome: Outcome, status: &str, plain: &str| {
            assert_eq!(String::from_utf8(outcome.clone().encode(true)).unwrap(), status);
            assert_eq!(String::from_utf8(outcome.encode(false)).unwrap(), plain);
        };
        check(Outcome::Success, r#"{"metadata":{},"status":"Success"}"#, "");
        check(
            Outcome::ExitCode(7),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
            "command terminated with non-zero exit code: exit status 7",
        );
        check(
            Outcome::Failed("no".into()),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no","reason":"InternalError","details":{"causes":[{"message":"no"}]},"code":500}"#,
            "Internal error occurred: no",
        );
        assert_eq!(Outcome::decode(Outcome::ExitCode(7).encode(true), true).unwrap(), Outcome::ExitCode(7));
        assert!(Outcome::decode(b"{}x".to_vec(), true).is_err());
    }
}
