//! EventRateLimit: so many events at a time, of the whole server, of a namespace, of a user, or about one thing from one
//! source.

mod buckets;
mod configuration;

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::field::aggregate;
use apimachinery::status::Status;
use apimachinery::value::Value;
use buckets::Buckets;
pub(super) use configuration::read;
use configuration::{Kind, Limit};
use parking_lot::Mutex;
use std::time::Instant;

pub(super) struct EventRateLimit(Vec<(Kind, Mutex<Buckets>)>);

impl EventRateLimit {
    pub(super) fn new(limits: &[Limit]) -> Self {
        EventRateLimit(limits.iter().map(|limit| (limit.kind, Mutex::new(Buckets::new(limit)))).collect())
    }
}

/// What a request shares its bucket with.
fn key(kind: Kind, a: &Attributes<'_>) -> String {
    match kind {
        Kind::Server => String::new(),
        Kind::Namespace => a.namespace.to_owned(),
        Kind::User => a.user.name.clone(),
        Kind::SourceAndObject => a.object.as_deref().map(source_and_object).unwrap_or_default(),
    }
}

fn source_and_object(event: &Value) -> String {
    let (source, object) = (&event["source"], &event["involvedObject"]);
    let members = [
        (source, "component"),
        (source, "host"),
        (object, "kind"),
        (object, "namespace"),
        (object, "name"),
        (object, "uid"),
        (object, "apiVersion"),
    ];
    members.iter().map(|(of, member)| of[*member].as_str().unwrap_or_default()).collect()
}

impl Immediate for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if a.dry_run || !a.is("", "events") {
            return Ok(());
        }
        let now = Instant::now();
        let exceeded = self.0.iter().filter_map(|(kind, buckets)| {
            let key = key(*kind, a);
            let accepted = buckets.lock().accept(&key, now);
            (!accepted).then(|| format!("limit reached on type {} for key {key}", kind.name()))
        });
        aggregate(exceeded).map_or(Ok(()), |why| Err(Status::too_many_requests_error(why)))
    }
}
