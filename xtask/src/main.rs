//! Code generation, tidy, and what CI runs.

mod cri;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("codegen-cri") => cri::generate(args.next().context("usage: codegen-cri <api.proto>")?.as_ref()),
        Some(other) => bail!("unknown task {other:?}"),
        None => bail!("usage: cargo xtask codegen-cri <api.proto>"),
    }
}
