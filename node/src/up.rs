//! `shoal up`: puts one node together, runs it, and takes it apart again.
//!
//! Order matters twice: nothing listens before this node may act under its identity, and at the end the others are
//! told before the tasks are stopped.

mod desk;
mod stop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use shoal_cluster::intent::name::Name;
use shoal_cluster::limits::ENGINE_LABELS_BYTES_MAX;
use shoal_cluster::membership::member::{Contacts, NodeMeta, Role};
use shoal_cluster::{Cluster, Config, Views};
use shoal_dns::{DnsConfig, DnsServer, Upstreams};
use shoal_overlay::{Overlay, OverlayConfig};
use shoal_runtime::container::{Runtime, ShimCommand};
use shoal_runtime::image::ImageStore;
use shoal_runtime::image::registry::Registries;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::desk::FrontDesk;
use crate::api::{self, About, NodeHandle, Request, Tokens};
use crate::cli::up::UpArgs;
use crate::driver::{Clock, Driver, Inputs};
use crate::executor::health::HealthBoard;
use crate::executor::{self, Host};
use crate::identity::admission;
use crate::identity::authority::{self, node_id_of};
use crate::identity::{Identity, IdentityError, NodeKey, Token, random};
use crate::images::{self, ImageSources, Images};
use crate::lease::Lease;
use crate::levels::{self, Edges};
use crate::reach::{self, Reach, Tasks};
use crate::store::{DataDirectory, Store};
use crate::transport::Transport;
use crate::volumes::Volumes;
use crate::{host, telemetry};

/// Commands of operators that may wait for the driver.
const COMMANDS_WAITING_MAX: usize = 256;
/// Runs a node until it is told to stop, or until it cannot go on.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    telemetry::start(args.log_format, &args.log)?;
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "`shoal up` must run as root, because it makes network interfaces and containers: try `sudo shoal up`"
    );
    let directory = DataDirectory::open(&args.data_dir)?;
    let socket = api::bind(&args.socket).await?;
    let (identity, contacts) = identify(&args).await?;
    let identity = Arc::new(identity);
    let node = Node::start(&args, &directory, Arc::clone(&identity), contacts).await?;
    let stopping = Arc::new(Notify::new());
    let serving = tokio::spawn(api::serve(socket, node.handle.clone(), {
        let stopping = Arc::clone(&stopping);
        async move { stopping.notified().await }
    }));
    announce(&args, &identity, &node);
    let (ended, asker) = match node.wait().await {
        Ok(End::Leaves(asker)) => {
            stop::stop(&node.handle, &node.host).await;
            let forgotten = Identity::forget(&args.data_dir);
            (forgotten.with_context(|| format!("cannot forget the shoal in {}", args.data_dir.display())), Some(asker))
        }
        Ok(End::Told) => (Ok(()), None),
        Err(error) => (Err(error), None),
    };
    stopping.notify_one();
    match asker {
        // Whoever asked may have gone.
        Some(asker) => drop(asker.send(())),
        None => stop::stop(&node.handle, &node.host).await,
    }
    // A panic in an answer was logged where it happened.
    let _ = serving.await;
    ended
}

/// Why a node ends.
enum End {
    /// It was told to stop, and will be back.
    Told,
    /// It was asked to leave the shoal for good; whoever asked waits until it has.
    Leaves(oneshot::Sender<()>),
}

/// Reads this node's identity or, the first time, founds a shoal or joins one.
async fn identify(args: &UpArgs) -> anyhow::Result<(Identity, Contacts)> {
    let token = args.token.as_deref().map(str::parse::<Token>).transpose()?;
    match Identity::load(&args.data_dir) {
        Ok(identity) => {
            if let Some(token) = &token {
                identity.check_token(&args.data_dir, token)?;
            }
            // A node killed right after joining knows no member but those that its admission named.
            let contacts = contacts_of(&identity);
            return Ok((identity, contacts));
        }
        Err(IdentityError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let name = args.name.clone().unwrap_or_else(host::name);
    if args.seed.is_empty() {
        anyhow::ensure!(
            token.is_none(),
            "--token needs --seed HOST:PORT: the address of any node of the shoal to join"
        );
        return Ok((Identity::found(&args.data_dir, name.as_str())?, Vec::new()));
    }
    let token = token.context("--seed needs --token TOKEN: `shoal join-token` on a node of the shoal prints it")?;
    let key = NodeKey::generate();
    let admitted = tokio::select! {
        admitted = admission::join_any(&args.seed, &token, &key, name.as_str(), |seed, error| {
            tracing::warn!(seed, error = images::chain(error), "not admitted yet");
        }) => admitted?,
        () = stop::told_to_stop() => anyhow::bail!("stopped before a seed admitted this node"),
    };
    let identity = Identity::adopt(&args.data_dir, name.as_str(), key, &admitted)?;
    let contacts = contacts_of(&identity);
    Ok((identity, contacts))
}

/// Returns whom to ask for the way into the shoal, with one address each.
fn contacts_of(identity: &Identity) -> Contacts {
    identity.contacts().iter().filter_map(|(id, addresses)| Some((*id, *addresses.first()?))).collect()
}

/// A running node.
struct Node {
    handle: NodeHandle,
    host: Arc<Host>,
    driver: tokio::sync::Mutex<tokio::task::JoinHandle<Result<(), crate::store::StoreError>>>,
    leaves: tokio::sync::Mutex<mpsc::Receiver<oneshot::Sender<()>>>,
}

impl Node {
    async fn start(
        args: &UpArgs,
        directory: &DataDirectory,
        identity: Arc<Identity>,
        contacts: Contacts,
    ) -> anyhow::Result<Self> {
        let (mut store, records) = Store::open(directory, identity.ca_fingerprint())?;
        let epoch = store.bump_epoch()?;
        let (visitors, admissions) = admission::channel();
        let (transport, events) = Transport::start(&identity, args.listen, visitors)?;
        let data = directory.path();
        let images = open_images(data).await?;
        let exe = std::env::current_exe().context("cannot tell where shoal's own executable is")?;
        let other = |path: &std::path::PathBuf| {
            std::fs::canonicalize(path).with_context(|| {
                format!("cannot use {} to make containers: install it, or leave --runtime out", path.display())
            })
        };
        let shim = ShimCommand { exe, runtime: args.runtime.as_ref().map(other).transpose()? };
        let runtime = Runtime::open(data.join("containers"), shim).await?;
        let overlay = Arc::new(start_overlay(args, &identity, transport.listen_address())?);
        let (dns, dns_addresses) = start_dns(args).await?;

        let meta = describe(args, &identity, &transport, &overlay)?;
        let advertised = meta.gossip;
        let clock = Clock::start();
        let own = identity.node_id();
        let config = Config::new(identity.ca_fingerprint(), epoch, meta, contacts);
        let core = Cluster::restore(own, config, random(), clock.now(), records.into_iter())?;

        let (task_commands, commanded) = mpsc::unbounded_channel();
        let (task_events, happened) = mpsc::unbounded_channel();
        let (commands, requests) = mpsc::channel::<Request>(COMMANDS_WAITING_MAX);
        // The first list counts as changed, so that the core hears it.
        let (list, mut listed) = watch::channel(images::list_of(&images));
        listed.mark_changed();
        let (driver, views) =
            Driver::new(core, clock, store, transport.clone(), task_commands, Lease::new(data.join("lease")));
        let registries = Registries::new(args.registries())?;
        let images = Arc::new(Images::new(own, images, transport.clone(), registries, views.clone(), list));
        tokio::spawn(images::space::watch(Arc::clone(&images), args.image_high_water));
        tokio::spawn(images::ahead::run(Arc::clone(&images), args.image_high_water));
        let health = HealthBoard::open(data.join("health")).context("cannot open the notes on health")?;
        let health = Arc::new(health);
        let volumes = Volumes::open(data.join("volumes")).context("cannot open the volumes")?;
        let volumes = Arc::new(volumes);
        let host = Arc::new(Host {
            node_name: identity.name().to_owned(),
            cgroup_parent: format!("shoal/{own}"),
            runtime,
            overlay: Arc::clone(&overlay),
            images: Arc::clone(&images),
            dns: Arc::clone(&dns),
            volumes: Arc::clone(&volumes),
            health: Arc::clone(&health),
            data_key: identity.data_key().clone(),
            lease: data.join("lease"),
            files: args.data_dir.join("files"),
            views: views.clone(),
            events: task_events,
            stopping: CancellationToken::new(),
            jobs: TaskTracker::new(),
        });
        serve_peers(&transport, &images);
        let local: Arc<dyn Tasks> = Arc::new(reach::Local::new(host.runtime.clone(), Arc::clone(&health)));
        reach::serve(&transport, Arc::clone(&local));
        let reach = reach::everywhere(own, local, transport.clone(), views.clone());
        tokio::spawn(admission::serve(
            Arc::clone(&identity),
            Arc::new(FrontDesk { own, views: views.clone() }),
            admissions,
        ));
        tokio::spawn(executor::run(Arc::clone(&host), commanded));
        tokio::spawn(levels::carry(Edges { own, transport: transport.clone(), overlay, dns }, views.clone()));
        dial_seeds(args, &transport).await;
        let inputs = Inputs { transport: events, tasks: happened, images: listed, commands: requests };
        let driver = tokio::sync::Mutex::new(tokio::spawn(driver.run(inputs)));
        let about = about(args, &identity, advertised, dns_addresses, transport)?;
        let (leave, leaves) = mpsc::channel(1);
        let handle = handle(views, (commands, leave), about, &images, health, volumes, reach);
        let events = Arc::clone(&handle.events);
        tokio::spawn(api::watch_events(events, own, Arc::clone(&handle.reach), handle.views.clone()));
        Ok(Self { handle, host, driver, leaves: tokio::sync::Mutex::new(leaves) })
    }

    /// Waits until somebody wants the node to stop, or its disk fails.
    async fn wait(&self) -> anyhow::Result<End> {
        let (mut driver, mut leaves) = (self.driver.lock().await, self.leaves.lock().await);
        tokio::select! {
            ended = &mut *driver => {
                ended.context("the driver panicked; see the log above")?.map(|()| End::Told).map_err(Into::into)
            }
            Some(asker) = leaves.recv() => Ok(End::Leaves(asker)),
            () = stop::told_to_stop() => Ok(End::Told),
        }
    }
}

async fn open_images(data: &std::path::Path) -> anyhow::Result<Arc<ImageStore>> {
    let path = data.join("images");
    let opened = tokio::task::spawn_blocking(move || ImageStore::open(&path)).await?;
    Ok(Arc::new(opened?))
}

fn start_overlay(args: &UpArgs, identity: &Identity, gossip: SocketAddr) -> anyhow::Result<Overlay> {
    let listen = SocketAddr::new(args.listen.ip(), gossip.port());
    Ok(Overlay::start(OverlayConfig {
        node: identity.node_id(),
        listen,
        interface: args.interface.clone(),
        mtu: shoal_overlay::MTU,
        server: identity.tunnel_server()?,
        client: identity.tunnel_client()?,
        server_name: crate::identity::SERVER_NAME.to_owned(),
        identify: Arc::new(node_id_of),
    })?)
}

async fn start_dns(args: &UpArgs) -> anyhow::Result<(Arc<DnsServer>, Vec<SocketAddr>)> {
    let upstreams = if args.upstream.is_empty() { Upstreams::System } else { Upstreams::List(args.upstream.clone()) };
    let dns = Arc::new(DnsServer::new(DnsConfig { upstreams, ..DnsConfig::default() }));
    let mut addresses = Vec::new();
    for address in &args.dns_listen {
        addresses.push(dns.listen(*address).await?);
    }
    Ok((dns, addresses))
}

/// Returns what this node tells all others of itself.
fn describe(args: &UpArgs, identity: &Identity, transport: &Transport, overlay: &Overlay) -> anyhow::Result<NodeMeta> {
    let listen = transport.listen_address();
    let address = args.advertise_addr.unwrap_or_else(|| {
        let seed = || args.seed.iter().find_map(|seed| seed.parse().ok());
        if listen.ip().is_unspecified() { host::address(seed()) } else { listen.ip() }
    });
    let label_bytes: usize = args.label.iter().map(|(key, value)| key.len() + value.len()).sum();
    anyhow::ensure!(
        label_bytes <= ENGINE_LABELS_BYTES_MAX,
        "the engine labels have {label_bytes} bytes, at most {ENGINE_LABELS_BYTES_MAX} are allowed: every node keeps \
         them; use node labels (`shoal node update --label-add`) for the rest"
    );
    Ok(NodeMeta {
        name: Name::new(identity.name())?,
        gossip: SocketAddr::new(address, listen.port()),
        tunnel: SocketAddr::new(address, overlay.listen_address().port()),
        role: match authority::role_of(identity.leaf()) {
            Some(authority::Role::Manager) => Role::Manager,
            Some(authority::Role::Worker) | None => Role::Worker,
        },
        wire_version: 1,
        plan_version: shoal_cluster::plan::VERSION,
        labels: args.label.iter().cloned().collect(),
        leaving: false,
        counts: false,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        architecture: host::architecture().to_owned(),
        nano_cpus: host::nano_cpus(),
        memory_bytes: host::memory_bytes(),
    })
}

/// Lets peers read this node's blobs.
fn serve_peers(transport: &Transport, images: &Images) {
    let store = Arc::clone(images.store());
    transport.serve_blobs(Arc::new(move |digest: &str| {
        let digest = digest.parse().ok()?;
        let whole = store.open_blob(&digest).map(Into::into);
        whole.or_else(|| store.open_growing(&digest).map(Into::into))
    }));
}

async fn dial_seeds(args: &UpArgs, transport: &Transport) {
    for seed in &args.seed {
        match tokio::net::lookup_host(seed).await {
            Ok(addresses) => addresses.for_each(|address| transport.dial(address)),
            Err(error) => tracing::warn!(seed, %error, "cannot resolve a seed"),
        }
    }
}

fn about(
    args: &UpArgs,
    identity: &Identity,
    advertised: SocketAddr,
    dns: Vec<SocketAddr>,
    transport: Transport,
) -> anyhow::Result<About> {
    let token = |role| identity.token(role).map(|token| token.to_string());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(About {
        id: identity.node_id(),
        name: Name::new(identity.name())?,
        role: Role::Manager,
        shoal: identity.ca_fingerprint(),
        ca_pem: authority::pem(identity.ca()),
        data_dir: args.data_dir.clone(),
        advertised: advertised.to_string(),
        dns: dns.iter().map(ToString::to_string).collect(),
        started_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        tokens: Tokens { manager: token(authority::Role::Manager), worker: None },
        data_key: identity.data_key().clone(),
        traffic: Box::new(move || traffic(&transport)),
    })
}

fn traffic(transport: &Transport) -> api::status::Traffic {
    let carried = transport.traffic();
    api::status::Traffic { sent_bytes: carried.sent_bytes, received_bytes: carried.received_bytes }
}

fn handle(
    views: watch::Receiver<Arc<Views>>,
    (commands, leave): (mpsc::Sender<Request>, mpsc::Sender<oneshot::Sender<()>>),
    about: About,
    images: &Arc<Images>,
    health: Arc<HealthBoard>,
    volumes: Arc<Volumes>,
    reach: Reach,
) -> NodeHandle {
    let images_changed = Arc::new(Notify::new());
    let (changed, publishing) = (Arc::clone(&images_changed), Arc::clone(images));
    tokio::spawn(async move {
        loop {
            changed.notified().await;
            publishing.changed();
        }
    });
    NodeHandle {
        views,
        commands,
        about: Arc::new(about),
        volumes,
        health,
        images: Arc::clone(images.store()),
        images_changed,
        sources: Arc::new(ImageSources(Arc::clone(images))),
        reach,
        execs: Arc::default(),
        events: Arc::default(),
        leave,
    }
}

/// Prints what the operator needs to know first.
#[expect(clippy::print_stdout, reason = "the command's output")]
fn announce(args: &UpArgs, identity: &Identity, node: &Node) {
    let about = &node.handle.about;
    println!("node    {} ({})", about.id, about.name);
    println!("shoal   {}", crate::identity::short(&identity.ca_fingerprint()));
    println!("socket  {}", args.socket.display());
    println!("dns     {}", about.dns.join(", "));
    if let Some(token) = &about.tokens.manager {
        println!("join    shoal up --seed {} --token {token}", about.advertised);
    }
    println!("\nTry: docker -H unix://{} node ls", args.socket.display());
}
