//! Recorded pairs: requests, and what kube-apiserver v1.36 answered to them. The requests are generated from the table of
//! facts and [`seeds`]; the answers stand in `recorded/`, a file for each resource, with whatever differs from run to run
//! masked. They are played against a server in this process, and compared: code, warnings, and the whole body.
//!
//! `TIPHYS_PAIRS_RECORD=https://host:port TIPHYS_PAIRS_TOKEN=… cargo test --test pairs` records them anew from any API
//! server, whose authorizer must allow everything to the user `tester` of the group `testers`. `TIPHYS_PAIRS_ONLY=a,b` plays
//! the files whose names contain one of the words; `TIPHYS_PAIRS_BLESS=1` writes which of those played are open;
#![allow(clippy::unwrap_used, unreachable_pub)]

mod answer;
mod bytes;
mod case;
mod cases;
mod differ;
#[path = "../house/mod.rs"]
mod house;
mod known;
mod mask;
mod more;
mod mutate;
mod play;
mod recorded;
mod sample;
mod seeds;
mod told;

use client::transport::Transport;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_recorded() {
    let only = std::env::var("TIPHYS_PAIRS_ONLY").ok();
    let mut stories = cases::stories();
    let order: Vec<String> = stories.iter().map(|s| s.file.clone()).collect();
    stories.retain(|s| only.as_ref().is_none_or(|only| only.split(',').any(|word| s.file.contains(word))));
    if let Ok(server) = std::env::var("TIPHYS_PAIRS_RECORD") {
        return record(&server, stories).await;
    }
    let house = house::house_with_default_features().await;
    let transport: Arc<dyn Transport> = Arc::new(house.client.clone());
    let (mut pairs, mut different, mut report) = (0, 0, String::new());
    let bless = std::env::var_os("TIPHYS_PAIRS_BLESS");
    let open: HashSet<(String, String)> = recorded::open().into_iter().collect();
    let mut still_open: Vec<_> =
        recorded::open().into_iter().filter(|(file, _)| !stories.iter().any(|s| s.file == *file)).collect();
    for story in stories {
        let wanted = recorded::read(&story.file);
        let answers = play::play(&transport, &story).await;
        pairs += answers.len();
        for (name, answer) in &answers {
            let Some(wanted) = wanted.iter().find(|(n, _)| n == name) else {
                different += 1;
                let _ = writeln!(report, "## {}: {name}: nothing is recorded", story.file);
                continue;
            };
            let case = story.cases.iter().find(|c| c.name == *name).unwrap();
            let differences = differ::differences(&wanted.1, answer);
            let key = (story.file.clone(), name.clone());
            if bless.is_some() {
                let unknown = !differences.is_empty() && known::reason(&story.file, name).is_none();
                still_open.extend(unknown.then(|| key.clone()));
            } else if open.contains(&key) {
                if differences.is_empty() {
                    different += 1;
                    let _ = writeln!(report, "## {}: {name}: no longer open", story.file);
                }
                continue;
            }
            match (differences.is_empty(), known::reason(&story.file, name)) {
                (false, Some(known::APPLIED)) if !differ::says_the_same(&wanted.1, answer) => {
                    different += 1;
                    let _ = writeln!(report, "## {}: {name}: says something else", story.file);
                    for difference in &differences {
                        let _ = writeln!(report, "   {difference}");
                    }
                }
                (true, None) | (false, Some(_)) => {}
                (true, Some(reason)) => {
                    different += 1;
                    let _ = writeln!(report, "## {}: {name}: no longer differs ({reason})", story.file);
                }
                (false, None) => {
                    different += 1;
                    let _ = writeln!(report, "## {}: {name}: {} {}", story.file, case.method, case.path);
                    for difference in differences.iter().take(12) {
                        let _ = writeln!(report, "   {difference}");
                    }
                }
            }
        }
        for (name, _) in &wanted {
            if !answers.iter().any(|(n, _)| n == name) {
                different += 1;
                let _ = writeln!(report, "## {}: {name}: recorded, but no longer asked", story.file);
            }
        }
    }
    println!("{pairs} pairs, {} of them open", open.len());
    if bless.is_some() {
        println!("{report}");
        still_open.sort_by_key(|(file, _)| order.iter().position(|f| f == file));
        return recorded::write_open(&still_open);
    }
    assert!(different == 0, "{different} of {pairs} pairs differ\n{report}");
}

async fn record(server: &str, stories: Vec<case::Story>) {
    let token = std::env::var("TIPHYS_PAIRS_TOKEN").unwrap();
    let tls = pki::tls::client_config(&pki::tls::Trust::Anyone, None, &[b"h2"]).unwrap();
    let source: client::https::TokenSource = Arc::new(move || Some(token.clone()));
    let transport: Arc<dyn Transport> =
        Arc::new(client::https::Https::new(server, tls, Some(source)).unwrap());
    for story in stories {
        let answers = play::play(&transport, &story).await;
        println!("{}: {} pairs", story.file, answers.len());
        recorded::write(&story.file, &answers);
    }
}
