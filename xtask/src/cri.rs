//! `cargo xtask codegen-cri <api.proto>`: makes `crates/cri/src/generated/v1.rs` from the public
//! CRI v1 definition (cri-api v0.36). The output is committed; comments of the definition are left out.

use anyhow::{Context, Result};
use std::path::Path;

/// Compiles `proto` and writes the generated module into the `cri` crate.
pub(crate) fn generate(proto: &Path) -> Result<()> {
    let dir = proto.parent().context("the path of the .proto has no directory")?;
    let set = protox::compile([proto], [dir]).context("compiling the definition")?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cri/src/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .out_dir(&out)
        .disable_comments(["."])
        .emit_rerun_if_changed(false)
        .compile_fds(set)
        .context("generating")?;
    let path = out.join("runtime.v1.rs");
    let text = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let path = out.join("v1.rs");
    let text: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("///"))
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
