//! Mutations of a corpus, made of a seed, put to every decoder. `TIPHYS_FUZZ=100000` asks each so often, `TIPHYS_FUZZ_TARGET=cbor`
//! one alone, `TIPHYS_FUZZ_SEED=7` otherwise.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../crates/apiserver/tests/hostile/dice.rs"]
#[allow(dead_code)] // Others throw them, too.
mod dice;

use dice::Dice;
use fuzz::{Corpus, TARGETS, Target};
use std::path::PathBuf;
use std::sync::Arc;
use store::{Identity, Transform};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The vectors beside the checkout; fewer where they are absent.
fn vectors(extension: &str) -> Vec<Vec<u8>> {
    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let root = std::env::var_os("TIPHYS_REFERENCE_DATA").map_or_else(|| PathBuf::from(DATA), PathBuf::from);
    let Ok(files) = std::fs::read_dir(root.join("testdata")) else {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", root.display());
        println!("without vectors: {} is absent (TIPHYS_REFERENCE_DATA names its root)", root.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = target.texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target.corpus {
        Corpus::Vectors(extension) => corpus.extend(vectors(extension)),
        Corpus::Texts if corpus.is_empty() => corpus.extend(store_files(target.name)),
        Corpus::Texts => {}
    }
    corpus.push(Vec::new());
    corpus
}

/// Files of a real store with a few writes in it.
fn store_files(name: &str) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(directory.path().join("store"), Default::default()).unwrap();
    for n in 0..20 {
        let key = store::Key::new("/registry/pods/", format!("a/{n}"));
        let write = store::Write::put(key, vec![n; 50], store::Expect::Absent);
        runtime.block_on(store::Store::commit(&*store, write)).unwrap();
    }
    let plain: Arc<dyn Transform> = Arc::new(Identity);
    let saved = runtime.block_on(store::embedded::Saved::of_store(&*store)).unwrap();
    let file = directory.path().join("saved");
    saved.to_file(&file, &plain).unwrap();
    if name == "snapshot" {
        return vec![std::fs::read(file).unwrap()];
    }
    let logs = std::fs::read_dir(directory.path().join("store")).unwrap().map(|f| f.unwrap().path());
    logs.filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap())
        .map(|mut log| {
            // What is allocated ahead is zeros.
            log.truncate(log.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
            log
        })
        .collect()
}

/// Changes a few bytes, pieces, or words.
fn mutated(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "null",
        "\"\"",
        "{}",
        "[]",
        "1e999",
        "-0",
        "99999999999999999999",
        "\\u0000",
        "\\ud800",
        "$patch",
        "~1",
        "%00",
        "\u{0}",
        "é",
        "(",
        ")",
        "*a",
        "&a ",
        "!!binary ",
        "- ",
        ": ",
        "\n",
        "'",
        "\"",
        ",",
        "=",
        "\u{7f}",
        "..",
        "0x7fffffffffffffff",
    ];
    let mut bytes = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(5) {
        let at = dice.below(bytes.len());
        let end = (at + dice.below(40)).min(bytes.len());
        match dice.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = dice.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.splice(at..at, dice.bytes(12))),
            6 => {
                // The beginning of one, the end of another.
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            7 => {
                let piece = bytes[at..end].to_vec();
                let times = [2, 100, 5_000][dice.below(3)];
                bytes.splice(at..end, piece.repeat(times));
            }
            _ => drop(bytes.splice(at..end, dice.pick(WORDS).bytes())),
        }
    }
    bytes
}

#[test]
fn decoders_bear_anything() {
    let (cases, seed) = (variable("TIPHYS_FUZZ", 300), variable("TIPHYS_FUZZ_SEED", 1));
    let only = std::env::var("TIPHYS_FUZZ_TARGET").ok();
    for target in TARGETS.iter().filter(|t| only.as_ref().is_none_or(|only| only == t.name)) {
        let (corpus, start) = (corpus(target), std::time::Instant::now());
        corpus.iter().for_each(|input| (target.run)(input));
        for case in 0..cases {
            let input = mutated(&mut Dice::new(seed, case), &corpus);
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{} case {case}: {:?}", target.name, String::from_utf8_lossy(&input));
        }
        println!("{}: {} of the corpus, {cases} mutations, {:?}", target.name, corpus.len(), start.elapsed());
    }
}
