//! Transports on loopback: members, strangers, joiners, crashes and garbage, all over real sockets.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use super::*;
use crate::identity::admission::{self, AdmissionError, Admitted, Desk, Refusal};
use crate::identity::{NodeKey, Role, Secret, Token};

/// Nothing below takes a fraction of this; it only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// One node: an identity, a transport, and admission with a desk that knows one name.
pub(crate) struct Node {
    identity: Arc<Identity>,
    pub(crate) transport: Transport,
    events: mpsc::Receiver<TransportEvent>,
    _data: tempfile::TempDir,
}

struct OneName(NodeId, SocketAddr);

impl Desk for OneName {
    fn name_taken(&self, name: &str, node: &NodeId) -> bool {
        name == "taken" && *node != self.0
    }

    fn members(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        vec![(self.0, vec![self.1])]
    }
}

impl Node {
    fn start(identity: Identity, data: tempfile::TempDir) -> Self {
        Self::start_on(Arc::new(identity), data, LOOPBACK)
    }

    fn start_on(identity: Arc<Identity>, data: tempfile::TempDir, listen: SocketAddr) -> Self {
        let (visitors, queue) = admission::channel();
        let (transport, events) = Transport::start(&identity, listen, visitors).expect("starts");
        let desk = Arc::new(OneName(identity.node_id(), transport.listen_address()));
        tokio::spawn(admission::serve(identity.clone(), desk, queue));
        Self { identity, transport, events, _data: data }
    }

    pub(crate) fn founder() -> Self {
        let data = tempfile::tempdir().expect("tempdir");
        Self::start(Identity::found(data.path(), "founder").expect("founds"), data)
    }

    /// Joins by the real exchange and starts.
    pub(crate) async fn joined(seed: &Self, name: &str) -> Self {
        let (key, token) = (NodeKey::generate(), seed.token());
        let joining = [seed.seed()];
        let joining = admission::join_any(&joining, &token, &key, name, |_, _| {});
        let admitted = timeout(PATIENCE, joining).await.expect("in time").expect("admitted");
        let data = tempfile::tempdir().expect("tempdir");
        Self::start(Identity::adopt(data.path(), name, key, &admitted).expect("adopts"), data)
    }

    async fn admit(&self, key: &NodeKey, name: &str) -> Result<Admitted, AdmissionError> {
        admission::join(&self.seed(), &self.token(), key, name).await
    }

    pub(crate) fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn address(&self) -> SocketAddr {
        self.transport.listen_address()
    }

    fn seed(&self) -> String {
        self.address().to_string()
    }

    fn token(&self) -> Token {
        self.identity.token(Role::Manager).expect("a manager")
    }

    pub(crate) fn knows(&self, others: &[&Self]) {
        self.transport.set_addresses(others.iter().map(|other| (other.id(), vec![other.address()])).collect());
    }

    async fn event(&mut self) -> TransportEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the transport lives")
    }

    /// Waits for an event that fits, passing over others.
    async fn until<T>(&mut self, mut fits: impl FnMut(TransportEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = fits(self.event().await) {
                return found;
            }
        }
    }

    async fn message(&mut self) -> (NodeId, Vec<u8>) {
        self.until(|event| match event {
            TransportEvent::Message { from, bytes } => Some((from, bytes)),
            _ => None,
        })
        .await
    }

    async fn lost(&mut self, node: NodeId) {
        self.until(|event| (event == TransportEvent::Lost(node)).then_some(())).await;
    }
}

/// Sends until it arrives, as the core would.
async fn talk(from: &Node, to: &mut Node, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{text} never arrived");
        from.transport.send(to.id(), text.as_bytes().to_vec());
        if let Ok((sender, bytes)) = timeout(Duration::from_secs(1), to.message()).await
            && bytes == text.as_bytes()
        {
            assert_eq!(sender, from.id());
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_exchange_messages_in_order_over_one_connection() {
    let mut one = Node::founder();
    let mut two = Node::joined(&one, "two").await;
    one.knows(&[&two]);
    for number in 0..500u32 {
        one.transport.send(two.id(), number.to_be_bytes().to_vec());
    }
    assert_eq!(two.event().await, TransportEvent::Connected(one.id(), one.address()));
    for number in 0..500u32 {
        assert_eq!(two.message().await, (one.id(), number.to_be_bytes().to_vec()));
    }
    two.transport.send(one.id(), vec![7; MESSAGE_BYTES_MAX]);
    assert_eq!(one.event().await, TransportEvent::Connected(two.id(), two.address()));
    assert_eq!(one.message().await.1.len(), MESSAGE_BYTES_MAX);
    assert_eq!(one.transport.peers(), BTreeMap::from([(two.id(), two.address())]));
    let traffic = one.transport.traffic();
    assert!(traffic.received_bytes > MESSAGE_BYTES_MAX as u64 && traffic.sent_bytes > 500 * 8, "{traffic:?}");
    assert_eq!((traffic.sent_messages, traffic.received_messages, traffic.dropped_messages), (500, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_is_dialled_by_address_and_both_learn_who_the_other_is() {
    let mut one = Node::founder();
    let mut two = Node::joined(&one, "two").await;
    two.transport.dial(one.address());
    assert_eq!(two.event().await, TransportEvent::Connected(one.id(), one.address()));
    assert_eq!(one.event().await, TransportEvent::Connected(two.id(), two.address()));
    let nobody = find_port(LOOPBACK).expect("a free port");
    two.transport.dial(nobody);
    match two.event().await {
        TransportEvent::SeedFailed { address, reason } => {
            assert_eq!(address, nobody);
            assert!(reason.contains("refused"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_from_both_ends_at_once_settle() {
    let mut one = Node::founder();
    let mut two = Node::joined(&one, "two").await;
    one.knows(&[&two]);
    two.knows(&[&one]);
    for round in 0..5 {
        let (there, back) = (format!("there {round}"), format!("back {round}"));
        one.transport.send(two.id(), there.clone().into_bytes());
        two.transport.send(one.id(), back.clone().into_bytes());
        talk(&one, &mut two, &there).await;
        talk(&two, &mut one, &back).await;
        one.transport.close(two.id());
        one.until(|event| (event == TransportEvent::Closed(two.id())).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_lost_at_once_and_its_port_refuses() {
    let mut one = Node::founder();
    let mut two = Node::joined(&one, "two").await;
    let three = Node::joined(&one, "three").await;
    one.knows(&[&two, &three]);
    two.knows(&[&one, &three]);
    for node in [&one, &two] {
        node.transport.send(three.id(), b"hello".to_vec());
    }
    let id = three.id();
    for node in [&mut one, &mut two] {
        node.until(|event| matches!(event, TransportEvent::Connected(node, _) if node == id).then_some(())).await;
    }
    drop(three);
    for node in [&mut one, &mut two] {
        node.lost(id).await;
        let refused = node.until(|event| match event {
            TransportEvent::DialFailed { to, refused } => Some((to, refused)),
            _ => None,
        });
        assert_eq!(refused.await, (id, true));
    }
    one.transport.send(id, b"too late".to_vec());
    talk(&one, &mut two, "the others still talk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_on_the_same_port_is_found_again() {
    let mut one = Node::founder();
    let two = Node::joined(&one, "two").await;
    one.knows(&[&two]);
    one.transport.send(two.id(), b"first".to_vec());
    one.until(|event| matches!(event, TransportEvent::Connected(..)).then_some(())).await;
    let Node { identity, transport, events, _data } = two;
    let (id, address) = (identity.node_id(), transport.listen_address());
    drop((transport, events));
    one.lost(id).await;
    let deadline = Instant::now() + PATIENCE;
    while TcpListener::bind(address).is_err() {
        assert!(Instant::now() < deadline, "the port stays busy");
        sleep(Duration::from_millis(50)).await;
    }
    let mut again = Node::start_on(identity, _data, address);
    talk(&one, &mut again, "welcome back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_shoal_is_refused_on_both_sides() {
    let mut ours = Node::founder();
    let friend = Node::joined(&ours, "friend").await;
    let mut theirs = Node::founder();
    theirs.transport.dial(ours.address());
    let reason = |event| match event {
        TransportEvent::Refused { reason, .. } => Some(reason),
        TransportEvent::Connected(..) | TransportEvent::Message { .. } => panic!("a stranger came in: {event:?}"),
        _ => None,
    };
    let (here, there) = (ours.until(reason).await, theirs.until(reason).await);
    assert!(here.contains("another shoal"), "{here}");
    assert!(there.contains("not of this shoal"), "{there}");
    friend.knows(&[&ours]);
    talk(&friend, &mut ours, "members are still welcome").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_counts_as_refused() {
    let mut one = Node::founder();
    let two = Node::joined(&one, "two").await;
    let ghost = NodeKey::generate().node_id();
    one.transport.set_addresses(BTreeMap::from([(ghost, vec![two.address()])]));
    one.transport.send(ghost, b"anybody?".to_vec());
    let failed = one.until(|event| match event {
        TransportEvent::DialFailed { to, refused } => Some((to, refused)),
        _ => None,
    });
    assert_eq!(failed.await, (ghost, true));
    one.transport.send(NodeId([9; 32]), b"without an address".to_vec());
    let failed = one.until(|event| match event {
        TransportEvent::DialFailed { to, refused } => Some((to, refused)),
        _ => None,
    });
    assert_eq!(failed.await, (NodeId([9; 32]), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_on_the_port_do_not_keep_members_out() {
    let one = Node::founder();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(one.address()).expect("connects"));
    }
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 70_000], vec![0x16, 3, 1, 0xff, 0xff], vec![0xff; 300]]
    {
        let mut socket = TcpStream::connect(one.address()).expect("connects");
        // The other end may hang up in the middle, which is what it is for.
        let _ = socket.write_all(&garbage);
        silent.push(socket);
    }
    // From another source address, since one address has only so many handshakes at a time.
    let listen = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let key = NodeKey::generate();
    let (_, leaf) = one.identity.issue(&key.signing_request().expect("request"), Role::Manager).expect("issues");
    let admitted = Admitted {
        leaf,
        ca: one.identity.ca().clone(),
        authority: None,
        data_key: one.identity.data_key().clone(),
        members: Vec::new(),
    };
    let data = tempfile::tempdir().expect("tempdir");
    let identity = Arc::new(Identity::adopt(data.path(), "two", key, &admitted).expect("adopts"));
    let mut two = Node::start_on(identity, data, listen);
    one.knows(&[&two]);
    talk(&one, &mut two, "through the noise").await;
    drop(silent);
    let mut late = Node::joined(&one, "late").await;
    one.knows(&[&two, &late]);
    talk(&one, &mut late, "and after it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_a_foreign_token_and_a_taken_name_are_refused_with_the_reason() {
    let (one, other) = (Node::founder(), Node::founder());
    let key = NodeKey::generate();
    let wrong = Token { secret: Secret::generate(), ..one.token() };
    match admission::join(&one.seed(), &wrong, &key, "two").await {
        Err(AdmissionError::Refused { refusal: Refusal::WrongToken, .. }) => {}
        other => panic!("{other:?}"),
    }
    let error = admission::join(&other.seed(), &one.token(), &key, "two").await.expect_err("another shoal");
    assert!(matches!(error, AdmissionError::OtherShoal { .. }), "{error}");
    assert!(error.is_definite() && error.to_string().contains("another shoal"));
    for (name, expected) in [("taken", Refusal::NameTaken { name: "taken".into() }), ("no good", Refusal::BadName)] {
        match one.admit(&key, name).await {
            Err(AdmissionError::Refused { refusal, .. }) => assert_eq!(refusal, expected),
            other => panic!("{other:?}"),
        }
    }
    let admitted = one.admit(&key, "two").await.expect("the right token and a free name");
    assert_eq!(admitted.members, [(one.id(), vec![one.address()])]);
    assert!(admitted.authority.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_whose_clock_is_far_off_is_told_by_how_much() {
    let one = Node::founder();
    let (key, token) = (NodeKey::generate(), one.token());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now_ms = u64::try_from(now.as_millis()).expect("fits");
    for (wall_ms, words) in [(now_ms - 7_200_000, "s behind"), (now_ms + 7_200_000, "s ahead of"), (0, "s behind")] {
        let error = admission::join_at(&one.seed(), &token, &key, "two", wall_ms).await.expect_err("the clock is off");
        assert!(matches!(&error, AdmissionError::Refused { refusal: Refusal::Clock { .. }, .. }), "{error}");
        assert!(error.is_definite() && error.to_string().contains(words), "{error}");
    }
    admission::join_at(&one.seed(), &token, &key, "two", now_ms - 30_000).await.expect("half a minute is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_token_brings_no_authority() {
    let one = Node::founder();
    let token = one.identity.token(Role::Worker).expect("a manager has it");
    let key = NodeKey::generate();
    let admitted = admission::join(&one.seed(), &token, &key, "two").await.expect("admitted");
    assert!(admitted.authority.is_none());
    assert_eq!(crate::identity::authority::role_of(&admitted.leaf), Some(Role::Worker));
    let data = tempfile::tempdir().expect("tempdir");
    let worker = Node::start(Identity::adopt(data.path(), "two", key, &admitted).expect("adopts"), data);
    let error = admission::join(&worker.seed(), &token, &NodeKey::generate(), "three").await.expect_err("a worker");
    assert!(matches!(error, AdmissionError::Refused { refusal: Refusal::NotManager, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_goes_round_the_seeds_until_one_answers_and_ends_when_all_refuse() {
    let one = Node::founder();
    let nobody = find_port(LOOPBACK).expect("a free port").to_string();
    let key = NodeKey::generate();
    let mut failures = Vec::new();
    let seeds = [nobody.clone(), one.seed()];
    let token = one.token();
    let joined = admission::join_any(&seeds, &token, &key, "two", |seed, error| {
        failures.push((seed.to_owned(), error.to_string()));
    });
    joined.await.expect("the second seed answers");
    assert_eq!(failures.len(), 1);
    assert!(failures[0].1.contains("cannot reach the seed"), "{failures:?}");
    let wrong = Token { secret: Secret::generate(), ..one.token() };
    let error = admission::join_any(&[one.seed()], &wrong, &key, "two", |_, _| {}).await.expect_err("all refuse");
    assert!(error.to_string().contains("token is wrong"), "{error}");
    let seeds = [nobody];
    let hopeless = admission::join_any(&seeds, &token, &key, "two", |_, _| {});
    timeout(Duration::from_secs(2), hopeless).await.expect_err("an unreachable seed is tried for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_that_is_no_shoal_is_called_that() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.expect("listens");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail.example ESMTP ready\r\n").await;
        }
    });
    let token = Token { fingerprint: [1; 32], secret: Secret::generate() };
    let error = admission::join(&address.to_string(), &token, &NodeKey::generate(), "x").await.expect_err("mail");
    assert!(matches!(error, AdmissionError::NotAShoal { .. } | AdmissionError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_flag_to_change_it() {
    let one = Node::founder();
    let (visitors, _queue) = admission::channel();
    let error = Transport::start(&one.identity, one.address(), visitors).expect_err("in use");
    let text = error.to_string();
    assert!(text.contains(&one.seed()) && text.contains("--listen"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_arrives_whole_from_any_offset_and_a_missing_one_is_said_to_be_missing() {
    let one = Node::founder();
    let two = Node::joined(&one, "two").await;
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("blob");
    let bytes: Vec<u8> = (0..20u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&path, &bytes).expect("writes");
    let length = bytes.len() as u64;
    one.transport.serve_blobs(Arc::new(move |digest: &str| {
        (digest == "sha256:abc").then(|| (std::fs::File::open(&path).expect("opens"), length).into())
    }));
    two.knows(&[&one]);
    for offset in [0, 1, length - 1, length] {
        let mut blob = timeout(PATIENCE, two.transport.fetch_blob(one.id(), "sha256:abc", offset))
            .await
            .expect("in time")
            .expect("found");
        let mut received = Vec::new();
        timeout(PATIENCE, blob.read_to_end(&mut received)).await.expect("in time").expect("whole");
        assert_eq!(Sha256::digest(&received), Sha256::digest(&bytes[offset as usize..]), "from {offset}");
    }
    let missing = two.transport.fetch_blob(one.id(), "../../etc/passwd", 0).await.expect_err("missing");
    assert!(matches!(missing, crate::blobs::BlobError::NotFound { .. }), "{missing}");
    let behind = two.transport.fetch_blob(one.id(), "sha256:abc", length + 1).await.expect_err("behind the end");
    assert!(matches!(behind, crate::blobs::BlobError::Failed { .. }), "{behind}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_dies_in_the_middle_of_a_blob_is_an_error_and_not_a_short_blob() {
    let one = Node::founder();
    let two = Node::joined(&one, "two").await;
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("blob");
    let file = std::fs::File::create(&path).expect("creates");
    file.set_len(1 << 30).expect("a sparse gigabyte");
    one.transport
        .serve_blobs(Arc::new(move |_: &str| Some((std::fs::File::open(&path).expect("opens"), 1 << 30).into())));
    two.knows(&[&one]);
    let mut blob = two.transport.fetch_blob(one.id(), "sha256:big", 0).await.expect("found");
    let mut some = vec![0; 1 << 20];
    blob.read_exact(&mut some).await.expect("the first megabyte");
    drop(one);
    let end = timeout(PATIENCE, tokio::io::copy(&mut blob, &mut tokio::io::sink())).await.expect("in time");
    assert!(end.is_err());
}

/// A blob that is still coming goes on to the next node at once, and its end is the writer's end: whole or an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_still_grows_is_sent_as_it_comes() {
    let one = Node::founder();
    let two = Node::joined(&one, "two").await;
    let folder = tempfile::tempdir().expect("tempdir");
    let store = Arc::new(shoal_runtime::image::ImageStore::open(folder.path()).expect("opens"));
    let serving = Arc::clone(&store);
    one.transport
        .serve_blobs(Arc::new(move |digest: &str| serving.open_growing(&digest.parse().ok()?).map(Into::into)));
    two.knows(&[&one]);
    for gives_up in [false, true] {
        let bytes: Vec<u8> = (0..4u32 << 20).map(|number| number.wrapping_mul(2_654_435_761) as u8).collect();
        let digest = shoal_runtime::image::Digest::of(&bytes);
        let mut writer = store.writer(digest, bytes.len() as u64).expect("a writer");
        writer.share().expect("shared");
        writer.write_all(&bytes[..1 << 20]).expect("writes");
        let mut blob = two.transport.fetch_blob(one.id(), &digest.to_string(), 0).await.expect("found");
        assert_eq!(blob.left_bytes(), bytes.len() as u64);
        let mut begin = vec![0; 1 << 20];
        timeout(PATIENCE, blob.read_exact(&mut begin)).await.expect("in time").expect("the first part");
        assert!(timeout(std::time::Duration::from_millis(200), blob.read_u8()).await.is_err(), "no more is there yet");
        if gives_up {
            drop(writer);
            let end = timeout(PATIENCE, tokio::io::copy(&mut blob, &mut tokio::io::sink())).await.expect("in time");
            assert!(end.is_err());
        } else {
            writer.write_all(&bytes[1 << 20..]).expect("writes");
            writer.commit().expect("the right bytes");
            let mut rest = Vec::new();
            timeout(PATIENCE, blob.read_to_end(&mut rest)).await.expect("in time").expect("whole");
            assert_eq!(Sha256::digest([begin, rest].concat()), Sha256::digest(&bytes));
        }
    }
}
