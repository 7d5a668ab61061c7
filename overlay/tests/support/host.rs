//! Hosts: network namespaces, each held by a thread, joined by veth cables.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use futures::TryStreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

type Job = Box<dyn FnOnce() + Send>;

/// The name of a host's end of the cable.
pub(crate) const CABLE: &str = "cable0";

/// A network namespace with a thread in it.
pub(crate) struct Host {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    namespace: File,
}

impl Host {
    /// Makes a host with nothing but a loopback interface, which is up.
    pub(crate) fn new() -> Self {
        let (jobs, receive) = mpsc::channel::<Job>();
        let (opened, namespace) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            opened.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            receive.into_iter().for_each(|job| job());
        });
        let host = Self { jobs: Some(jobs), thread: Some(thread), namespace: namespace.recv().unwrap() };
        host.netlink(|handle| async move { set_up(&handle, "lo", None).await });
        host
    }

    /// Runs `work` on the host's thread, so inside its namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        let job = Box::new(move || send.send(work()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        receive.recv().expect("the work on the host panicked")
    }

    /// Runs `work` with a netlink connection of this host.
    pub(crate) fn netlink<T, F>(&self, work: impl FnOnce(Handle) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.run(move || {
            super::block_on(async move {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                let driver = tokio::spawn(connection);
                let result = work(handle).await;
                driver.abort();
                result
            })
        })
    }

    /// Joins two hosts by a cable with these addresses, in one /24.
    pub(crate) fn join(&self, address: Ipv4Addr, other: &Self, other_address: Ipv4Addr, mtu: u32) {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(CABLE.to_owned())
            .mtu(mtu)
            .setns_by_fd(other.namespace.as_raw_fd())
            .build();
        self.netlink(move |handle| async move {
            let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
                .name(CABLE.to_owned())
                .mtu(mtu)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
                .build();
            handle.link().add(pair).execute().await.unwrap();
            set_up(&handle, CABLE, Some(address)).await;
        });
        other.netlink(move |handle| async move { set_up(&handle, CABLE, Some(other_address)).await });
    }

    /// Plugs the host's end of the cable, or unplugs it.
    pub(crate) fn plug(&self, plugged: bool) {
        self.netlink(move |handle| async move {
            let link = find(&handle, CABLE).await.unwrap();
            let message = LinkUnspec::new_with_index(link.header.index);
            let message = if plugged { message.up() } else { message.down() };
            handle.link().change(message.build()).execute().await.unwrap();
        });
    }

    /// Tells whether the host has an interface of this name.
    pub(crate) fn has_interface(&self, name: &'static str) -> bool {
        self.netlink(move |handle| async move { find(&handle, name).await.is_some() })
    }

    /// Counts the interfaces that lead to tasks.
    pub(crate) fn task_links(&self) -> usize {
        self.run(|| {
            let names = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            names.lines().filter(|line| line.trim_start().starts_with("sh") && !line.contains("shoal")).count()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn find(handle: &Handle, name: &str) -> Option<LinkMessage> {
    handle.link().get().match_name(name.to_owned()).execute().try_next().await.ok().flatten()
}

async fn set_up(handle: &Handle, name: &str, address: Option<Ipv4Addr>) {
    let index = find(handle, name).await.unwrap().header.index;
    if let Some(address) = address {
        handle.address().add(index, address.into(), 24).execute().await.unwrap();
    }
    handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}
