//! Code generation, tidy, and what CI runs.

mod descriptions;
mod proto;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask codegen-cri <api.proto> | codegen-etcd | codegen-externaljwt | codegen-kms | codegen-konnectivity | codegen-kubelet | codegen-otlp | descriptions <swagger.json>...";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("codegen-cri") => proto::cri(args.next().context(USAGE)?.as_ref()),
        Some("codegen-etcd") => proto::etcd(),
        Some("codegen-externaljwt") => proto::external_jwt(),
        Some("codegen-kms") => proto::kms(),
        Some("codegen-konnectivity") => proto::konnectivity(),
        Some("codegen-otlp") => proto::otlp(),
        Some("descriptions") => descriptions::write(args),
        Some("codegen-kubelet") => proto::kubelet(),
        Some(other) => bail!("unknown task {other:?}"),
        None => bail!(USAGE),
    }
}
