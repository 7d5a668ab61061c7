//! `shoal whoami`: the small web server in the demo's image, which says which task answered.
//!
//! Input: HTTP requests, and what the executor put into the environment. Output: a page of `name: value` lines. With
//! `--get URL` it is the client instead, as the demo runs it inside a container. Plain threads and blocking sockets, so
//! that it starts in a millisecond; `main` calls it before anything else exists. Everything a client sends is bounded.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};

/// The name by which the program is called in the image.
pub const NAME: &str = "whoami";
/// What the page says, and the variable of the environment that holds it; see the executor.
const LINES: [(&str, &str); 5] = [
    ("node", "SHOAL_NODE"),
    ("service", "SHOAL_SERVICE"),
    ("task", "SHOAL_TASK"),
    ("slot", "SHOAL_SLOT"),
    ("addresses", "SHOAL_ADDRESSES"),
];
/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an answer that the client takes at most.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Connections served at once; more are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long connecting to one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const USAGE: &str = "usage: whoami [--listen ADDRESS:PORT] | whoami --get|--get-each http://HOST[:PORT]/[PATH]";

/// Returns the arguments for [`run`] if this process is to be `whoami`: called so, or with `whoami` as first argument.
pub fn arguments(mut all: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let called = all.next()?;
    let mut rest: Vec<OsString> = all.collect();
    if Path::new(&called).file_name().is_some_and(|name| name == NAME) {
        return Some(rest);
    }
    (rest.first()? == NAME).then(|| rest.split_off(1))
}

/// Runs the server until it is told to stop, or the client until it has its answer.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the command's output")]
pub fn run(arguments: &[OsString]) -> ExitCode {
    let arguments: Option<Vec<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    let done = match arguments.as_deref() {
        Some([]) => serve(None),
        Some(["--listen", address]) => {
            address.parse().map_err(io::Error::other).and_then(|address| serve(Some(address)))
        }
        Some(["--get", url]) => get(url).map(|body| print!("{body}")),
        Some(["--get-each", url]) => get_each(url).map(|bodies| print!("{bodies}")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whoami: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fetches a page by HTTP and returns its body. Tries all addresses of the host, beginning with any of them: the
/// system's resolver puts near addresses first (RFC 6724 §6, rule 9), so that taking the first would always stay here.
///
/// # Errors
/// The last address's error if none answered, or why the answer makes no sense. The text names the URL.
pub fn get(url: &str) -> io::Result<String> {
    let wrong = |what: &str| io::Error::other(format!("{url}: {what}"));
    let (authority, path, addresses) = target(url)?;
    let mut last = wrong("the name has no address");
    for address in addresses {
        match get_from(address, authority, path) {
            Ok(answer) => return body_of(&answer).map(str::to_owned).ok_or_else(|| wrong("the answer is not a page")),
            Err(error) => last = wrong(&format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Fetches a page from each address of the host, and returns all bodies with an empty line after each.
fn get_each(url: &str) -> io::Result<String> {
    let wrong = |what: &str| io::Error::other(format!("{url}: {what}"));
    let (authority, path, addresses) = target(url)?;
    let mut pages = String::new();
    for address in addresses {
        let answer = get_from(address, authority, path).map_err(|error| wrong(&format!("{address}: {error}")))?;
        pages.push_str(body_of(&answer).ok_or_else(|| wrong("the answer is not a page"))?);
        pages.push('\n');
    }
    Ok(pages)
}

/// Returns what a URL names: host and port as they are written, path, and the addresses, which begin anywhere: the
/// resolver would always put a task's own address first.
fn target(url: &str) -> io::Result<(&str, &str, Vec<SocketAddr>)> {
    let wrong = |what: &str| io::Error::other(format!("{url}: {what}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("not an http:// address"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let bare_ipv6 = authority.starts_with('[') && authority.ends_with(']');
    let with_port =
        if bare_ipv6 || !authority.contains(':') { format!("{authority}:80") } else { authority.to_owned() };
    let mut addresses: Vec<SocketAddr> =
        with_port.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?.collect();
    let turn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos() as usize / 1_000);
    let first = turn % addresses.len().max(1);
    addresses.rotate_left(first);
    Ok((authority, path, addresses))
}

fn get_from(address: SocketAddr, authority: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Returns the body of a response with status 200.
fn body_of(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1)? == "200").then_some(body)
}

/// Serves until SIGTERM or SIGINT. As the first process of a container there is no default for these signals, so a
/// thread waits for them.
fn serve(address: Option<SocketAddr>) -> io::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let listener = match address {
        Some(address) => TcpListener::bind(address)?,
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))?,
    };
    let page = Arc::new(page(|name| std::env::var(name).ok()));
    std::thread::Builder::new().name("accept".to_owned()).spawn(move || accept(&listener, &page))?;
    signals.wait()?;
    Ok(())
}

fn accept(listener: &TcpListener, page: &Arc<String>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors: those in use come free as their clients lose patience.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let (page, open) = (Arc::clone(page), Arc::clone(&open));
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let counted = Arc::clone(&open);
        let serving = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            // A client that goes away is its own affair.
            let _ = answer(&stream, &page);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        if serving.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Answers one request and closes.
fn answer(mut stream: &TcpStream, page: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(stream)?;
    let (status, body) = match head.as_deref().map(|head| head.split(' ').next()) {
        None => ("431 Request Header Fields Too Large", "the request is too long\n"),
        Some(Some("GET")) => ("200 OK", page),
        Some(Some("HEAD")) => ("200 OK", ""),
        Some(_) => ("405 Method Not Allowed", "only GET and HEAD are answered\n"),
    };
    let length = if status == "200 OK" { page.len() } else { body.len() };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Returns a request's head, or nothing if it is too long.
fn read_head(mut stream: &TcpStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&chunk[..count]),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Returns the page: what `variable` says of this task, and the host name.
fn page(variable: impl Fn(&str) -> Option<String>) -> String {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let lines = LINES.map(|(name, key)| (name, variable(key).unwrap_or_else(|| "unknown".to_owned())));
    let lines = lines.into_iter().chain([("hostname", hostname)]);
    lines.map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// Returns what a page says under `name`.
pub fn line<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let page = page(|name| (name == "SHOAL_NODE").then(|| "n1".to_owned()));
        std::thread::spawn(move || accept(&listener, &Arc::new(page)));
        address
    }

    fn raw(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        // The server may answer and close before it has read all.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn the_page_says_who_answered_and_the_client_reads_it() {
        let body = get(&format!("http://{}/", server())).expect("a page");
        assert_eq!((line(&body, "node"), line(&body, "task")), (Some("n1"), Some("unknown")));
        assert!(line(&body, "hostname").is_some());
        assert_eq!(get_each(&format!("http://{}/", server())).expect("pages"), format!("{body}\n"));
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_one_served() {
        let address = server();
        assert!(raw(address, b"DELETE / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(raw(address, &[b'x'; 9 * 1024]).starts_with("HTTP/1.1 431 "));
        assert!(raw(address, b"HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(raw(address, b"GET / HTTP/1.1\r\n\r\n").contains("node: n1"));
    }

    #[test]
    fn the_name_or_the_first_argument_chooses_it() {
        let arguments = |line: &str| arguments(line.split(' ').map(OsString::from));
        assert_eq!(arguments("/bin/whoami --listen x"), Some(vec!["--listen".into(), "x".into()]));
        assert_eq!(arguments("shoal whoami"), Some(vec![]));
        assert_eq!((arguments("shoal up"), arguments("shoal")), (None, None));
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for url in ["https://web/", "web", "http://127.0.0.1:1/"] {
            assert!(get(url).is_err_and(|error| error.to_string().contains(url)), "{url}");
        }
    }
}
