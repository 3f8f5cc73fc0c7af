//! Archives, good and hostile, through the whole store; as root, for owners, devices and overlay's attributes.

use super::*;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// A tar in memory.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, name: &[u8], kind: tar::EntryType, link: &[u8], data: &[u8], mode: u32) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Tar {
        self.raw(name.as_bytes(), tar::EntryType::Regular, b"", data, 0o4755)
    }

    fn dir(self, name: &str) -> Tar {
        self.raw(name.as_bytes(), tar::EntryType::Directory, b"", b"", 0o750)
    }

    fn link(self, kind: tar::EntryType, name: &str, target: &str) -> Tar {
        self.raw(name.as_bytes(), kind, target.as_bytes(), b"", 0o777)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

use tar::EntryType::{Link, Symlink};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout with one image of these layers, as they are.
fn layout(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff = |layer: &Vec<u8>| {
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut snapshots::decompress(&layer[..]).unwrap(), &mut tar).unwrap();
        Digest::of(&tar)
    };
    let config = serde_json::json!({
        "os": "linux", "architecture": manifest::architecture(),
        "config": {"Cmd": ["/bin/sh"], "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(diff).collect::<Vec<_>>()},
    });
    let descriptor = |bytes: &[u8]| serde_json::json!({"digest": Digest::of(bytes), "size": bytes.len()});
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "config": descriptor(&config),
        "layers": layers.iter().map(|layer| descriptor(layer)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut top = descriptor(&manifest);
    top["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    let mut tar = Tar::default().file("oci-layout", b"{}").file("index.json", index.as_bytes());
    for blob in [&config, &manifest].into_iter().chain(layers) {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.end()
}

struct Store {
    dir: tempfile::TempDir,
    images: Images,
}

impl Store {
    fn new() -> Store {
        Store::with(Limits::default())
    }

    fn with(limits: Limits) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let images =
            Images::open(&dir.path().join("images"), limits, Default::default(), HashMap::new()).unwrap();
        Store { dir, images }
    }

    fn import(&self, archive: &[u8]) -> Result<Vec<Image>> {
        self.images.import_stream(archive, &ImportOptions::default())
    }

    /// Unpacks one layer; its directory, or why not.
    fn layer(&self, tar: Tar) -> Result<PathBuf> {
        let image = self.import(&layout("test", &[tar.end()]))?.remove(0);
        Ok(self.images.lower_dirs(&image).remove(0))
    }

    /// Nothing half-done lies about.
    fn assert_clean(&self, snapshots: usize) {
        let count = |name: &str| std::fs::read_dir(self.images.dir().join(name)).unwrap().count();
        assert_eq!((count("snapshots") - 1, count("ingest")), (snapshots, 0));
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn root_layers_become_what_overlayfs_wants() {
    let store = Store::new();
    let base = Tar::default()
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .file("etc/gone", b"x")
        .dir("kept/")
        .file("kept/target", b"linked")
        .dir("opaque/");
    let upper = Tar::default()
        .file("etc/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .link(Link, "opaque/hard", "opaque/new")
        .link(Link, "from-below", "kept/target")
        .link(Symlink, "soft", "/etc/passwd")
        .raw(b"null", tar::EntryType::Char, b"", b"", 0o666)
        .file("etc/sub/deep", b"deep");
    let layers = [gzip(&base.end()), zstd::encode_all(&upper.end()[..], 1).unwrap()];
    let image = store.import(&gzip(&layout("docker.io/library/web:1", &layers))).unwrap().remove(0);
    assert_eq!(image.tags.iter().collect::<Vec<_>>(), ["docker.io/library/web:1"]);
    let shown = image.to_cri();
    assert_eq!((shown.uid.map(|uid| uid.value), shown.username.as_str()), (Some(1000), ""));
    let dirs = store.images.lower_dirs(&image);
    let (upper, base) = (&dirs[0], &dirs[1]);
    let meta = |path: &Path| std::fs::symlink_metadata(path).unwrap();

    let passwd = meta(&base.join("etc/passwd"));
    assert_eq!(
        (passwd.uid(), passwd.gid(), passwd.mode() & 0o7777, passwd.mtime()),
        (1000, 1001, 0o4755, 1_000_000_000)
    );
    let gone = meta(&upper.join("etc/gone"));
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr(&upper.join("opaque"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(meta(&upper.join("opaque/hard")).ino(), meta(&upper.join("opaque/new")).ino());
    assert_eq!(meta(&upper.join("from-below")).ino(), meta(&upper.join("kept/target")).ino());
    assert_eq!(std::fs::read(upper.join("from-below")).unwrap(), b"linked");
    assert_eq!(std::fs::read_link(upper.join("soft")).unwrap(), Path::new("/etc/passwd"));
    let null = meta(&upper.join("null"));
    assert!(
        null.file_type().is_char_device()
            && null.rdev() == rustix::fs::makedev(1, 3)
            && null.mode() & 0o777 == 0o666
    );
    // A directory that the layer did not list is as the one below; one that nobody listed is ordinary.
    assert_eq!((meta(&upper.join("etc")).mode() & 0o7777, meta(&upper.join("etc")).uid()), (0o750, 1000));
    assert_eq!(meta(&upper.join("etc/sub")).mode() & 0o7777, 0o755);

    // Known by every name; survives a restart; another image shares its layers; removal removes.
    let short = &image.id.hex()[..12];
    for name in ["web:1", "docker.io/library/web:1", image.id.as_str(), image.id.hex(), short] {
        assert_eq!(store.images.find(name).as_ref(), Some(&image), "{name}");
    }
    let reopened =
        Images::open(store.images.dir(), Limits::default(), Default::default(), HashMap::new()).unwrap();
    assert_eq!(reopened.list(), std::slice::from_ref(&image));
    store.assert_clean(2);
    assert!(store.images.pin("web:1", "container").is_some());
    store.images.remove("web:1").unwrap();
    store.assert_clean(2);
    store.images.unpin("container");
    store.assert_clean(0);
    store.images.remove("web:1").unwrap();
}

#[test]
fn root_docker_archives() {
    let store = Store::new();
    let layer = Tar::default().file("hello", b"hi").end();
    let config = serde_json::json!({
        "os": "linux", "architecture": manifest::architecture(), "config": {"User": "www"},
        "rootfs": {"diff_ids": [Digest::of(&layer)]},
    });
    let config = config.to_string();
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": ["web:v2"], "Layers": ["l/layer.tar"]}]);
    let archive = |config: &str| {
        let manifest = manifest.to_string();
        Tar::default()
            .file("c.json", config.as_bytes())
            .file("l/layer.tar", &layer)
            .file("manifest.json", manifest.as_bytes())
            .end()
    };
    let image = store.import(&archive(&config)).unwrap().remove(0);
    assert_eq!(image.id, Digest::of(config.as_bytes()));
    assert_eq!(image.to_cri().username, "www");
    assert_eq!(std::fs::read(store.images.lower_dirs(&image)[0].join("hello")).unwrap(), b"hi");
    // A tag moves to the newer image.
    let newer = store.import(&archive(&config.replace("www", "xyz"))).unwrap().remove(0);
    assert_eq!(store.images.find("web:v2").unwrap().id, newer.id);
    assert!(store.images.find(image.id.as_str()).unwrap().tags.is_empty());
    // A layer that is not what the config says.
    let wrong = config.replace(Digest::of(&layer).hex(), Digest::of(b"").hex());
    assert!(matches!(store.import(&archive(&wrong)), Err(Error::DigestMismatch { .. })));
    store.assert_clean(1);
}

#[test]
fn root_hostile_layers_are_confined() {
    let store = Store::new();
    let secret = store.dir.path().join("secret");
    std::fs::write(&secret, "untouched").unwrap();
    let outside = store.dir.path().to_str().unwrap();
    let up = "../".repeat(20);
    let check = |what: &str, tar: Tar, inside: Option<&str>| {
        let result = store.layer(tar);
        match inside {
            Some(path) => assert!(result.unwrap().join(path).symlink_metadata().is_ok(), "{what}"),
            None => assert!(result.is_err(), "{what}"),
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched", "{what}");
        assert_eq!(std::fs::read_dir(store.dir.path()).unwrap().count(), 2, "{what}");
    };
    check(
        "dots",
        Tar::default().file(&format!("{up}{outside}/evil"), b"x"),
        Some(&format!("{}/evil", &outside[1..])),
    );
    check(
        "absolute",
        Tar::default().file(&format!("{outside}/evil"), b"x"),
        Some(&format!("{}/evil", &outside[1..])),
    );
    check("a link out", Tar::default().link(Symlink, "out", outside).file("out/evil", b"x"), None);
    check("a link up", Tar::default().link(Symlink, "out", &up).file("out/evil", b"x"), Some("evil"));
    check(
        "over a link",
        Tar::default().link(Symlink, "f", &format!("{outside}/secret")).file("f", b"x"),
        Some("f"),
    );
    check("magic", Tar::default().link(Symlink, "m", "/proc/self/cwd").file("m/evil", b"x"), None);
    check("hard link out", Tar::default().link(Link, "h", &format!("{up}{outside}/secret")), None);
    let through = Tar::default().link(Symlink, "out", outside).link(Link, "h", "out/secret");
    check("hard link through a link", through, None);
    let whiteout = Tar::default().link(Symlink, "out", outside).file("out/.wh.secret", b"");
    check("whiteout through a link", whiteout, None);
    check("whiteout of nothing", Tar::default().file(".wh...", b""), None);
    check("a file as the root", Tar::default().file("..", b"x"), None);
    let replaced = Tar::default().dir("d/").file("d/f", b"").link(Symlink, "d", outside).file("d/evil", b"x");
    check("a directory replaced by a link", replaced, None);
    let mut xattr_layer = Vec::new();
    let mut builder = tar::Builder::new(&mut xattr_layer);
    let redirect = [("SCHILY.xattr.trusted.overlay.redirect", &b"/"[..]), ("SCHILY.xattr.user.ok", b"1")];
    builder.append_pax_extensions(redirect).unwrap();
    drop(builder);
    xattr_layer.truncate(xattr_layer.len() - 1024);
    let dir = store.layer(Tar(xattr_layer).dir("d/")).unwrap().join("d");
    assert_eq!(xattr(&dir, "trusted.overlay.redirect"), None);
}

#[test]
fn root_oversized_layers_are_refused() {
    let limits = Limits { bytes: 4 << 20, entries: 1000, ratio: 200 };
    let store = Store::with(limits);
    let refused =
        |result: Result<PathBuf>| assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    let many = (0..1001).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), b""));
    refused(store.layer(many));
    refused(store.layer(Tar::default().raw(
        b"name",
        tar::EntryType::GNULongName,
        b"",
        &vec![b'a'; 2 << 20],
        0,
    )));
    let bomb = gzip(&Tar::default().file("bomb", &vec![0; 8 << 20]).end());
    assert!(matches!(store.import(&layout("test", &[bomb])), Err(Error::TooLarge { .. })));
    let truncated = gzip(&Tar::default().file("f", &[7; 9999]).end());
    let cut = truncated[..truncated.len() / 2].to_vec();
    let mut archive = layout("test", std::slice::from_ref(&truncated));
    // The same names, but half of the layer is zeros.
    let at = archive.windows(cut.len()).position(|window| window == cut).unwrap();
    archive[at + cut.len()..at + truncated.len()].fill(0);
    assert!(store.import(&archive).is_err());
    for archive in [&b""[..], b"garbage", &[0; 10240], &Tar::default().file("x", b"").end()] {
        assert!(store.import(archive).is_err());
    }
    assert_eq!(
        store
            .layer(Tar::default().file("zeros", &vec![0; 1 << 20]))
            .unwrap()
            .join("zeros")
            .metadata()
            .unwrap()
            .blocks(),
        0
    );
    let mode = std::fs::metadata(store.images.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    store.assert_clean(1);
}

/// What a pull has left that nobody took up again goes when the store is opened and when it is tidied; what is younger
/// is what the next pull begins with.
#[test]
fn layers_fetched_in_part_do_not_stay_for_ever() {
    let mut store = Store::new();
    let ingest = store.images.dir().join("ingest");
    let leave = |name: &str, age: u64| {
        let file = std::fs::File::create(ingest.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age * 3600)).unwrap();
    };
    let left = || {
        let entries = std::fs::read_dir(&ingest).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    leave("old", 25);
    leave("young", 23);
    store.images.remove("nothing").unwrap();
    assert_eq!(left(), ["old", "young"]);
    let image = store.import(&layout("test", &[Tar::default().end()])).unwrap().remove(0);
    store.images.remove(image.id.as_str()).unwrap();
    assert_eq!(left(), ["young"]);

    leave("old", 25);
    // By a clock that was wrong.
    let file = std::fs::File::create(ingest.join("later")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    let dir = store.images.dir().to_owned();
    store.images = Images::open(&dir, Limits::default(), Default::default(), HashMap::new()).unwrap();
    assert_eq!(left(), ["later", "young"]);
}
