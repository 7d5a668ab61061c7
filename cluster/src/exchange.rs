//! Exchange: what a message from a peer changes here, and what is answered.

use alloc::vec::Vec;

use crate::Cluster;
use crate::crdt::Dot;
use crate::id::NodeId;
use crate::intent::{Entry, Learned};
use crate::io::Event;
use crate::mutation::{self, Mutation};
use crate::record::Record;
use crate::reports::{Followed, ReportRange};
use crate::sync::compare::Planes;
use crate::sync::message::{Digests, Known, Message, Parts, Push, Ranges, Repair, RepairAsk, Span, Summary};
use crate::sync::rounds::Settling;

impl Cluster {
    /// Takes in a message, whatever its bytes.
    pub(crate) fn receive(&mut self, from: NodeId, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(None) => {}
            Ok(Some(_)) if from == self.own => self.dropped(from, "a peer claims to be this node"),
            Ok(Some(Message::Membership(message))) => self.membership.handle(self.now.mono, from, message),
            Ok(Some(Message::Summary(summary))) => self.receive_summary(from, summary),
            Ok(Some(Message::Known(known))) => self.receive_known(from, &known),
            Ok(Some(Message::Ranges(ranges))) => self.receive_ranges(from, ranges),
            Ok(Some(Message::Push(push))) => self.receive_push(from, push),
            Ok(Some(Message::RepairAsk(ask))) => {
                let repair = self.planes().repair(ask.from.as_ref());
                self.send(from, &Message::Repair(repair));
            }
            Ok(Some(Message::Repair(repair))) => self.receive_repair(from, repair),
            Ok(Some(Message::Stored(known))) => self.note_stored(from, &known),
            Ok(Some(Message::Gone(gone))) => self.receive_gone(from, gone),
            Ok(Some(Message::Sketch(sketch))) => {
                if let Some(parts) = self.planes().differing(&sketch) {
                    self.tell(from, Span::ALL, &parts, true);
                }
            }
            Err(error) => self.dropped(from, error.reason()),
        }
    }

    /// Opens a round with a peer.
    pub(crate) fn ask(&mut self, peer: NodeId) {
        let digests = self.digests();
        self.send(peer, &Message::Summary(Summary { digests, asks: true }));
    }

    fn receive_summary(&mut self, from: NodeId, summary: Summary) {
        let digests = self.digests();
        let same = digests.known == summary.digests.known;
        if same {
            self.reports.confirm(&from, self.reports.head(&from));
        }
        self.views = None;
        if digests.writes == summary.digests.writes {
            self.note_same_writes(from);
        }
        // A node that was away for long first hears what was removed since.
        let differs = self.differs(digests, summary.digests);
        if self.rounds.summary(self.now.mono, from, summary.digests, same && !differs) {
            self.settled();
        }
        if differs {
            self.send(from, &Message::RepairAsk(RepairAsk { from: None }));
        }
        if !summary.asks {
            return;
        }
        if same {
            self.send(from, &Message::Summary(Summary { digests, asks: false }));
        } else if let Some(sketch) = self.planes().sketch() {
            self.send(from, &Message::Sketch(sketch));
        } else {
            self.tell(from, Span::ALL, &Parts::default(), true);
        }
    }

    /// Tells whether two nodes that know the same writes have other versions: one has broken a rule.
    fn differs(&self, own: Digests, theirs: Digests) -> bool {
        // Repair would mend what some mutations break: it is the second line of defence, and is not what they test.
        own.known == theirs.known && own.intent != theirs.intent && !mutation::any()
    }

    fn receive_known(&mut self, from: NodeId, known: &Known) {
        self.outdo(known);
        self.note_known(from, known);
        for (_, head) in known.reports.iter().filter(|(node, _)| *node == from) {
            self.reports.confirm(&from, *head);
        }
        let planes = self.planes();
        let (behind, lacking) = (planes.behind(known), planes.lacks_of(known));
        let ranges = planes.lacking(known);
        self.views = None;
        if self.rounds.known(self.now.mono, from, known.digests, known.span, behind, lacking) {
            self.settled();
        }
        if let Some(ranges) = ranges {
            self.send(from, &Message::Ranges(ranges));
        }
        if known.asks && lacking {
            self.tell(from, known.span, &known.parts, false);
        }
    }

    /// Goes beyond what a peer claims to know of this node's own writes and report, or what comes next would pass
    /// for known there.
    fn outdo(&mut self, known: &Known) {
        let actor = self.intent.actor();
        let claims = known.actors.iter().filter(|known| known.actor == actor);
        let upto = claims.flat_map(|known| known.ahead.last().copied().into_iter().chain([known.upto])).max();
        if let Some(upto) = upto.and_then(|upto| self.intent.outdo(upto)) {
            self.persist(&Record::Vector(alloc::vec![(actor, upto)]));
        }
        for (_, head) in known.reports.iter().filter(|(node, _)| *node == self.own) {
            self.reports.outdo(*head);
        }
    }

    /// Tells a peer what is known here of the nodes in `span` and `parts`, so that it sends what is not.
    fn tell(&mut self, to: NodeId, span: Span, parts: &Parts, asks: bool) {
        if mutation::on(Mutation::NoAntiEntropy) {
            return;
        }
        let digests = self.digests();
        for known in self.planes().known(digests, span, parts, asks) {
            self.send(to, &Message::Known(known));
        }
    }

    fn receive_ranges(&mut self, from: NodeId, ranges: Ranges) {
        let mut vector = Vec::new();
        let (mut news, mut collected) = (false, false);
        for range in ranges.intent {
            let actor = range.actor;
            let learned = self.intent.learn_range(self.now.wall_ms, range);
            news |= !learned.new.is_empty() || learned.upto.is_some();
            for entry in learned.new {
                self.persist(&Record::Entry(entry));
            }
            vector.extend(learned.upto.map(|upto| (actor, upto)));
            collected |= learned.collected;
            if let Some(reason) = learned.refused {
                self.dropped(from, reason);
            }
        }
        if !vector.is_empty() {
            self.persist(&Record::Vector(vector));
        }
        if collected {
            self.persist(&Record::Collected(self.intent.collected().iter().collect()));
        }
        for range in ranges.reports {
            news |= self.follow(from, &range) == Followed::New;
        }
        // Only what brought news is followed up, so that two nodes that cannot agree do not talk without end.
        if news && ranges.more {
            self.tell(from, ranges.span, &ranges.parts, false);
        } else if news && self.rounds.settling() != Settling::Settled {
            self.catch_up(from);
        }
    }

    fn receive_push(&mut self, from: NodeId, push: Push) {
        let hops = push.hops.saturating_sub(1).min(self.hops());
        let dots: Vec<Dot> = push.entries.iter().map(|entry| entry.version.dot).collect();
        for entry in push.entries {
            match self.intent.learn(self.now.wall_ms, entry.clone()) {
                Learned::New => self.pass_on(hops, from, entry),
                Learned::Known => {}
                Learned::Refused(reason) => self.dropped(from, reason),
            }
        }
        self.confirm_stored(from, &dots);
        for range in push.reports {
            match self.follow(from, &range) {
                Followed::New if hops > 0 => self.rumours.report(hops, Some(from), range),
                Followed::New | Followed::Known | Followed::Refused(_) => {}
                Followed::Gap => self.tell(from, Span::only(range.node), &Parts::default(), false),
            }
        }
    }

    fn receive_repair(&mut self, from: NodeId, repair: Repair) {
        let mut gone = Vec::new();
        for entry in repair.entries {
            let dot = entry.version.dot;
            if self.intent.is_gone(&entry.key, &dot) {
                if entry.version.value.is_some() {
                    gone.push((entry.key, dot));
                }
                continue;
            }
            match self.intent.repair(self.now.wall_ms, &entry) {
                Learned::New => self.persist(&Record::Entry(entry)),
                Learned::Known => {}
                Learned::Refused(reason) => self.dropped(from, reason),
            }
        }
        self.tell_gone(from, gone);
        if repair.next.is_some() {
            self.send(from, &Message::RepairAsk(RepairAsk { from: repair.next }));
        }
    }

    /// Makes a learnt entry durable and passes it on.
    fn pass_on(&mut self, hops: u8, from: NodeId, entry: Entry) {
        if !mutation::on(Mutation::StoredNowhere) {
            self.persist(&Record::Entry(entry.clone()));
        }
        if hops > 0 {
            self.rumours.entry(hops, Some(from), entry);
        }
    }

    fn follow(&mut self, from: NodeId, range: &ReportRange) -> Followed {
        let followed = self.reports.follow(range);
        if let Followed::Refused(reason) = followed {
            self.dropped(from, reason);
        }
        followed
    }

    /// Returns what this node has, as hashes, which are computed once per change.
    fn digests(&mut self) -> Digests {
        let present = [self.intent.changes(), self.reports.changes()];
        let digests = match self.digests {
            Some((of, digests)) if of == present => Digests { plan: self.plan.digest, ..digests },
            Some((of, digests)) if of[0] == present[0] => self.planes().digests(Some(digests)),
            Some(_) | None => self.planes().digests(None),
        };
        self.digests = Some((present, digests));
        digests
    }

    pub(crate) fn planes(&self) -> Planes<'_> {
        Planes { intent: &self.intent, reports: &self.reports, plan: self.plan.digest }
    }

    pub(crate) fn dropped(&mut self, from: NodeId, reason: &'static str) {
        self.notify(Event::MessageDropped { from, reason });
    }
}
