//! Other clients than kubectl: helm, and the Python client in its typed and its dynamic form.
#![allow(clippy::unwrap_used)]

/// A chart with a definition, hooks and tests, from install to uninstall.
mod helm;

use cluster_tests::{Room, Scenario, Suite, scenarios};
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] =
        scenarios![helm_3, helm_4, typed_python, dynamic_python, controllers_in_python];
    Suite::new("clients", TOGETHER).run()
}

fn helm_3(room: &Room) {
    helm::from_install_to_uninstall(room, "3.17.3");
}

fn helm_4(room: &Room) {
    helm::from_install_to_uninstall(room, "4.2.3");
}

/// Runs a script beside this file; it asserts by itself, and its last word shows that it came to its end.
fn python(room: &Room, script: &str) {
    let python = cluster_tests::client("python", &[]);
    let script = cluster_tests::root().join("tests/tests/clients").join(script);
    let output = room.kubectl.script(&format!("exec {} {} $NS", python.display(), script.display()), "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim_end(), "done", "{}", String::from_utf8_lossy(&output.stderr));
}

fn typed_python(room: &Room) {
    python(room, "typed.py");
}

fn dynamic_python(room: &Room) {
    python(room, "dynamic.py");
}

fn controllers_in_python(room: &Room) {
    python(room, "controllers.py");
}
