//! The links thread: carries out changes of interfaces, one after the other, in the node's network namespace.
//!
//! Input: wishes from any thread or runtime. Output: their results. Netlink sockets and `/proc/sys` belong to the
//! namespace of a thread, so all of it happens on the one that was started with the overlay.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shoal_cluster::plan::addresses::{Addresses, Block};
use tokio::sync::{mpsc, oneshot};

use crate::OverlayError;
use crate::link::{LinkError, Netlink};
use crate::thread::{self, Joined, Ready};
use crate::veth;

/// Wishes that may wait; who comes later waits to hand his in.
const QUEUE: usize = 256;

/// Links that are removed together: the kernel waits for all processors at each removal, once for all of a group.
const DETACHED_AT_ONCE: usize = 64;

/// How long it is believed that addresses and routes are as they were set: others may have removed them.
const BELIEVED: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<(), LinkError>>;

enum Wish {
    Own(Block),
    Attach { key: String, pid: i32, addresses: Addresses },
    Detach { key: String },
    Retain { keys: BTreeSet<String> },
}

/// The handle of the links thread. Dropped, it lets the thread finish what it has.
#[derive(Debug)]
pub(crate) struct Links {
    wishes: Option<mpsc::Sender<(Wish, Answer)>>,
    /// Waited for after the wishes are gone.
    _thread: Joined,
}

/// What the thread knows.
struct Worker {
    netlink: Netlink,
    interface: u32,
    mtu: u16,
    /// The block whose addresses the TUN has, and since when that is known.
    own: Option<(Block, Instant)>,
}

impl Links {
    /// Starts the thread, in the namespace of the calling thread, and sets up the TUN `interface`.
    pub(crate) fn start(interface: String, mtu: u16) -> Result<Self, OverlayError> {
        let (wishes, receive) = mpsc::channel(QUEUE);
        let thread = thread::start("shoal-links", move |ready| work(interface, mtu, receive, ready))?;
        Ok(Self { wishes: Some(wishes), _thread: thread })
    }

    /// Gives the TUN the addresses of the node in `own`, unless it was seen just now that it has them.
    pub(crate) async fn set_own(&self, own: Block) -> Result<(), LinkError> {
        self.ask(Wish::Own(own)).await
    }

    /// Ensures the link of a task.
    pub(crate) async fn attach(&self, key: &str, pid: i32, addresses: Addresses) -> Result<(), LinkError> {
        self.ask(Wish::Attach { key: key.to_owned(), pid, addresses }).await
    }

    /// Removes the link of a task, if there is one.
    pub(crate) async fn detach(&self, key: &str) -> Result<(), LinkError> {
        self.ask(Wish::Detach { key: key.to_owned() }).await
    }

    /// Removes the links of all tasks but these.
    pub(crate) async fn retain(&self, keys: BTreeSet<String>) -> Result<(), LinkError> {
        self.ask(Wish::Retain { keys }).await
    }

    async fn ask(&self, wish: Wish) -> Result<(), LinkError> {
        let (answer, answered) = oneshot::channel();
        let wishes = self.wishes.as_ref().ok_or(LinkError::Stopped)?;
        wishes.send((wish, answer)).await.map_err(|_| LinkError::Stopped)?;
        answered.await.map_err(|_| LinkError::Stopped)?
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.wishes = None;
    }
}

async fn work(interface: String, mtu: u16, mut wishes: mpsc::Receiver<(Wish, Answer)>, ready: Ready) {
    let mut worker = match Worker::start(&interface, mtu).await {
        Ok(worker) => worker,
        Err(error) => return ready.say(Err(error.into())),
    };
    ready.say(Ok(()));
    let mut next = None;
    loop {
        let Some((wish, answer)) = (match next.take() {
            Some(next) => Some(next),
            None => wishes.recv().await,
        }) else {
            return;
        };
        // Whoever asked may have given up waiting; the wish is carried out all the same.
        let Wish::Detach { key } = wish else {
            let _ = answer.send(worker.fulfil(wish).await);
            continue;
        };
        let (mut keys, mut answers) = (vec![key], vec![answer]);
        while keys.len() < DETACHED_AT_ONCE {
            match wishes.try_recv() {
                Ok((Wish::Detach { key }, answer)) => {
                    keys.push(key);
                    answers.push(answer);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let results = veth::detach(&worker.netlink, &keys).await;
        for (answer, result) in answers.into_iter().zip(results) {
            let _ = answer.send(result);
        }
    }
}

impl Worker {
    async fn start(interface: &str, mtu: u16) -> Result<Self, LinkError> {
        let netlink = Netlink::open()?;
        let interface = netlink.prepare_tun(interface, mtu).await?;
        Ok(Self { netlink, interface, mtu, own: None })
    }

    async fn fulfil(&mut self, wish: Wish) -> Result<(), LinkError> {
        match wish {
            Wish::Own(own) if self.own.is_some_and(|(is, since)| is == own && since.elapsed() < BELIEVED) => Ok(()),
            Wish::Own(own) => {
                // Until all of it is done, nothing is known: the next call then does it again.
                self.own = None;
                self.netlink.set_own(self.interface, &own).await?;
                self.own = Some((own, Instant::now()));
                Ok(())
            }
            Wish::Attach { key, pid, addresses } => veth::attach(&self.netlink, &key, pid, addresses, self.mtu).await,
            Wish::Detach { key } => veth::detach(&self.netlink, &[key]).await.pop().unwrap_or(Ok(())),
            Wish::Retain { keys } => veth::retain(&self.netlink, &keys).await,
        }
    }
}
