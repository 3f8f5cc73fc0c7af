//! What clients are told while a write is on its way to the disk: nothing that rests on it. Whoever is refused for it, or
//! finds that there is nothing left to do, hears so when everybody can see why.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use house::House;
use http::Method;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use store::embedded::{Directory, Disk, Embedded, File, Options};
use store::{Entry, Key, Store};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// More than any request takes that need not wait.
const TURNS: usize = 10_000;
const MERGE: &str = "application/merge-patch+json";

/// Whether syncs wait.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn set(&self, shut: bool) {
        *self.0.lock() = shut;
        self.1.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.0.lock();
        self.1.wait_while(&mut shut, |shut| *shut);
    }
}

/// A disk that takes its time.
struct Slow(Arc<Directory>, Arc<Gate>);

struct SlowFile(Box<dyn File>, Arc<Gate>);

impl Disk for Slow {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SlowFile(self.0.open(name)?, self.1.clone())))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SlowFile(self.0.create(name)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }
    fn free(&self) -> io::Result<u64> {
        self.0.free()
    }
}

impl File for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn allocate(&self, size: u64) -> io::Result<()> {
        self.0.allocate(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
}

fn key(name: &str) -> Key {
    Key::new("/registry/configmaps/", format!("default/{name}"))
}

fn revision(entry: Option<Arc<Entry>>) -> Option<u64> {
    entry.map(|entry| entry.mod_revision.0)
}

#[tokio::test]
async fn nobody_is_told_of_what_is_not_durable() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Slow(Directory::lock(directory.path()).unwrap(), gate.clone());
    let store: Arc<dyn Store> = Embedded::open_on(Arc::new(disk), Options::default()).unwrap();
    let house = Arc::new(house::over(store.clone(), "10.96.0.0/16", Some(directory)).await);
    let namespace = json!({"metadata": {"name": "default"}});
    assert_eq!(house.json(Method::POST, "/api/v1/namespaces", namespace).await.0, 201);
    for name in ["changed", "deleted", "held"] {
        let map = json!({"metadata": {"name": name}, "data": {"a": "1"}});
        assert_eq!(house.json(Method::POST, MAPS, map).await.0, 201);
    }
    let old = house.get(&format!("{MAPS}/changed")).await;
    let finalizers = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    assert_eq!(house.call(Method::PATCH, &format!("{MAPS}/held"), MERGE, finalizers).await.0, 200);

    gate.set(true);
    let call = |method: Method, path: String, media: &'static str, body: Value| {
        let house: Arc<House> = house.clone();
        tokio::spawn(async move { house.call(method, &path, media, body).await })
    };
    let new = json!({"data": {"a": "2"}});
    let writes = [
        call(Method::PATCH, format!("{MAPS}/changed"), MERGE, new.clone()),
        call(Method::POST, MAPS.into(), "application/json", json!({"metadata": {"name": "created"}})),
        call(Method::DELETE, format!("{MAPS}/deleted"), "application/json", json!({})),
        call(Method::DELETE, format!("{MAPS}/held"), "application/json", json!({})),
    ];
    // Until all of them are logged, and none is durable.
    let logged = |name: &str| revision(store.pending(&key(name))) != revision(store.get(&key(name)));
    while !["changed", "created", "deleted", "held"].into_iter().all(logged) {
        tokio::task::yield_now().await;
    }

    // What follows from them, and what can be seen when the answer is there.
    let mut replaced = old.clone();
    replaced["data"]["a"] = "3".into();
    let told = [
        ("changed", call(Method::PUT, format!("{MAPS}/changed"), "application/json", replaced), 409),
        ("changed", call(Method::PATCH, format!("{MAPS}/changed"), MERGE, new), 200),
        (
            "created",
            call(Method::POST, MAPS.into(), "application/json", json!({"metadata": {"name": "created"}})),
            409,
        ),
        (
            "created",
            call(
                Method::POST,
                format!("{MAPS}?dryRun=All"),
                "application/json",
                json!({"metadata": {"name": "created"}}),
            ),
            409,
        ),
        ("deleted", call(Method::DELETE, format!("{MAPS}/deleted"), "application/json", json!({})), 404),
        ("deleted", call(Method::PATCH, format!("{MAPS}/deleted"), MERGE, json!({"data": {"b": "1"}})), 404),
        ("held", call(Method::DELETE, format!("{MAPS}/held"), "application/json", json!({})), 200),
    ];
    let told = told.map(|(name, answer, code)| {
        let (store, newest) = (store.clone(), revision(store.pending(&key(name))));
        tokio::spawn(async move {
            let (got, body) = answer.await.unwrap();
            assert_eq!((got, revision(store.get(&key(name)))), (code, newest), "{name}: {body}");
        })
    });
    // All are of one thread: who waits for nothing but their turn has had it by then.
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    let early = told.iter().filter(|told| told.is_finished()).count();
    gate.set(false);
    assert_eq!(early, 0);
    for told in told {
        told.await.unwrap();
    }
    for write in writes {
        assert!(matches!(write.await.unwrap().0, 200 | 201));
    }
}
