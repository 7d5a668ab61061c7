//! Identities on a real directory, and what rustls makes of their certificates.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream};

use super::authority::role_of;
use super::*;

fn founded() -> (tempfile::TempDir, Identity) {
    let data = tempfile::tempdir().expect("tempdir");
    let identity = Identity::found(data.path(), "one").expect("founds");
    (data, identity)
}

/// Admits a new node without a network.
fn admitted(by: &Identity, name: &str) -> (tempfile::TempDir, Identity) {
    let data = tempfile::tempdir().expect("tempdir");
    let key = NodeKey::generate();
    let request = key.signing_request().expect("request");
    let (node, leaf) = by.issue(&request, Role::Manager).expect("issues");
    assert_eq!(node, key.node_id());
    let authority = by.authority();
    let members = vec![(by.node_id(), vec![([192, 0, 2, 1], 7946).into(), "[2001:db8::1]:7946".parse().expect("v6")])];
    let admitted =
        admission::Admitted { leaf, ca: by.ca().clone(), authority, data_key: by.data_key().clone(), members };
    let identity = Identity::adopt(data.path(), name, key, &admitted).expect("adopts");
    (data, identity)
}

/// Shakes hands over a real socket and sends a byte each way. Returns what client and server say.
fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (Result<(), String>, Result<NodeId, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("address");
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepts");
        let mut session = ServerConnection::new(server).expect("session");
        let done = Stream::new(&mut session, &mut socket).read_exact(&mut [0]).map_err(|error| error.to_string());
        done.and_then(|()| {
            Stream::new(&mut session, &mut socket).write_all(b"b").map_err(|error| error.to_string())?;
            session.peer_certificates().and_then(node_id_of).ok_or("no node id".to_owned())
        })
    });
    let mut socket = TcpStream::connect(address).expect("connects");
    let mut session = ClientConnection::new(client, server_name()).expect("session");
    let mut stream = Stream::new(&mut session, &mut socket);
    let done = stream.write_all(b"a").and_then(|()| stream.read_exact(&mut [0])).map_err(|error| error.to_string());
    drop(socket);
    (done, serving.join().expect("the server does not panic"))
}

#[test]
fn a_founded_identity_is_the_same_after_loading() {
    let (data, founded) = founded();
    let loaded = Identity::load(data.path()).expect("loads");
    assert_eq!(loaded.node_id(), founded.node_id());
    assert_eq!(loaded.name(), "one");
    assert_eq!(loaded.ca_fingerprint(), founded.ca_fingerprint());
    assert_eq!(loaded.token(Role::Manager), founded.token(Role::Manager));
    assert_eq!(loaded.token(Role::Worker), founded.token(Role::Worker));
    assert_ne!(loaded.token(Role::Worker), founded.token(Role::Manager));
    assert_eq!(role_of(loaded.leaf()), Some(Role::Manager));
    for (file, mode) in [("node.key", 0o600), ("ca.key", 0o600), ("tokens", 0o600), ("ca.crt", 0o644)] {
        let found = fs::metadata(data.path().join("identity").join(file)).expect("exists").mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
}

#[test]
fn an_admitted_manager_can_admit_the_next_so_there_is_no_founder_to_lose() {
    let (_first, founder) = founded();
    let (data, adopted) = admitted(&founder, "two");
    drop(founder);
    let second = Identity::load(data.path()).expect("loads");
    assert_eq!(second.contacts(), adopted.contacts());
    assert_eq!(second.contacts()[0].1.len(), 2, "a node that was killed right after joining finds the shoal again");
    let (_third, third) = admitted(&second, "three");
    let (client, server) = shake(second.gossip_server().expect("tls"), third.gossip_client().expect("tls"));
    assert_eq!(client, Ok(()));
    assert_eq!(server, Ok(third.node_id()));
}

#[test]
fn gossip_and_tunnel_take_members_of_this_shoal_only() {
    let ((_a, ours), (_b, theirs)) = (founded(), founded());
    let (_c, friend) = admitted(&ours, "friend");
    let (client, server) = shake(ours.tunnel_server().expect("tls"), friend.tunnel_client().expect("tls"));
    assert_eq!((client, server), (Ok(()), Ok(friend.node_id())));
    let (client, server) = shake(ours.gossip_server().expect("tls"), theirs.gossip_client().expect("tls"));
    assert!(client.is_err() && server.is_err());
    let (client, server) = shake(ours.gossip_server().expect("tls"), friend.tunnel_client().expect("tls"));
    assert!(client.is_err() && server.is_err(), "the tunnel's ALPN must not open gossip");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let (_data, ours) = founded();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("tls 1.3")
        .with_root_certificates(tls::roots(ours.ca()).expect("roots"))
        .with_no_client_auth();
    let mut config = config;
    config.alpn_protocols = vec![GOSSIP_ALPN.to_vec()];
    let (client, server) = shake(ours.gossip_server().expect("tls"), Arc::new(config));
    assert!(client.is_err() && server.is_err());
}

#[test]
fn secrets_that_others_may_read_are_refused_with_the_remedy() {
    for file in ["node.key", "ca.key", "tokens"] {
        let (data, _) = founded();
        let path = data.path().join("identity").join(file);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
        let error = Identity::load(data.path()).expect_err("exposed").to_string();
        assert!(error.contains("chmod 600") && error.contains(file), "{error}");
    }
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let (other, _) = founded();
    for file in ["node.key", "node.crt", "ca.crt", "ca.key"] {
        let (data, _) = founded();
        let path = data.path().join("identity").join(file);
        fs::copy(other.path().join("identity").join(file), &path).expect("copies another shoal's");
        let error = Identity::load(data.path()).expect_err(file);
        assert!(matches!(error, IdentityError::Damaged { .. }), "{file}: {error}");
        fs::write(&path, b"garbage").expect("writes");
        let error = Identity::load(data.path()).expect_err(file);
        assert!(matches!(error, IdentityError::Damaged { .. }), "{file}: {error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
}

#[test]
fn a_missing_file_is_unreadable_and_a_missing_identity_is_missing() {
    let (data, _) = founded();
    fs::remove_file(data.path().join("identity/node.crt")).expect("removes");
    assert!(matches!(Identity::load(data.path()), Err(IdentityError::Unreadable { .. })));
    let empty = tempfile::tempdir().expect("tempdir");
    assert!(matches!(Identity::load(empty.path()), Err(IdentityError::Missing { .. })));
}

#[test]
fn an_identity_is_not_overwritten_and_state_without_one_is_not_adopted() {
    let (data, _) = founded();
    assert!(matches!(Identity::found(data.path(), "again"), Err(IdentityError::Exists { .. })));
    let orphan = tempfile::tempdir().expect("tempdir");
    fs::create_dir(orphan.path().join("state")).expect("mkdir");
    fs::write(orphan.path().join("state/log"), b"old").expect("write");
    assert!(matches!(Identity::found(orphan.path(), "x"), Err(IdentityError::Orphaned { .. })));
}

#[test]
fn a_crash_before_the_identity_was_complete_leaves_none() {
    let data = tempfile::tempdir().expect("tempdir");
    fs::create_dir(data.path().join("identity.new")).expect("mkdir");
    fs::write(data.path().join("identity.new/node.key"), b"half").expect("write");
    assert!(matches!(Identity::load(data.path()), Err(IdentityError::Missing { .. })));
    Identity::found(data.path(), "one").expect("founds over the rest");
    Identity::load(data.path()).expect("loads");
}

#[test]
fn a_token_of_another_shoal_is_told_apart() {
    let ((data, ours), (_other, theirs)) = (founded(), founded());
    let token = |identity: &Identity| identity.token(Role::Manager).expect("a manager has it");
    ours.check_token(data.path(), &token(&ours)).expect("ours");
    let error = ours.check_token(data.path(), &token(&theirs)).expect_err("theirs");
    assert!(error.to_string().contains("--data"), "{error}");
}

#[test]
fn hostile_signing_requests_get_no_certificate() {
    let (_data, ours) = founded();
    let good = NodeKey::generate().signing_request().expect("request");
    for request in [Vec::new(), vec![0x30; 4096], good[..good.len() - 1].to_vec()] {
        assert!(ours.issue(&request, Role::Manager).is_err());
    }
    let mut forged = good;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(ours.issue(&forged, Role::Manager).is_err(), "a request with a wrong signature");
    let other = rcgen::KeyPair::generate().expect("a key of another kind");
    let request = rcgen::CertificateParams::default().serialize_request(&other).expect("request");
    assert!(matches!(ours.issue(request.der(), Role::Manager), Err(IdentityError::NotEd25519)));
}

#[test]
fn a_request_that_asks_to_be_a_ca_gets_a_plain_leaf() {
    let (_data, ours) = founded();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).expect("request");
    let (_, leaf) = ours.issue(request.der(), Role::Worker).expect("issues");
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("parses");
    assert!(!parsed.is_ca());
    assert_eq!(role_of(&leaf), Some(Role::Worker));
    assert!(!String::from_utf8_lossy(&leaf).contains("evil"));
}

#[test]
fn a_certificate_in_pem_reads_as_the_same_certificate() {
    use rustls::pki_types::pem::PemObject;

    let (_data, ours) = founded();
    for certificate in [ours.ca(), ours.leaf()] {
        let text = authority::pem(certificate);
        assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).expect("parses"), *certificate, "{text}");
    }
}
