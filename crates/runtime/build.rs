//! Builds the small static program of the node (crates/shim) with a profile and a target directory of its own, so that
//! `runtime::SHIM` can embed it. Cargo cannot yet depend on another crate's binary with another profile.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let shim = here.join("../shim");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", shim.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed={}", shim.join("src").display());

    let build = out.join("shim-build");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--offline",
            "--profile",
            "shim",
            "--bin",
            "tiphys-shim",
            "--target",
            &target,
        ])
        .arg("--manifest-path")
        .arg(shim.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&build);
    // What the outer build was told (clippy's wrapper, coverage, sanitizers, a profile's settings) is not for this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer =
            ["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_", "CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PKG_"];
        let exact =
            ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CLIPPY_ARGS"];
        if outer.iter().any(|prefix| text.starts_with(prefix)) || exact.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    // Static: it runs in mount namespaces where the host's libraries are not.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "building tiphys-shim failed: {status}");

    let program = build.join(&target).join("shim/tiphys-shim");
    let embedded = out.join("tiphys-shim");
    std::fs::copy(&program, &embedded).expect("OUT_DIR can be written to");
    check_size(&embedded);
}

/// Every pod maps it, so it must stay small.
fn check_size(program: &Path) {
    let size = std::fs::metadata(program).expect("it has just been written").len();
    assert!(size < 1_500_000, "tiphys-shim has grown to {size} bytes; its limit is 1.5 MB");
}
