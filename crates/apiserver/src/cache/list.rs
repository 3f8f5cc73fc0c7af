//! Lists at a revision, in pages.

use super::select::Selection;
use super::token::Continue;
use crate::registry::{body, store_error};
use crate::resources::Served;
use crate::storage::measures::{Operation, Origin};
use apimachinery::meta::ListMeta;
use apimachinery::status::Status;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Entry, Revision, Snapshot, Store};

/// How long a read waits for a revision that has not happened yet (upstream's 3 s).
const FRESHNESS: Duration = Duration::from_secs(3);

/// How a list wants its revision.
#[derive(Debug, Clone, Default)]
pub struct Page<'a> {
    pub resource_version: &'a str,
    pub resource_version_match: &'a str,
    pub limit: usize,
    pub continue_token: &'a str,
}

/// One page.
#[derive(Debug)]
pub struct Listed {
    pub entries: Vec<Arc<Entry>>,
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<i64>,
    /// How many objects were looked at.
    pub seen: usize,
}

/// Whether a list is wanted at its revision and no other.
fn is_exact(page: &Page<'_>) -> bool {
    page.resource_version_match == "Exact" || page.limit > 0
}

async fn snapshot(store: &dyn Store, resource: &Served, page: &Page<'_>) -> Result<Snapshot, Status> {
    let (prefix, began) = (&resource.prefix, Instant::now());
    let measures = resource.measures.get();
    let asked = parse_revision(page.resource_version)?;
    match (asked, page.resource_version_match) {
        (None, _) => consistent(store, resource).await,
        (Some(0), _) => Ok(store.snapshot(prefix)),
        // Before there was resourceVersionMatch, pages were exact.
        (Some(revision), "Exact" | "") if is_exact(page) => {
            at(store, resource, Revision(revision)).await.map_err(|error| match error {
                store::Error::Future { asked, current } => {
                    Status::too_large_resource_version(asked.0, current.0, 0)
                }
                error => store_error(error),
            })
        }
        (Some(revision), _) => {
            wait_for(store, revision).await?;
            measures.into_iter().for_each(|measures| measures.waited(began));
            Ok(store.snapshot(prefix))
        }
    }
}

/// What is newest.
async fn consistent(store: &dyn Store, resource: &Served) -> Result<Snapshot, Status> {
    let began = Instant::now();
    let found = store.consistent_snapshot(&resource.prefix).await;
    if let Some(measures) = resource.measures.get() {
        measures.waited(began);
        measures.consistent(found.is_ok());
    }
    found.map_err(store_error)
}

/// What was at a revision.
async fn at(store: &dyn Store, resource: &Served, revision: Revision) -> store::Result<Snapshot> {
    let began = Instant::now();
    let found = store.snapshot_at(&resource.prefix, revision).await;
    if let Some(measures) = resource.measures.get() {
        measures.asked(Operation::List, began, found.is_err());
    }
    found
}

/// Waits until a revision is visible, or says that it is too large.
pub async fn wait_for(store: &dyn Store, revision: u64) -> Result<(), Status> {
    match tokio::time::timeout(FRESHNESS, store.wait_for(Revision(revision))).await {
        Ok(result) => result.map_err(store_error),
        Err(_) => Err(Status::too_large_resource_version(revision, store.revision().0, 1)),
    }
}

/// A resourceVersion; absent when empty.
pub fn parse_revision(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let why = match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "value out of range",
            false => "invalid syntax",
        };
        Status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
        ))
    })
}

/// Lists what is selected.
pub async fn list(
    store: &dyn Store,
    resource: &Served,
    selection: &Selection,
    page: &Page<'_>,
) -> Result<Listed, Status> {
    let listed = select(store, resource, selection, page).await?;
    if let Some(measures) = resource.measures.get() {
        let back = is_exact(page) && !matches!(page.resource_version, "" | "0");
        let back = back || !page.continue_token.is_empty();
        let origin = if back { Origin::Storage } else { Origin::Cache };
        measures.listed(origin, listed.seen, listed.entries.len());
    }
    Ok(listed)
}

async fn select(
    store: &dyn Store,
    resource: &Served,
    selection: &Selection,
    page: &Page<'_>,
) -> Result<Listed, Status> {
    let (snapshot, start) = if page.continue_token.is_empty() {
        (snapshot(store, resource, page).await?, selection.scope.clone())
    } else {
        let token = Continue::parse(page.continue_token)?;
        if !matches!(page.resource_version, "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let start = format!("{}{}", selection.scope, token.start);
        let snapshot = if token.rv < 0 {
            consistent(store, resource).await?
        } else {
            match at(store, resource, Revision(token.rv as u64)).await {
                Ok(snapshot) => snapshot,
                Err(store::Error::Compacted { .. }) => return Err(expired(&token)),
                Err(error) => return Err(store_error(error)),
            }
        };
        (snapshot, start)
    };
    let revision = snapshot.revision.0;
    // Who is content with any revision gets all at once.
    let any = page.resource_version == "0" && page.continue_token.is_empty();
    let limit = if page.limit == 0 || any { usize::MAX } else { page.limit };
    let mut entries = Vec::new();
    let mut rest = snapshot.range(&selection.scope, &start);
    if let Some(name) = &selection.name
        && !selection.scope.is_empty() | !resource.row.namespaced
    {
        // One name: a look-up, not a walk.
        let key = format!("{}{name}", selection.scope);
        let found = match snapshot.get(&key).cloned() {
            Some(entry) => Some(resource.present(entry).await?).filter(|e| selection.matches(resource, e)),
            None => None,
        };
        return Ok(Listed {
            entries: found.into_iter().collect(),
            revision,
            continue_token: String::new(),
            remaining: None,
            seen: 1,
        });
    }
    if resource.custom.is_some() {
        return custom(resource, selection, limit, revision, rest.cloned()).await;
    }
    let mut seen = 0;
    while let Some(entry) = rest.next() {
        seen += 1;
        // Whether one that cannot be read is wanted cannot be told.
        body(entry)?;
        if !selection.matches(resource, entry) {
            continue;
        }
        entries.push(entry.clone());
        if entries.len() == limit {
            let (more, remaining) = if selection.is_everything() {
                let left = rest.count();
                (left > 0, (left > 0).then_some(left as i64))
            } else {
                // Whether any of the rest is wanted, the next page finds out: upstream's rule.
                (rest.next().is_some(), None)
            };
            let continue_token =
                if more { after(&selection.scope, revision, &entries) } else { String::new() };
            return Ok(Listed { entries, revision, continue_token, remaining, seen });
        }
    }
    Ok(Listed { entries, revision, continue_token: String::new(), remaining: None, seen })
}

/// The token of the page after these: it begins behind the last one's name, below the scope.
fn after(scope: &str, revision: u64, entries: &[Arc<Entry>]) -> String {
    let last = entries.last().map_or("", |entry| &entry.name[scope.len()..]);
    Continue::new(revision as i64, &format!("{last}\0")).encode()
}

/// How many objects are converted together at most.
const TOGETHER: usize = 500;

/// Lists what is selected of a custom kind: an object is judged as it is served.
async fn custom(
    resource: &Served,
    selection: &Selection,
    limit: usize,
    revision: u64,
    rest: impl Iterator<Item = Arc<Entry>> + Send,
) -> Result<Listed, Status> {
    let mut rest = rest.peekable();
    let (mut entries, mut seen) = (Vec::new(), 0);
    while rest.peek().is_some() {
        let wanted = limit.saturating_sub(entries.len()).saturating_add(1).min(TOGETHER);
        let piece: Vec<Arc<Entry>> = rest.by_ref().take(wanted).collect();
        let piece = resource.present_all(piece).await?;
        let left = piece.len();
        seen += left;
        for (i, entry) in piece.into_iter().enumerate() {
            if !selection.matches(resource, &entry) {
                continue;
            }
            entries.push(entry);
            if entries.len() == limit {
                let left = left - i - 1 + rest.count();
                let more = left > 0;
                let continue_token =
                    if more { after(&selection.scope, revision, &entries) } else { String::new() };
                let remaining = (more && selection.is_everything()).then_some(left as i64);
                return Ok(Listed { entries, revision, continue_token, remaining, seen });
            }
        }
    }
    Ok(Listed { entries, revision, continue_token: String::new(), remaining: None, seen })
}

/// The answer to a token whose revision was compacted: with a token that goes on at the newest revision.
fn expired(token: &Continue) -> Status {
    Status::resource_expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    )
    .with_metadata(ListMeta { continue_token: Continue::new(-1, &token.start).encode(), ..Default::default() })
}
