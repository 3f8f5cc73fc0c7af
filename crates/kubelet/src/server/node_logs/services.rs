//! What services logged: to the journal, or else to files named after them.

use super::query::Query;
use apimachinery::time::Timestamp;
use linux::path::Root;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const JOURNAL: &str = "journalctl";
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Of a file, so much from its end at most.
const MOST: u64 = 64 << 20;

/// All that is asked for; what is wrong is told in between.
pub(super) async fn read(query: &Query, dir: &Path) -> Vec<u8> {
    let known = journal(&["--field".into(), "_SYSTEMD_UNIT".into()]).await.unwrap_or_default();
    let known = String::from_utf8_lossy(&known);
    // What the journal does not know may log to a file.
    let (native, files): (Vec<String>, Vec<String>) =
        query.services.iter().cloned().partition(|service| known.contains(&format!("{service}.service")));
    if files.is_empty() {
        let said = journal(&arguments(query, &native)).await;
        return said.unwrap_or_else(|| b"\nerror: journal output not available\n".to_vec());
    }
    if query.options != Default::default() {
        let named = files.join(" ");
        return format!(
            "\noptions present and query resolved to log files for [{named}]\ntry without specifying options\n"
        )
        .into();
    }
    let dir = dir.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        files.iter().flat_map(|service| of_files(&dir, service)).collect::<Vec<u8>>()
    });
    reading.await.unwrap_or_default()
}

/// What the journal says; `None` where there is none.
async fn journal(arguments: &[String]) -> Option<Vec<u8>> {
    let mut command = Command::new(JOURNAL);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output =
        tokio::time::timeout(TIME_LIMIT, command.spawn().ok()?.wait_with_output()).await.ok()?.ok()?;
    let mut said = output.stdout;
    said.extend(output.stderr);
    Some(said)
}

/// The journal's arguments.
pub(super) fn arguments(query: &Query, services: &[String]) -> Vec<String> {
    let options = &query.options;
    let mut out = vec!["--utc".to_owned(), "--no-pager".into()];
    let time = |at: Option<Timestamp>| at.map(shown);
    for (flag, said, time) in [
        ("since", &options.since, time(options.since_time)),
        ("until", &options.until, time(options.until_time)),
    ] {
        let said = Some(said.clone()).filter(|said| !said.is_empty()).or(time);
        out.extend(said.map(|said| format!("--{flag}={said}")));
    }
    if let Some(tail) = options.tail {
        out.extend(["--pager-end".into(), format!("--lines={tail}")]);
    }
    out.extend(services.iter().map(|service| format!("--unit={service}")));
    if !options.pattern.is_empty() {
        out.push(format!("--grep={}", options.pattern));
        out.push(format!("--case-sensitive={}", options.case_sensitive));
    }
    if let Some(boot) = options.boot {
        out.extend(["--boot".into(), boot.to_string()]);
    }
    let format = if options.format.is_empty() { "short-precise" } else { &options.format };
    out.push(format!("--output={format}"));
    out
}

/// A time as the journal reads it.
fn shown(at: Timestamp) -> String {
    let text = at.to_string().replace('T', " ");
    text.split(['.', 'Z']).next().unwrap_or_default().to_owned()
}

/// What is in `service`, `service.log` or `service/service.log`, whichever there is.
fn of_files(dir: &Path, service: &str) -> Vec<u8> {
    let Ok(root) = Root::open(dir) else { return format!("\nlog not found for {service}\n").into() };
    for name in [service.to_owned(), format!("{service}.log"), format!("{service}/{service}.log")] {
        if let Ok(mut file) = root.open_file(&PathBuf::from(name)) {
            let length = file.metadata().map_or(0, |meta| meta.len());
            let skipped =
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length.saturating_sub(MOST)));
            let mut out = Vec::new();
            return match skipped.and_then(|_| file.take(MOST).read_to_end(&mut out)) {
                Ok(_) => out,
                Err(error) => format!("\nerror getting log for {service}: {error}\n").into(),
            };
        }
    }
    format!("\nlog not found for {service}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_services() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.log"), "a\n").unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("b/b.log"), "b\n").unwrap();
        let of = |service: &str| String::from_utf8(of_files(dir.path(), service)).unwrap();
        assert_eq!([of("a"), of("b"), of("c")], ["a\n", "b\n", "\nlog not found for c\n"]);
    }
}
