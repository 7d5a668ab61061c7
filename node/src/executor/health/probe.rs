//! One try: a command in the container, a request or a connection to the task's address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_cluster::TaskOrder;
use shoal_cluster::intent::service::health::{HealthCheck, HealthTest};
use shoal_runtime::container::{Exec, ExecSpec, Runtime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::INTERVAL_MS;
use crate::api::time::now_ms;
use crate::images::chain;

/// Most of an output that is kept, in bytes, as in Docker.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// Most that is read of an answer before its first line must have ended.
const STATUS_LINE_BYTES_MAX: u64 = 1024;
/// How long a command that was killed may keep its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// What a try that could not be made, or took too long, counts as; Docker's.
const NO_EXIT_CODE: i32 = -1;

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Likewise.
    pub ended_at_ms: u64,
    /// 0 if the task is well.
    pub exit_code: i32,
    /// What the command said, or what was found; cut.
    pub output: String,
}

/// Tries once.
pub(super) async fn run(runtime: &Runtime, order: &TaskOrder, check: &HealthCheck) -> Probe {
    let started_at_ms = now_ms();
    let limit = Duration::from_millis(check.timeout_ms.unwrap_or(INTERVAL_MS));
    let (exit_code, output) = match &check.test {
        HealthTest::Command(command) => exec(runtime, order, command, limit).await,
        HealthTest::Http { port, path } => of_addresses(order, *port, Some(path), limit).await,
        HealthTest::Tcp { port } => of_addresses(order, *port, None, limit).await,
        // A complete check has none of these.
        HealthTest::Shell(_) | HealthTest::Image | HealthTest::None => (NO_EXIT_CODE, "there is no test".to_owned()),
    };
    Probe { started_at_ms, ended_at_ms: now_ms(), exit_code, output: cut(output) }
}

/// Runs a command in the container, killed when it takes too long.
async fn exec(runtime: &Runtime, order: &TaskOrder, command: &[String], limit: Duration) -> (i32, String) {
    let key = order.id.to_string();
    let spec = ExecSpec { args: command.to_vec(), ..ExecSpec::default() };
    let mut exec = match runtime.exec(&key, &spec, None).await {
        Ok(exec) => exec,
        Err(error) => return (NO_EXIT_CODE, chain(&error)),
    };
    let mut output = Vec::new();
    let ended = timeout(limit, finish(&mut exec, &mut output)).await;
    let code = match ended {
        Ok(code) => code,
        Err(_) => {
            if let Err(error) = runtime.signal_exec(&key, exec.pid, nix::sys::signal::Signal::SIGKILL as i32).await {
                tracing::debug!(task = key, error = chain(&error), "cannot kill a health check");
            }
            let _ = timeout(LAST_WORDS, exec.exit()).await;
            output = format!("the health check took longer than {} ms", limit.as_millis()).into_bytes();
            NO_EXIT_CODE
        }
    };
    (code, String::from_utf8_lossy(&output).into_owned())
}

/// Reads what a command says until it has ended, output and errors as they come.
async fn finish(exec: &mut Exec, output: &mut Vec<u8>) -> i32 {
    let Exec { stdout, stderr, .. } = exec;
    let mut said = Vec::new();
    let (first, second) = tokio::join!(read(stdout), async {
        match stderr {
            Some(stderr) => read(stderr).await,
            None => Vec::new(),
        }
    });
    said.extend(first);
    said.extend(second);
    *output = said;
    exec.exit().await.code
}

/// Reads to the end, and keeps the beginning: a command whose output nobody reads would not end.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
    kept
}

/// Asks the task for a path, or only connects, at one address after the other until one is well: a program may listen on one kind only.
async fn of_addresses(order: &TaskOrder, port: u16, path: Option<&str>, limit: Duration) -> (i32, String) {
    let mut failures = Vec::new();
    let addresses: Vec<SocketAddr> = order.addresses.iter().map(|ip: IpAddr| SocketAddr::new(ip, port)).collect();
    let tried = timeout(limit, async {
        for address in addresses {
            let attempt = match path {
                Some(path) => get(address, path).await,
                None => TcpStream::connect(address).await.map(|_| format!("connected to {address}")),
            };
            match attempt {
                Ok(found) => return Some(found),
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        None
    });
    match tried.await {
        Ok(Some(found)) => (0, found),
        Ok(None) => (1, failures.join("; ")),
        Err(_) => (NO_EXIT_CODE, format!("no answer within {} ms", limit.as_millis())),
    }
}

/// Asks for a path and reads the first line of the answer.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: shoal/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut head = stream.take(STATUS_LINE_BYTES_MAX);
    while !answer.contains(&b'\n') && head.read_buf(&mut answer).await? > 0 {}
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).trim().to_owned();
    match status_of(&line) {
        Some(200..=399) => Ok(line),
        Some(_) => Err(io::Error::other(format!("answered {line:?}"))),
        None => Err(io::Error::other("the answer is not HTTP")),
    }
}

fn status_of(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let status = rest.trim_start().split(' ').next()?;
    (version.starts_with("HTTP/1.") && status.len() == 3).then(|| status.parse().ok())?
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(OUTPUT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one connection with these bytes and returns what asking it says.
    async fn answered(bytes: &'static [u8]) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let found = get(address, "/healthz?x=1").await.map_err(|error| error.to_string());
        let request = serving.await.unwrap();
        assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"), "{request:?}");
        found
    }

    #[tokio::test]
    async fn a_status_below_400_is_well_and_all_else_is_not() {
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\n\r\nbody").await.unwrap(), "HTTP/1.1 200 OK");
        assert!(answered(b"HTTP/1.0 302 Found\r\n\r\n").await.is_ok());
        assert!(answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err().contains("503"));
        for other in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1\r\n", b"HTTP/1.1 2000 x\r\n", &[b'x'; 5000]] {
            assert!(answered(other).await.is_err());
        }
    }
}
