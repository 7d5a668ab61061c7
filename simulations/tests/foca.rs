//! Our membership and `foca`'s in the same network with the same seeds: an oracle for what a SWIM may cost and miss.
//!
//! `foca` is SWIM with suspicion, without Lifeguard's additions, with memberlist's LAN profile. Ours must find crashes
//! sooner and declare no more living nodes down, in one run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{
    AccumulatingRuntime, Config, Foca, Identity, Member, NoCustomBroadcast, OwnedNotification, PostcardCodec, Timer,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use shoal_cluster::Instant;
use shoal_simulations::membership::ours::Ours;
use shoal_simulations::membership::{Figures, Output, Place, Protocol, Scenario, run};

/// A node, and which of its lives this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    number: u32,
    life: u32,
}

impl Identity for Id {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { number: self.number, life: self.life + 1 })
    }

    fn addr(&self) -> u32 {
        self.number
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// One node of foca, with the timers that it asked for.
struct Theirs {
    foca: Foca<Id, PostcardCodec, SmallRng, NoCustomBroadcast>,
    timers: BinaryHeap<Reverse<(Instant, Slot)>>,
    events: Vec<Option<Timer<Id>>>,
    outputs: VecDeque<Output<Vec<u8>>>,
}

/// Where a timer is kept; timers that are due together go in foca's own order.
type Slot = (u8, usize);

impl Theirs {
    fn drain(&mut self, now: Instant, mut runtime: AccumulatingRuntime<Id>) {
        while let Some((to, bytes)) = runtime.to_send() {
            let (bytes, to) = (bytes.to_vec(), to.number as usize);
            self.outputs.push_back(Output::Send { to, bytes: bytes.len() as u64, message: bytes });
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            let rank = match timer {
                Timer::SendIndirectProbe { .. } => 0,
                Timer::ProbeRandomMember(_) => 1,
                Timer::ChangeSuspectToDown { .. } => 2,
                Timer::PeriodicAnnounce(_) => 3,
                Timer::PeriodicGossip(_) => 4,
                Timer::RemoveDown(_) => 5,
                Timer::PeriodicAnnounceDown(_) => 6,
            };
            self.timers.push(Reverse((now + after, (rank, self.events.len()))));
            self.events.push(Some(timer));
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) => self.outputs.push_back(Output::Up(id.number as usize)),
                OwnedNotification::MemberDown(id) => self.outputs.push_back(Output::Down(id.number as usize)),
                OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
        if self.timers.is_empty() {
            self.events.clear();
        }
    }
}

impl Protocol for Theirs {
    type Message = Vec<u8>;
    type Disk = u32;

    fn start(place: &Place, disk: &mut u32, now: Instant) -> Self {
        *disk += 1_000;
        let own = Id { number: place.number as u32, life: *disk };
        let size = NonZeroU32::new(place.count as u32).expect("there are nodes");
        let mut config = Config::new_lan(size);
        // Dead nodes of one run are of no interest to another; ours never forgets one.
        config.remove_down_after = None;
        let random = SmallRng::from_seed(place.seed);
        let foca = Foca::new(own, config, random, PostcardCodec);
        let mut theirs = Self { foca, timers: BinaryHeap::new(), events: Vec::new(), outputs: VecDeque::new() };
        let mut runtime = AccumulatingRuntime::new();
        if place.contacts.is_empty() {
            let others = (0..place.count as u32).filter(|other| *other as usize != place.number);
            let members = others.map(|number| Member::alive(Id { number, life: 1_000 }));
            theirs.foca.apply_many(members, false, &mut runtime).expect("members apply");
        }
        for &contact in &place.contacts {
            let contact = Id { number: contact as u32, life: 0 };
            theirs.foca.announce(contact, &mut runtime).expect("an announcement fits");
        }
        theirs.drain(now, runtime);
        theirs
    }

    fn handle(&mut self, now: Instant, _: usize, message: Vec<u8>) {
        let mut runtime = AccumulatingRuntime::new();
        // What it refuses, it says in an error, and stays as it was.
        drop(self.foca.handle_data(&message, &mut runtime));
        self.drain(now, runtime);
    }

    fn lost(&mut self, _: Instant, _: usize) {}

    fn timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, (_, slot)))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(timer) = self.events[slot].take() else { continue };
            let mut runtime = AccumulatingRuntime::new();
            drop(self.foca.handle_timer(timer, &mut runtime));
            self.drain(now, runtime);
        }
    }

    fn due(&self) -> Instant {
        self.timers.peek().map_or(Instant::from_micros(u64::MAX), |Reverse((at, _))| *at)
    }

    fn poll(&mut self, _: &mut u32) -> Option<Output<Vec<u8>>> {
        self.outputs.pop_front()
    }
}

#[expect(clippy::print_stdout, reason = "both figures side by side")]
fn compare(what: &str, scenario: &Scenario) -> (Figures, Figures) {
    let (ours, theirs) = (run::<Ours>(scenario), run::<Theirs>(scenario));
    println!("{what}, {} nodes, seed {}\n ours\n{ours}\n foca\n{theirs}", scenario.nodes, scenario.seed);
    (ours, theirs)
}

#[test]
fn crashes_are_found_sooner_than_by_foca() {
    let scenario = Scenario { nodes: 40, seed: 3, crashes: 12, ..Scenario::default() };
    let (ours, theirs) = compare("silent crashes", &scenario);
    assert_eq!((ours.missed, theirs.missed), (0, 0), "both find all");
    assert_eq!((ours.false_deaths, theirs.false_deaths), (0, 0), "nobody else dies");
    for percent in [50, 99] {
        let (ours, theirs) = (ours.spread().percentile(percent), theirs.spread().percentile(percent));
        assert!(ours < theirs, "p{percent}: {ours:?}, foca {theirs:?}");
    }
    assert!(ours.spread().percentile(99) <= Duration::from_secs(5));
}

#[test]
fn slow_nodes_are_declared_down_less_often_than_by_foca() {
    let scenario = Scenario { nodes: 40, seed: 4, slow: 2, idle: Duration::from_secs(300), ..Scenario::default() };
    let (ours, theirs) = compare("slow nodes", &scenario);
    assert!(ours.false_deaths <= theirs.false_deaths, "ours {}, foca {}", ours.false_deaths, theirs.false_deaths);
    assert_eq!(ours.false_deaths, 0);
}

#[test]
fn loss_kills_nobody_with_either() {
    let scenario =
        Scenario { nodes: 40, seed: 5, loss_permille: 50, idle: Duration::from_secs(600), ..Scenario::default() };
    let (ours, theirs) = compare("5 % loss", &scenario);
    assert_eq!(ours.false_deaths, 0);
    assert!(ours.false_deaths <= theirs.false_deaths);
}
