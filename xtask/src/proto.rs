//! Code from .proto files, without protoc. The output is committed and builds never generate; comments of the
//! definitions are left out.

use anyhow::{Context, Result};
use std::path::Path;

/// `codegen-cri <api.proto>`: `crates/cri/src/generated/v1.rs` from the public CRI v1 definition (cri-api v0.36).
pub(crate) fn cri(proto: &Path) -> Result<()> {
    generate(proto, "runtime.v1.rs", "crates/cri/src/generated/v1.rs", Sides::Both)
}

/// `codegen-etcd`: `crates/store/src/etcd/generated.rs` from the definition beside it.
pub(crate) fn etcd() -> Result<()> {
    let proto = root().join("crates/store/proto/etcd.proto");
    generate(&proto, "etcdserverpb.rs", "crates/store/src/etcd/generated.rs", Sides::Client)
}

/// `codegen-externaljwt`: the API server's side of external signers of tokens, and the signer's for tests.
pub(crate) fn external_jwt() -> Result<()> {
    let proto = root().join("crates/apiserver/proto/externaljwt.proto");
    generate(&proto, "v1.rs", "crates/apiserver/src/authn/external_jwt/generated.rs", Sides::Both)
}

/// `codegen-kms`: the API server's side of KMS v2, and the plugin's for its tests.
pub(crate) fn kms() -> Result<()> {
    let proto = root().join("crates/apiserver/proto/kms.proto");
    generate(&proto, "v2.rs", "crates/apiserver/src/storage/encryption/generated.rs", Sides::Both)
}

/// `codegen-konnectivity`: the API server's side of konnectivity's proxy, and the proxy's for tests.
pub(crate) fn konnectivity() -> Result<()> {
    let proto = root().join("crates/apiserver/proto/konnectivity.proto");
    generate(&proto, "_.rs", "crates/apiserver/src/egress/konnectivity/generated.rs", Sides::Both)
}

/// `codegen-otlp`: what a collector of spans is told, and its side for tests.
pub(crate) fn otlp() -> Result<()> {
    let proto = root().join("crates/apiserver/proto/otlp.proto");
    let package = "opentelemetry.proto.collector.trace.v1.rs";
    generate(&proto, package, "crates/apiserver/src/spans/generated.rs", Sides::Both)
}

/// `codegen-kubelet`: what the kubelet and its plugins say to each other, and what it tells of pods' resources.
pub(crate) fn kubelet() -> Result<()> {
    for (proto, package, name) in [
        ("device_plugin", "v1beta1.rs", "device_plugin"),
        ("plugin_registration", "pluginregistration.rs", "plugin_registration"),
        ("pod_resources", "v1.rs", "pod_resources"),
        ("dra", "k8s.io.kubelet.pkg.apis.dra.v1.rs", "dra"),
        ("dra_health", "v1alpha1.rs", "dra_health"),
    ] {
        let proto = root().join(format!("crates/kubelet/proto/{proto}.proto"));
        generate(&proto, package, &format!("crates/kubelet/src/plugins/generated/{name}.rs"), Sides::Both)?;
    }
    Ok(())
}

/// Which half of each service is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    Both,
    Client,
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles `proto`, whose package becomes a file called `package`, into the file `into` of the repository.
fn generate(proto: &Path, package: &str, into: &str, sides: Sides) -> Result<()> {
    let dir = proto.parent().context("the path of the .proto has no directory")?;
    let set = protox::compile([proto], [dir]).context("compiling the definition")?;
    let into = root().join(into);
    let out = into.parent().context("the output has no directory")?;
    std::fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_server(sides == Sides::Both)
        .bytes(if sides == Sides::Client { "." } else { ".none" })
        .disable_comments(["."])
        .emit_rerun_if_changed(false)
        .compile_fds(set)
        .context("generating")?;
    let made = out.join(package);
    let text = std::fs::read_to_string(&made)?;
    std::fs::remove_file(&made)?;
    let text: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("///"))
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    std::fs::write(&into, text).with_context(|| format!("writing {}", into.display()))
}
