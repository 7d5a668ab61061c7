//! Registries: the real one from the distribution's package, and one of our own that misbehaves as told.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shoal_runtime::image::{
    Digest, ImageStore, Limits, Reference,
    progress::{Progress, Step},
    registry::{Login, Pulled, Registries, RegistryConfig, RegistryError},
};

use crate::support::{Sandbox, Tar, TestImage, gzip, has, host_architecture};

fn quiet() -> Arc<Progress> {
    Arc::new(|_| {})
}

fn registries() -> Registries {
    Registries::new(RegistryConfig::default()).unwrap()
}

async fn pull(store: &Arc<ImageStore>, name: &str) -> Result<Pulled, RegistryError> {
    registries().pull(store, &name.parse().unwrap(), None, &quiet()).await
}

/// The registry of the package `docker-registry`, on the loopback.
struct RealRegistry {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl RealRegistry {
    fn start(htpasswd: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut config = json!({
            "version": 0.1, "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": address.to_string() },
        });
        if let Some(users) = htpasswd {
            fs::write(directory.path().join("htpasswd"), users).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "here", "path": directory.path().join("htpasswd") } });
        }
        // JSON is YAML.
        fs::write(directory.path().join("config.yml"), config.to_string()).unwrap();
        let log = || Stdio::from(fs::File::create(directory.path().join("log")).unwrap());
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(directory.path().join("config.yml")).stdout(log()).stderr(log());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, address, directory }
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Puts an image there by `skopeo`.
    fn push(&self, image: &TestImage, name: &str, login: &[&str]) {
        let archive = self.directory.path().join("image.tar");
        fs::write(&archive, image.docker_save(&["x:1"])).unwrap();
        let pushed = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .args(login)
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{}", self.name(name)))
            .output()
            .unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }

    fn put_manifest(&self, path: &str, media_type: &str, document: &[u8]) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "PUT /v2/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
            document.len()
        )
        .unwrap();
        stream.write_all(document).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn layered(content: &str) -> TestImage {
    TestImage::new([
        Tar::new().file("base", "b").end(),
        Tar::new().file("big", vec![7; 3 << 20]).end(),
        Tar::new().file("x", content).end(),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_by_tag_and_by_digest_from_a_real_registry() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let real = RealRegistry::start(None);
    real.push(&layered("one"), "team/web:1", &[]);
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let name = real.name("team/web:1");
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = {
        let steps = Arc::clone(&steps);
        Arc::new(move |step| steps.lock().unwrap().push(step)) as Arc<Progress>
    };
    let pulled = registries().pull(&store, &name.parse().unwrap(), None, &told).await.unwrap();
    assert!(pulled.is_newer);
    assert_eq!(store.resolve(&name), Some(pulled.digest));
    let image = store.image(&pulled.digest).unwrap();
    assert_eq!((image.layers.len(), &image.config_digest), (3, &Digest::of(&layered("one").config())));
    let steps = std::mem::take(&mut *steps.lock().unwrap());
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Complete(_))).count(), 4);
    let is_whole =
        |step: &Step| matches!(step, Step::Downloading { done_bytes, total_bytes, .. } if done_bytes == total_bytes);
    assert!(steps.iter().any(is_whole));
    // Once more: nothing to fetch. The tag moves: only what differs. By digest: the old one still.
    assert!(!pull(&store, &name).await.unwrap().is_newer);
    real.push(&layered("two"), "team/web:1", &[]);
    let reference: Reference = name.parse().unwrap();
    let resolved = registries().resolve(&reference, None).await.unwrap();
    let moved = pull(&store, &name).await.unwrap();
    assert_eq!(resolved.digest, moved.digest);
    assert_ne!(moved.digest, pulled.digest);
    let pinned = real.name(&format!("team/web@{}", pulled.digest));
    assert_eq!(pull(&store, &pinned).await.unwrap().digest, pulled.digest);
    let absent = pull(&store, &real.name("team/web:9")).await.unwrap_err();
    assert!(matches!(absent, RegistryError::NotFound { .. }), "{absent}");
    sandbox.assert_tidy();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_platforms_the_one_for_this_machine_is_taken() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let real = RealRegistry::start(None);
    let mut parts = Vec::new();
    let foreign = if host_architecture() == "amd64" { "arm64" } else { "amd64" };
    for (tag, architecture) in [("foreign", foreign), ("own", host_architecture())] {
        let mut image = layered(tag);
        image.architecture = architecture;
        real.push(&image, &format!("web:{tag}"), &[]);
        let resolved = registries().resolve(&real.name(&format!("web:{tag}")).parse().unwrap(), None).await.unwrap();
        parts.push(json!({
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": resolved.digest,
            "size": resolved.size_bytes.unwrap(), "platform": { "os": "linux", "architecture": architecture },
        }));
    }
    let media_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index = |parts: &[Value]| {
        json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": parts }).to_string().into_bytes()
    };
    real.put_manifest("web/manifests/all", media_type, &index(&parts));
    real.put_manifest("web/manifests/foreign-only", media_type, &index(&parts[..1]));
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let pulled = pull(&store, &real.name("web:all")).await.unwrap();
    assert_eq!(pulled.digest, Digest::of(&index(&parts)));
    // It goes by the index's digest and by its own, here and after a restart, and stays when others are pruned.
    let own: Digest = parts[1]["digest"].as_str().unwrap().parse().unwrap();
    for text in [real.name("web:all"), format!("web@{}", pulled.digest), own.to_string()] {
        assert_eq!(store.resolve(&text), Some(own), "{text}");
    }
    assert_eq!(store.image(&pulled.digest).unwrap(), store.image(&own).unwrap());
    store.prune(&Default::default()).unwrap();
    drop(store);
    let store = Arc::new(sandbox.store());
    assert_eq!(store.resolve(&pulled.digest.to_string()), Some(own));
    assert!(store.contains_blob(&pulled.digest));
    let refused = pull(&store, &real.name("web:foreign-only")).await.unwrap_err();
    assert!(matches!(&refused, RegistryError::Platform { found, .. } if found.contains(foreign)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_wants_a_login_gets_it_from_the_file_or_the_caller() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    // anna:geheim, by bcrypt.
    let real = RealRegistry::start(Some("anna:$2y$05$u9A.GGjzSldhHLNRZjAEEeJO4ZmfD6h40huU1jReOirK0vCE3pLxW\n"));
    real.push(&layered("one"), "web:1", &["--dest-creds=anna:geheim"]);
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let name = real.name("web:1");
    let denied = pull(&store, &name).await.unwrap_err();
    assert!(matches!(denied, RegistryError::Denied { .. }) && denied.to_string().contains("shoal login"), "{denied}");
    let login = |password: &str| Login { username: "anna".into(), password: password.into() };
    let host = real.address.to_string();
    assert!(matches!(registries().check_login(&host, &login("falsch")).await, Err(RegistryError::Denied { .. })));
    registries().check_login(&host, &login("geheim")).await.unwrap();
    assert!(store.list().is_empty());
    let file = real.directory.path().join("config.json");
    // base64 of anna:geheim
    fs::write(&file, json!({ "auths": { &host: { "auth": "YW5uYTpnZWhlaW0=" } } }).to_string()).unwrap();
    let from_file = Registries::new(RegistryConfig { logins: Some(file), ..RegistryConfig::default() }).unwrap();
    from_file.pull(&store, &name.parse().unwrap(), None, &quiet()).await.unwrap();
    let given = registries().pull(&store, &name.parse().unwrap(), Some(&login("geheim")), &quiet()).await.unwrap();
    assert!(!given.is_newer);
}

/// One request: method and path, the byte that it wants first, and how it shows who asks.
struct Asked {
    line: String,
    from: Option<usize>,
    authorization: Option<String>,
}

/// A registry that answers as it is told, one request per connection.
struct FakeRegistry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeRegistry {
    fn start(answer: impl Fn(SocketAddr, &Asked, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(asked) = read_request(&stream) else { return };
                    let earlier = {
                        let mut log = log.lock().unwrap();
                        let earlier = log.iter().filter(|line| **line == asked.line).count();
                        log.push(asked.line.clone());
                        earlier
                    };
                    // The other side may hang up as soon as it has seen enough.
                    let _ = (&stream).write_all(&answer(address, &asked, earlier));
                });
            }
        });
        Self { address, asked }
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    fn count(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut first = [0];
    // A TLS client says something else than a letter.
    if stream.peek(&mut first).ok()? == 0 || !first[0].is_ascii_uppercase() {
        return None;
    }
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next()?.ok()?.trim_end_matches(" HTTP/1.1").to_owned();
    let (mut from, mut authorization) = (None, None);
    for header in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(Asked { line, from, authorization })
}

fn answer(status: &str, headers: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn whole(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "", body.len(), body)
}

/// An image as a registry has it: its manifest, and blobs by digest.
#[derive(Clone)]
struct Published {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Published {
    fn new() -> Self {
        let body: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let image = TestImage::new([Tar::new().file("x", body).end()]);
        let (config, layer) = (image.config(), gzip(&image.layers[0]));
        let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar+gzip", &layer)],
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layer }
    }

    /// What an honest registry answers.
    fn answer(&self, asked: &Asked) -> Vec<u8> {
        let ends = |bytes: &[u8]| asked.line.ends_with(&Digest::of(bytes).to_string());
        if asked.line.contains("/manifests/") {
            return whole(&self.manifest);
        }
        match [&self.config, &self.layer].into_iter().find(|blob| ends(blob)) {
            None => answer("404 Not Found", "", 0, b""),
            Some(blob) => match asked.from {
                Some(from) => {
                    let range = format!("content-range: bytes {from}-{}/{}\r\n", blob.len() - 1, blob.len());
                    answer("206 Partial Content", &range, blob.len() - from, &blob[from..])
                }
                None => whole(blob),
            },
        }
    }

    fn is_layer(&self, asked: &Asked) -> bool {
        asked.line.ends_with(&Digest::of(&self.layer).to_string())
    }
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_stopped() {
    for honours_ranges in [true, false] {
        let image = Published::new();
        let published = image.clone();
        let fake = FakeRegistry::start(move |_, asked, earlier| {
            let mut bytes = match (published.is_layer(asked), honours_ranges) {
                (true, false) => whole(&published.layer),
                _ => published.answer(asked),
            };
            // Twice it breaks off: after two thirds, then (of the rest, or of all) after nine tenths.
            if published.is_layer(asked) && earlier < 2 {
                bytes.truncate(bytes.len() * [66, 90][earlier] / 100);
            }
            bytes
        });
        let sandbox = Sandbox::new();
        let store = Arc::new(sandbox.store());
        let pulled = pull(&store, &fake.name("web:1")).await.unwrap();
        assert_eq!(pulled.digest, Digest::of(&image.manifest));
        assert_eq!(fake.count(&Digest::of(&image.layer).to_string()), 3);
        sandbox.assert_tidy();
    }
}

/// Pulls from a registry that answers layers so, and returns the error. Nothing may be left but whole blobs.
async fn failing(
    layer: impl Fn(&Published, &Asked, usize) -> Vec<u8> + Send + Sync + 'static,
) -> (RegistryError, usize) {
    let image = Published::new();
    let published = image.clone();
    let fake = FakeRegistry::start(move |_, asked, earlier| match published.is_layer(asked) {
        true => layer(&published, asked, earlier),
        false => published.answer(asked),
    });
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let error = pull(&store, &fake.name("web:1")).await.unwrap_err();
    assert!(store.list().is_empty() && !store.contains_blob(&Digest::of(&image.layer)));
    // The other blob's last write may still be under way when the failure is told.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(sandbox.store_path().join("tmp")).unwrap().next().is_some() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sandbox.assert_tidy();
    (error, fake.count(&Digest::of(&image.layer).to_string()))
}

#[tokio::test]
async fn lies_about_sizes_and_bytes_are_found_out() {
    let (error, asked) = failing(|image, _, _| whole(&image.layer[1..])).await;
    assert!(matches!(error, RegistryError::Size { .. }), "{error}");
    assert_eq!(asked, 1);
    let longer = |image: &Published| [&image.layer[..], &[0; 5 << 20]].concat();
    let (error, _) = failing(move |image, _, _| whole(&longer(image))).await;
    assert!(matches!(error, RegistryError::Size { .. }), "{error}");
    // Without a length, and longer or shorter than the manifest says.
    let (error, _) =
        failing(move |image, _, _| [&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &longer(image)].concat())
            .await;
    assert!(matches!(error, RegistryError::Size { .. }), "{error}");
    let (error, _) =
        failing(|image, _, _| [&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &image.layer[..9]].concat()).await;
    assert!(matches!(error, RegistryError::Size { .. }), "{error}");
    let (error, _) = failing(|image, _, _| whole(&vec![1; image.layer.len()])).await;
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    // It breaks again and again at the same byte: an end, not a loop.
    let (error, asked) = failing(|image, _, _| answer("200 OK", "", image.layer.len(), b"")).await;
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(asked, 5);
}

#[tokio::test]
async fn refusals_are_told_apart_and_only_what_may_pass_is_tried_again() {
    let cases: [(&str, &str, usize); 5] = [
        ("404 Not Found", "has no image", 1),
        ("403 Forbidden", "refuses access", 1),
        ("500 Internal Server Error", "answers 500", 4),
        ("429 Too Many Requests", "asked too often", 4),
        ("418 I'm a teapot", "answers 418", 1),
    ];
    for (status, words, tries) in cases {
        let fake = FakeRegistry::start(move |_, _, _| answer(status, "", 0, b""));
        let sandbox = Sandbox::new();
        let error = pull(&Arc::new(sandbox.store()), &fake.name("web:1")).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(fake.count("/manifests/1"), tries, "{status}");
        sandbox.assert_empty();
    }
    // It says when to come again: in a moment is waited for, in an hour is told.
    let image = Published::new();
    let busy = FakeRegistry::start(move |_, asked, earlier| match earlier {
        0 => answer("429 Too Many Requests", "retry-after: 1\r\n", 0, b""),
        _ => image.answer(asked),
    });
    let sandbox = Sandbox::new();
    pull(&Arc::new(sandbox.store()), &busy.name("web:1")).await.unwrap();
    let fake = FakeRegistry::start(|_, _, _| answer("429 Too Many Requests", "retry-after: 3600\r\n", 0, b""));
    let sandbox = Sandbox::new();
    let error = pull(&Arc::new(sandbox.store()), &fake.name("web:1")).await.unwrap_err();
    assert!(error.to_string().contains("3600 s"), "{error}");
    assert_eq!(fake.count("/manifests/1"), 1);
    // Nobody there at all.
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let error = pull(&Arc::new(Sandbox::new().store()), &format!("{gone}/web:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_manifest_is_not_taken_into_memory() {
    let fake = FakeRegistry::start(|_, _, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        bytes.resize(8 << 20, b' ');
        bytes
    });
    let sandbox = Sandbox::new();
    let limits = Limits { document_bytes_max: 1 << 20, ..Limits::default() };
    let error = pull(&Arc::new(sandbox.store_with(limits)), &fake.name("web:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Document(_)), "{error}");
    sandbox.assert_empty();
}

/// The token service of the registry gives a token to who asks for it with the right password, or to anybody.
#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_shown_to_it() {
    for anonymous in [true, false] {
        let image = Published::new();
        let fake = FakeRegistry::start(move |address, asked, _| {
            if asked.line.starts_with("GET /token?") {
                assert!(
                    asked.line.contains("service=fake") && asked.line.contains("scope=repository%3Ateam%2Fweb%3Apull"),
                    "{}",
                    asked.line
                );
                // anna:geheim
                let taken = anonymous || asked.authorization.as_deref() == Some("Basic YW5uYTpnZWhlaW0=");
                return if taken {
                    whole(br#"{"token":"abc.def.ghi"}"#)
                } else {
                    answer("401 Unauthorized", "", 0, b"")
                };
            }
            if asked.authorization.as_deref() != Some("Bearer abc.def.ghi") {
                let challenge =
                    format!("www-authenticate: Bearer realm=\"http://{address}/token\",service=\"fake\"\r\n");
                return answer("401 Unauthorized", &challenge, 0, b"");
            }
            image.answer(asked)
        });
        let name: Reference = fake.name("team/web:1").parse().unwrap();
        let sandbox = Sandbox::new();
        let store = Arc::new(sandbox.store());
        let login = |password: &str| Login { username: "anna".into(), password: password.into() };
        let wrong = registries().pull(&store, &name, Some(&login("falsch")), &quiet()).await;
        assert_eq!(wrong.is_ok(), anonymous);
        registries().pull(&store, &name, Some(&login("geheim")), &quiet()).await.unwrap();
    }
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_next_when_it_has_nothing() {
    let image = Published::new();
    let empty = FakeRegistry::start(|_, _, _| answer("404 Not Found", "", 0, b""));
    let mirror = FakeRegistry::start(move |_, asked, _| image.answer(asked));
    let mirrors = vec![format!("http://{}", empty.address), format!("http://{}/", mirror.address)];
    let registries = Registries::new(RegistryConfig { mirrors, ..RegistryConfig::default() }).unwrap();
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let pulled = registries.pull(&store, &"web:1".parse().unwrap(), None, &quiet()).await.unwrap();
    assert_eq!(store.resolve("web:1"), Some(pulled.digest));
    assert_eq!((empty.count("/v2/library/web/manifests/1"), mirror.count("/v2/library/web/manifests/1")), (1, 1));
}

/// What is being fetched is not pruned, and what came whole need not come again.
#[tokio::test]
async fn a_failed_pull_goes_on_from_the_blobs_that_came() {
    let image = Published::new();
    let (published, works) = (image.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let sandbox = Sandbox::new();
    let store = Arc::new(sandbox.store());
    let (pruning, working) = (Arc::clone(&store), Arc::clone(&works));
    let fake = FakeRegistry::start(move |_, asked, _| {
        if published.is_layer(asked) {
            pruning.prune(&Default::default()).unwrap();
            if !working.load(std::sync::atomic::Ordering::Relaxed) {
                // The configuration comes meanwhile.
                thread::sleep(Duration::from_millis(700));
                return answer("404 Not Found", "", 0, b"");
            }
        }
        published.answer(asked)
    });
    let name = fake.name("web:1");
    assert!(pull(&store, &name).await.is_err());
    works.store(true, std::sync::atomic::Ordering::Relaxed);
    pull(&store, &name).await.unwrap();
    assert_eq!(fake.count(&Digest::of(&image.config).to_string()), 1);
    // After the fetch nothing holds it any more.
    store.remove(&Digest::of(&image.manifest)).unwrap();
    assert_eq!(store.prune(&Default::default()).unwrap().blobs.len(), 3);
}
