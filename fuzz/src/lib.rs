//! Every decoder of the house, as a function that takes any bytes. None may panic, hang or fill the memory; what one has
//! read, it reads again from what is written of it.

mod expressions;
mod files;
mod objects;
mod patches;
mod words;

/// Where a target's first inputs come from.
#[derive(Debug, Clone, Copy)]
pub enum Corpus {
    /// Upstream's vectors with this extension, and the texts of the target.
    Vectors(&'static str),
    Texts,
}

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub corpus: Corpus,
    pub texts: &'static [&'static str],
}

const fn words(name: &'static str, run: fn(&[u8]), texts: &'static [&'static str]) -> Target {
    Target { name, run, corpus: Corpus::Texts, texts }
}

const fn vectors(name: &'static str, run: fn(&[u8]), extension: &'static str) -> Target {
    Target { name, run, corpus: Corpus::Vectors(extension), texts: &[] }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    vectors("json", objects::json, "json"),
    vectors("yaml", objects::yaml, "yaml"),
    vectors("protobuf", objects::protobuf, "pb"),
    vectors("cbor", objects::cbor, "json"),
    vectors("stored_body", objects::stored_body, "json"),
    words("json_patch", patches::json_patch, patches::JSON_PATCHES),
    words("merge_patch", patches::merge, patches::OBJECTS),
    words("strategic_patch", patches::strategic, patches::OBJECTS),
    words("apply", patches::apply, patches::OBJECTS),
    words("managed_fields", patches::managed_fields, patches::MANAGED),
    words("custom_schema", objects::custom_schema, objects::SCHEMAS),
    words("label_selector", words::labels, words::LABELS),
    words("field_selector", words::fields, words::FIELDS),
    words("quantity", words::quantity, words::QUANTITIES),
    words("time", words::time, words::TIMES),
    words("continue_token", words::continue_token, words::TOKENS),
    words("query", words::query, words::QUERIES),
    words("json_path", words::json_path, words::PATHS),
    words("cel", expressions::cel, expressions::CEL),
    words("re2", expressions::re2, expressions::PATTERNS),
    words("kubeconfig", files::kubeconfig, files::KUBECONFIGS),
    words("pem", files::pem, files::PEMS),
    words("jwt", files::jwt, files::JWTS),
    words("log", files::log, &[]),
    words("snapshot", files::snapshot, &[]),
];
