use super::*;
use crate::field::{Error, Path};

fn check(status: &Status, want: &str) {
    let json = serde_json::to_string(status).unwrap();
    assert_eq!(json, want);
    assert_eq!(&serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn statuses_are_upstreams() {
    let pods = GroupResource::from_static("", "pods");
    let deployments = GroupResource::from_static("apps", "deployments");
    check(
        &Status::success(),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":200}"#,
    );
    check(
        &Status::not_found(&pods, "x"),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#,
    );
    check(
        &Status::conflict(&deployments, "x", OBJECT_MODIFIED),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your changes to the latest version and try again","reason":"Conflict","details":{"name":"x","group":"apps","kind":"deployments"},"code":409}"#,
    );
    let errors =
        ErrorList(vec![Error::required(&Path::new("spec"), ""), Error::forbidden(&Path::new("a"), "no")]);
    check(
        &Status::invalid(&GroupKind::from_static("apps", "Deployment"), "x", &errors),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Deployment.apps \"x\" is invalid: [spec: Required value, a: Forbidden: no]","reason":"Invalid","details":{"name":"x","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec"},{"reason":"FieldValueForbidden","message":"Forbidden: no","field":"a"}]},"code":422}"#,
    );
    check(
        &Status::too_large_resource_version(9, 5, 1),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 9, current: 5","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}"#,
    );
    for (status, code, message) in [
        (Status::forbidden(&pods, "", "why"), 403, "pods is forbidden: why"),
        (Status::forbidden(&pods, "x", "why"), 403, "pods \"x\" is forbidden: why"),
        (Status::forbidden(&GroupResource::default(), "", "why"), 403, "forbidden: why"),
        (Status::unauthorized(""), 401, "not authorized"),
        (
            Status::method_not_supported(&pods, "patch"),
            405,
            "patch is not supported on resources of kind \"pods\"",
        ),
        (
            Status::generate_name_conflict(&pods, "x", 1),
            409,
            "pods \"x\" already exists, the server was not able to generate a unique name for the object",
        ),
        (Status::internal_error("boom"), 500, "Internal error occurred: boom"),
        (
            Status::server_timeout(&pods, "list", 2),
            500,
            "The list operation against pods could not be completed at this time, please try again.",
        ),
        (
            Status::not_acceptable(&["a/b", "c/d"]),
            406,
            "only the following media types are accepted: a/b, c/d",
        ),
        (
            Status::generic_server_response(502, "GET", &pods, "x", "bad", 0, ResponseBody::Unexpected),
            502,
            "an error on the server (\"bad\") has prevented the request from succeeding (get pods x)",
        ),
    ] {
        assert_eq!((status.code, &*status.message), (code, message));
    }
}

#[test]
fn an_unknown_reason_leaves_the_code_to_decide() {
    let bare = Status { code: 404, reason: "Odd".into(), ..Status::default() };
    assert!(bare.is_not_found() && !bare.is_conflict());
    let known = Status { code: 404, ..Status::conflict(&GroupResource::from_static("", "pods"), "x", "y") };
    assert!(known.is_conflict() && !known.is_not_found());
}
