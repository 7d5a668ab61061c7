//! Tasks: `sleep` processes with a network namespace of their own, and real sockets inside it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// A process with a network namespace of its own; killed when dropped.
pub(crate) struct Task(Child);

impl Task {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("sleep");
        command.arg("600");
        #[expect(unsafe_code, reason = "only a hook before exec can give the child a network namespace")]
        // SAFETY: the hook makes one system call, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWNET)?));
        }
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Starts `work` on a thread inside the task's network namespace.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs `work` inside the task's network namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().expect("the work in the task panicked")
    }

    /// Serves TCP echo on `address`, for one connection; returns the port.
    pub(crate) fn echo_tcp(&self, address: IpAddr) -> u16 {
        let listener = self.run(move || TcpListener::bind((address, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        self.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = stream.try_clone().unwrap();
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
        port
    }

    /// Serves UDP echo on `address` for as long as somebody asks within 30 s; returns the port.
    pub(crate) fn echo_udp(&self, address: IpAddr) -> u16 {
        let socket = self.run(move || UdpSocket::bind((address, 0)).unwrap());
        let port = socket.local_addr().unwrap().port();
        self.spawn(move || {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        port
    }

    /// Sends `bytes` to an echo server and tells whether they came back.
    pub(crate) fn exchange_tcp(&self, to: SocketAddr, bytes: Vec<u8>) -> bool {
        self.run(move || exchange_tcp(to, bytes))
    }

    /// Asks a UDP echo server once and tells whether it answered within 500 ms.
    pub(crate) fn ping_udp(&self, from: IpAddr, to: SocketAddr, bytes: Vec<u8>) -> bool {
        self.run(move || ping_udp(from, to, &bytes))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As [`Task::exchange_tcp`], in the namespace of the calling thread.
pub(crate) fn exchange_tcp(to: SocketAddr, bytes: Vec<u8>) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(20)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).is_ok());
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).is_ok() && writing.join().unwrap() && back == bytes
}

/// As [`Task::ping_udp`], in the namespace of the calling thread.
pub(crate) fn ping_udp(from: IpAddr, to: SocketAddr, bytes: &[u8]) -> bool {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut back = [0; 2048];
    socket.send_to(bytes, to).is_ok() && socket.recv(&mut back).is_ok_and(|length| &back[..length] == bytes)
}
