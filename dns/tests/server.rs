//! A real server on loopback ports, asked with raw messages over UDP and TCP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::names::Names;
use shoal_dns::{DnsConfig, DnsServer, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn task(number: u16) -> Addresses {
    let [high, low] = number.to_be_bytes();
    Addresses { v4: Some(Ipv4Addr::new(10, 64, high, low)), v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number) }
}

fn names(list: &[(&str, u16)]) -> Names {
    Names {
        services: list.iter().map(|(name, count)| (name.to_string(), (2..2 + count).map(task).collect())).collect(),
        ..Names::default()
    }
}

async fn serve(upstreams: Vec<SocketAddr>, forward_timeout: Duration) -> (DnsServer, SocketAddr) {
    let config = DnsConfig { upstreams: Upstreams::List(upstreams), forward_timeout, ..DnsConfig::default() };
    let server = DnsServer::new(config);
    server.set_names(&names(&[("web", 3), ("idle", 0), ("big", 200)]));
    let address = server.listen("127.0.0.1:0".parse().expect("address")).await.expect("loopback");
    (server, address)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
    message
}

async fn exchange_udp(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    socket.send_to(bytes, server).await.expect("sent");
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("answered").expect("received");
    buffer.truncate(length);
    buffer
}

async fn ask(server: SocketAddr, message: &Message) -> Message {
    let bytes = exchange_udp(server, &message.to_vec().expect("encodes")).await;
    Message::from_vec(&bytes).expect("a well-formed answer")
}

async fn ask_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    write_framed(&mut stream, &message.to_vec().expect("encodes")).await;
    Message::from_vec(&read_framed(&mut stream).await).expect("a well-formed answer")
}

async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("short");
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await.expect("sent");
}

async fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("answered").expect("received");
    let mut bytes = vec![0; length.into()];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("answered").expect("received");
    bytes
}

/// A resolver that knows one address for every name, after `delay`, and counts what it is asked.
async fn upstream(delay: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let udp = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("socket"));
    let address = udp.local_addr().expect("bound");
    let tcp = TcpListener::bind(address).await.expect("the port is free over TCP too");
    let asked = Arc::new(AtomicUsize::new(0));
    let reply = |bytes: &[u8]| {
        let question = Message::from_vec(bytes).expect("a clean question");
        let mut message = Message::response(question.metadata.id, OpCode::Query);
        message.add_query(question.queries[0].clone());
        message.add_answer(Record::from_rdata(question.queries[0].name.clone(), 60, RData::A(A::new(192, 0, 2, 7))));
        message.to_vec().expect("encodes")
    };
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::SeqCst);
            let (bytes, udp) = (reply(&buffer[..length]), udp.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let mut forged = bytes.clone();
                forged[0] ^= 0xff;
                let _ = udp.send_to(&forged, from).await;
                let _ = udp.send_to(&bytes, from).await;
            });
        }
    });
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let bytes = reply(&read_framed(&mut stream).await);
            tokio::time::sleep(delay).await;
            write_framed(&mut stream, &bytes).await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_service_answers_its_tasks_with_authority_over_udp_and_tcp() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    for name in ["web.shoal.internal.", "tasks.web.shoal.internal.", "WEB.", "web.SHOAL.internal."] {
        for answer in
            [ask(address, &question(name, RecordType::A)).await, ask_tcp(address, &question(name, RecordType::A)).await]
        {
            assert_eq!(answer.metadata.id, 0x1234);
            assert_eq!(answer.metadata.message_type, MessageType::Response);
            assert!(
                answer.metadata.authoritative && answer.metadata.recursion_available && !answer.metadata.truncation
            );
            assert_eq!(answer.queries[0].name.to_ascii(), name);
            let mut found: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
            found.sort();
            assert_eq!(found, ["10.64.0.2", "10.64.0.3", "10.64.0.4"]);
            assert!(answer.answers.iter().all(|record| record.ttl == 1 && record.name.to_ascii() == name));
        }
    }
    assert_eq!(ask(address, &question("web.shoal.internal.", RecordType::AAAA)).await.answers.len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_denied_with_the_soa() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    let cases = [
        ("nope.shoal.internal.", RecordType::A, ResponseCode::NXDomain, 1),
        ("idle.shoal.internal.", RecordType::A, ResponseCode::NoError, 1),
        ("web.shoal.internal.", RecordType::MX, ResponseCode::NoError, 1),
        ("nope.", RecordType::A, ResponseCode::NXDomain, 0),
    ];
    for (name, kind, code, soa) in cases {
        let answer = ask(address, &question(name, kind)).await;
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len(), answer.authorities.len()),
            (code, 0, soa),
            "{name}"
        );
        assert!(answer.metadata.authoritative);
        assert!(answer.authorities.iter().all(|record| record.record_type() == RecordType::SOA));
    }
}

#[tokio::test]
async fn names_follow_the_table_at_once() {
    let (server, address) = serve(vec![], PATIENCE).await;
    server.set_names(&names(&[("web", 1)]));
    assert_eq!(ask(address, &question("web.", RecordType::A)).await.answers.len(), 1);
    assert_eq!(ask(address, &question("idle.", RecordType::A)).await.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    for (payload, limit) in [(None, 512), (Some(400), 512), (Some(1000), 1000), (Some(65_000), 1232)] {
        let mut asked = question("big.shoal.internal.", RecordType::AAAA);
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_version(0);
            asked.set_edns(edns);
        }
        let bytes = exchange_udp(address, &asked.to_vec().expect("encodes")).await;
        let answer = Message::from_vec(&bytes).expect("no junk after the cut");
        assert!(bytes.len() <= limit && bytes.len() + 40 > limit, "{} of {limit}", bytes.len());
        assert!(answer.metadata.truncation);
        assert_eq!(answer.edns.is_some(), payload.is_some());
        let mut decoder = BinDecoder::new(&bytes);
        Message::read(&mut decoder).expect("well-formed");
        assert!(decoder.is_empty(), "something trails the message");
        let whole = ask_tcp(address, &asked).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
}

#[tokio::test]
async fn what_is_no_question_gets_no_answer_or_a_plain_refusal() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    let sane = question("web.", RecordType::A).to_vec().expect("encodes");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sane.clone();
        change(&mut bytes);
        bytes
    };
    let code = |bytes: Vec<u8>| async move {
        Message::from_vec(&exchange_udp(address, &bytes).await).expect("well-formed").metadata.response_code
    };
    assert_eq!(code(with(&|bytes| bytes[5] = 2)).await, ResponseCode::FormErr, "two questions announced");
    assert_eq!(code(with(&|bytes| bytes[4..6].fill(0xff))).await, ResponseCode::FormErr, "65,535 questions announced");
    assert_eq!(code(with(&|bytes| bytes.truncate(14))).await, ResponseCode::FormErr, "cut within the name");
    assert_eq!(code(with(&|bytes| bytes[2] |= 0x28)).await, ResponseCode::Refused, "an update");
    assert_eq!(code(with(&|bytes| bytes[2] |= 0x10)).await, ResponseCode::NotImp, "a status question");
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(ask(address, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let mut later = question("web.", RecordType::A);
    later.set_edns(Edns::new().set_max_payload(1232).set_version(1).clone());
    assert_eq!(u16::from(ask(address, &later).await.metadata.response_code), 16, "BADVERS");

    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    for silent in [vec![], vec![0; 11], with(&|bytes| bytes[2] |= 0x80), vec![0xff; 4096]] {
        socket.send_to(&silent, address).await.expect("sent");
    }
    socket.send_to(&sane, address).await.expect("sent");
    let mut buffer = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("answered").expect("received");
    let first = Message::from_vec(&buffer[..length]).expect("well-formed");
    assert_eq!(first.answers.len(), 3, "the first answer is to the only question among them");
}

#[tokio::test]
async fn a_storm_of_random_bytes_leaves_the_server_answering() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let sane = question("web.shoal.internal.", RecordType::A).to_vec().expect("encodes");
    for round in 0..3_000 {
        let bytes: Vec<u8> = match round % 2 {
            0 => (0..next() % 200).map(|_| next() as u8).collect(),
            _ => {
                let mut bytes = sane.clone();
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
                bytes
            }
        };
        socket.send_to(&bytes, address).await.expect("sent");
        if round % 100 == 0 {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let _ = stream.write_all(&bytes).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let one = timeout(Duration::from_secs(1), ask(address, &question("web.", RecordType::A))).await;
        match one {
            Ok(answer) => break assert_eq!(answer.answers.len(), 3),
            Err(_) => assert!(Instant::now() < deadline, "no answer after the storm"),
        }
    }
}

#[tokio::test]
async fn other_names_are_forwarded_with_the_clients_id() {
    let (resolver, asked) = upstream(Duration::ZERO).await;
    let (_server, address) = serve(vec![resolver], PATIENCE).await;
    for answer in [
        ask(address, &question("example.com.", RecordType::A)).await,
        ask_tcp(address, &question("example.com.", RecordType::A)).await,
    ] {
        assert_eq!(answer.metadata.id, 0x1234, "the forged one with another id was passed over");
        assert_eq!(answer.answers[0].data.to_string(), "192.0.2.7");
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    ask(address, &question("nope.shoal.internal.", RecordType::A)).await;
    ask(address, &question("bare.", RecordType::A)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2, "names of the shoal and bare labels stay here");
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_none_at_all_is_a_failure() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("socket").local_addr().expect("bound");
    let (resolver, _) = upstream(Duration::ZERO).await;
    let (_server, address) = serve(vec![dead, resolver], Duration::from_secs(2)).await;
    assert_eq!(ask(address, &question("example.com.", RecordType::A)).await.answers.len(), 1);

    let (_server, address) = serve(vec![], PATIENCE).await;
    let answer = ask(address, &question("example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(answer.queries.len(), 1);
}

#[tokio::test]
async fn the_server_never_asks_itself() {
    let (address, _) = upstream(Duration::ZERO).await;
    let free = SocketAddr::new("127.0.0.2".parse().expect("address"), address.port());
    let config = DnsConfig { upstreams: Upstreams::List(vec![free]), ..DnsConfig::default() };
    let server = DnsServer::new(config);
    assert_eq!(server.listen(free).await.expect("another address of the loopback device"), free);
    let address = free;
    let answer = ask(address, &question("example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn answers_of_the_zone_never_wait_for_a_slow_upstream() {
    let (resolver, asked) = upstream(Duration::from_secs(600)).await;
    let (_server, address) = serve(vec![resolver], Duration::from_secs(10)).await;
    let slow = question("example.com.", RecordType::A).to_vec().expect("encodes");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    write_framed(&mut stream, &slow).await;
    for _ in 0..50 {
        socket.send_to(&slow, address).await.expect("sent");
    }
    let deadline = Instant::now() + PATIENCE;
    while asked.load(Ordering::SeqCst) < 50 {
        assert!(Instant::now() < deadline, "the questions are under way");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    write_framed(&mut stream, &question("web.", RecordType::A).to_vec().expect("encodes")).await;
    let over_tcp = Message::from_vec(&read_framed(&mut stream).await).expect("well-formed");
    assert_eq!((over_tcp.answers.len(), ask(address, &question("web.", RecordType::A)).await.answers.len()), (3, 3));
    assert!(begun.elapsed() < Duration::from_secs(9), "waited for the upstream");
}

#[tokio::test]
async fn connections_are_capped_and_come_free_again() {
    let (_server, address) = serve(vec![], PATIENCE).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(address).await.expect("the kernel accepts"));
    }
    let mut closed = 0;
    for stream in &mut held {
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(200), stream.read(&mut byte)).await {
            closed += 1;
        }
    }
    assert_eq!(closed, 8, "beyond 32 of one client");
    drop(held);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        write_framed(&mut stream, &question("web.", RecordType::A).to_vec().expect("encodes")).await;
        match timeout(PATIENCE, stream.read_u16()).await.expect("answered or closed") {
            Ok(_) => break,
            Err(_) => assert!(Instant::now() < deadline, "the places are free again"),
        }
    }
}

#[tokio::test]
async fn a_listener_closes_and_a_taken_port_is_named() {
    let (server, address) = serve(vec![], PATIENCE).await;
    let other = DnsServer::new(DnsConfig::default());
    let error = other.listen(address).await.expect_err("taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    server.unlisten(address);
    assert!(server.listening().is_empty());
    let deadline = Instant::now() + PATIENCE;
    while other.listen(address).await.is_err() {
        assert!(Instant::now() < deadline, "the port comes free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn ipv6_listeners_work_beside_ipv4() {
    let (server, _) = serve(vec![], PATIENCE).await;
    let Ok(address) = server.listen("[::1]:0".parse().expect("address")).await else {
        println!("skipped: no IPv6 on the loopback device");
        return;
    };
    let answer = ask_tcp(address, &question("web.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 3);
}
