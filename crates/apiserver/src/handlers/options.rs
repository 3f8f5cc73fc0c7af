//! The options of a write, read from the query and judged before anything else happens.

use crate::server::Call;
use apimachinery::field::ErrorList;
use apimachinery::gvk::GroupKind;
use apimachinery::meta::validation::{
    PatchKind, validate_create_options, validate_patch_options, validate_update_options,
};
use apimachinery::status::Status;
use schema::decode::FieldValidation;

/// What a write asks for beside its object.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Who the write is recorded under: as asked, else the user agent up to its first slash.
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Take over fields that other managers own.
    pub force: bool,
}

fn refuse(kind: &str, errors: &ErrorList) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", kind.to_owned()), "", errors))
}

impl WriteOptions {
    pub fn for_create(call: &Call) -> Result<Self, Status> {
        let options = call.info.query.create_options();
        refuse("CreateOptions", &validate_create_options(&options))?;
        Ok(Self::new(call, &options.dry_run, &options.field_manager, &options.field_validation))
    }

    pub fn for_update(call: &Call) -> Result<Self, Status> {
        let options = call.info.query.update_options();
        refuse("UpdateOptions", &validate_update_options(&options))?;
        Ok(Self::new(call, &options.dry_run, &options.field_manager, &options.field_validation))
    }

    pub fn for_patch(call: &Call, kind: PatchKind) -> Result<Self, Status> {
        let options = call.info.query.patch_options();
        refuse("PatchOptions", &validate_patch_options(&options, kind))?;
        let force = options.force.unwrap_or(false);
        let read = Self::new(call, &options.dry_run, &options.field_manager, &options.field_validation);
        Ok(WriteOptions { force, ..read })
    }

    fn new(call: &Call, dry_run: &[String], manager: &str, validation: &str) -> Self {
        WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_manager: if manager.is_empty() { agent(call) } else { manager.to_owned() },
            field_validation: match validation {
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                _ => FieldValidation::Warn,
            },
            force: false,
        }
    }
}

/// What the client calls itself, printable and short.
fn agent(call: &Call) -> String {
    const MAX: usize = 128;
    let header = call.parts.headers.get(http::header::USER_AGENT);
    let text = String::from_utf8_lossy(header.map_or(b"", |v| v.as_bytes()));
    let mut name = String::new();
    for c in text.split('/').next().unwrap_or_default().chars().filter(|c| apimachinery::quote::is_print(*c))
    {
        if name.len() + c.len_utf8() > MAX {
            break;
        }
        name.push(c);
    }
    name
}
