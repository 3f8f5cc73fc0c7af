//! How a pod grows where it runs.

use super::*;
use expect_test::expect;

#[test]
fn resizes() {
    const BOTH: &str = "{containers: [{name: a, resources: {limits: {cpu: 200m}}, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}, {name: b}]}";
    let check = |was: &str, has: &str, want: Expect| {
        let pod = pod(BOTH);
        let runtime = runtime(&pod, has);
        let mut actuated = Resources::of(&pod);
        actuated.containers.insert("a".into(), serde_json::from_str(was).unwrap());
        let (results, back_off) = (Results::default(), BackOff::default());
        let inputs = Inputs {
            pod: &pod,
            runtime: &runtime,
            results: &results,
            back_off: &back_off,
            actuated: &actuated,
            restart_all: false,
            now: 20 * S,
        };
        let actions: Vec<String> = plan(&inputs).iter().map(|a| shown(&pod, a)).collect();
        want.assert_eq(&actions.join("; "));
    };
    check(r#"{"limits":{"cpu":"0.2"}}"#, "sandbox a=running b=running", expect![""]);
    check(r#"{"limits":{"cpu":"1"}}"#, "sandbox a=running b=running", expect!["resize"]);
    check(
        r#"{"limits":{"cpu":"200m","memory":"1Gi"}}"#,
        "sandbox a=running b=running",
        expect!["kill a1: Container a resize requires restart; resize; start a"],
    );
    // What does not run gets what is allocated when it starts.
    check(r#"{"limits":{"cpu":"1"}}"#, "sandbox a=exit:1 b=running", expect!["start a"]);

    const BEGINS: &str =
        "{initContainers: [{name: a, resources: {limits: {cpu: 200m}}}], containers: [{name: b}]}";
    let check = |has: &str, want: Expect| {
        let pod = pod(BEGINS);
        let runtime = runtime(&pod, has);
        let mut actuated = Resources::of(&pod);
        actuated.containers.insert("a".into(), serde_json::from_str(r#"{"limits":{"cpu":"1"}}"#).unwrap());
        let inputs = Inputs {
            pod: &pod,
            runtime: &runtime,
            results: &Results::default(),
            back_off: &BackOff::default(),
            actuated: &actuated,
            restart_all: false,
            now: 20 * S,
        };
        let actions: Vec<String> = plan(&inputs).iter().map(|a| shown(&pod, a)).collect();
        want.assert_eq(&actions.join("; "));
    };
    check("sandbox a=running", expect!["resize"]);
    check("sandbox a=exit:0", expect!["start b"]);
}
