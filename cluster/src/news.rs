//! News: what was just written or learnt goes out, whole to a few and in short to neighbours, and what others tell of in
//! short is asked for. See `docs/protocol.md#sync`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::Cluster;
use crate::clock::Instant;
use crate::crdt::Actor;
use crate::id::NodeId;
use crate::intent::range::Range;
use crate::intent::{Entry, Learned};
use crate::limits::BATCH_BYTES_MAX;
use crate::mutation::{self, Mutation};
use crate::record::Record;
use crate::reports::{Followed, ReportRange};
use crate::sync::compare::Planes;
use crate::sync::message::{Given, Message, Push};
use crate::sync::news::{LINES_MAX, Line, Short, Subject, Wish};
use crate::sync::rumour;

impl Cluster {
    /// Sends what was written or learnt in this turn, whole to a few and in short to neighbours.
    pub(crate) fn send_news(&mut self) {
        let hops = self.hops();
        while let Some(range) = self.reports.range(&self.own, self.pushed, BATCH_BYTES_MAX) {
            self.pushed = range.upto;
            self.telling.learnt(Subject::report(&self.own), Vec::new());
            self.rumours.report(hops, None, range);
        }
        if !self.rumours.is_empty() {
            for (to, push) in self.rumours.flush(self.membership.others_up()) {
                for entry in &push.entries {
                    self.telling.has(&Subject::writes(&entry.version.dot.actor), to);
                }
                for range in &push.reports {
                    self.telling.has(&Subject::report(&range.node), to);
                }
                self.send(to, &Message::Push(push));
            }
        }
        self.tell_news();
        self.ask_on();
    }

    /// Makes a write of this node durable, and then known.
    pub(crate) fn publish(&mut self, entry: Entry) {
        if !mutation::on(Mutation::AcknowledgeBeforeDurable) {
            self.persist(&Record::Entry(entry.clone()));
        }
        let dot = entry.version.dot;
        self.copies.wrote(self.now.mono, dot.counter);
        self.telling.learnt(Subject::writes(&dot.actor), Vec::new());
        self.rumours.entry(self.hops(), None, entry);
    }

    /// Returns how often news of this node may be passed on whole.
    pub(crate) fn hops(&self) -> u8 {
        rumour::hops(self.membership.members().len())
    }

    pub(crate) fn receive_push(&mut self, from: NodeId, push: Push) {
        let hops = push.hops.saturating_sub(1).min(self.hops());
        let actors: BTreeSet<Actor> = push.entries.iter().map(|entry| entry.version.dot.actor).collect();
        for entry in push.entries {
            match self.intent.learn(self.now.wall_ms, entry.clone()) {
                Learned::New => self.pass_on(hops, from, entry),
                Learned::Known => {}
                Learned::Refused(reason) => self.dropped(from, reason),
            }
        }
        self.confirm_stored(from, &actors);
        let mut wishes = Vec::new();
        for range in push.reports {
            match self.follow(from, &range) {
                Followed::New if hops > 0 => self.rumours.report(hops, Some(from), range),
                Followed::New | Followed::Known | Followed::Refused(_) => {}
                Followed::Gap => {
                    let of = Short::of(&range.node);
                    wishes.extend(self.hear(from, Line::Report { of, head: range.upto }));
                }
            }
        }
        self.want(from, wishes);
    }

    /// Asks for what is told of and not known here.
    pub(crate) fn receive_told(&mut self, from: NodeId, lines: Vec<Line>) {
        if !self.membership.is_up(&from) {
            return;
        }
        let wishes = lines.into_iter().take(LINES_MAX).filter_map(|line| self.hear(from, line)).collect();
        self.want(from, wishes);
    }

    pub(crate) fn receive_wanted(&mut self, from: NodeId, wishes: &[Wish]) {
        if let Some(given) = self.planes().give(wishes) {
            self.send(from, &Message::Given(given));
        }
    }

    pub(crate) fn receive_given(&mut self, from: NodeId, given: Given) {
        let actors: BTreeSet<Actor> = given.intent.iter().map(|range| range.actor).collect();
        let subjects = actors.iter().map(Subject::writes);
        let subjects: Vec<Subject> =
            subjects.chain(given.reports.iter().map(|range| Subject::report(&range.node))).collect();
        self.learn_ranges(from, given.intent, &given.reports);
        self.confirm_stored(from, &actors);
        for subject in subjects {
            let planes = Planes { intent: &self.intent, reports: &self.reports, plan: self.plan.digest };
            let next = self.asking.answered(self.now.mono, from, subject, |line| planes.lacks(line));
            if let Some(next) = next {
                let wish = self.planes().wish(&subject);
                self.want(next, alloc::vec![wish]);
            }
        }
    }

    /// Takes in ranges of writes and reports, and makes what is new in them durable. Tells whether anything was.
    pub(crate) fn learn_ranges(&mut self, from: NodeId, intent: Vec<Range>, reports: &[ReportRange]) -> bool {
        let mut vector = Vec::new();
        let (mut news, mut collected) = (false, false);
        for range in intent {
            let actor = range.actor;
            let learned = self.intent.learn_range(self.now.wall_ms, range);
            if !learned.new.is_empty() || learned.upto.is_some() {
                news = true;
                self.telling.learnt(Subject::writes(&actor), alloc::vec![from, actor.node]);
            }
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
        for range in reports {
            news |= self.follow(from, range) == Followed::New;
        }
        news
    }

    /// Returns when there is something to tell or to ask.
    pub(crate) fn news_deadline(&self) -> Instant {
        let never = Instant::from_micros(u64::MAX);
        self.telling.deadline().unwrap_or(never).min(self.asking.deadline().unwrap_or(never))
    }

    /// Makes a learnt entry durable and passes it on.
    fn pass_on(&mut self, hops: u8, from: NodeId, entry: Entry) {
        if !mutation::on(Mutation::StoredNowhere) {
            self.persist(&Record::Entry(entry.clone()));
        }
        let actor = entry.version.dot.actor;
        self.telling.learnt(Subject::writes(&actor), alloc::vec![from, actor.node]);
        if hops > 0 {
            self.rumours.entry(hops, Some(from), entry);
        }
    }

    fn follow(&mut self, from: NodeId, range: &ReportRange) -> Followed {
        let followed = self.reports.follow(range);
        match followed {
            Followed::New => self.telling.learnt(Subject::report(&range.node), alloc::vec![from, range.node]),
            Followed::Refused(reason) => self.dropped(from, reason),
            Followed::Known | Followed::Gap => {}
        }
        followed
    }

    /// Takes in one line; returns what to ask its teller for, if it is to be asked.
    fn hear(&mut self, from: NodeId, line: Line) -> Option<Wish> {
        let subject = line.subject();
        if self.planes().lacks(&line) {
            return self.asking.told(self.now.mono, from, line).then(|| self.planes().wish(&subject));
        }
        if self.telling.is_fresh(&subject) && self.planes().line(&subject).is_some_and(|own| line.covers(&own)) {
            self.telling.has(&subject, from);
        }
        None
    }

    /// Tells the neighbours what they may not have heard of, if it is time.
    fn tell_news(&mut self) {
        let others = self.membership.others_up();
        let fresh = self.telling.take(self.now.mono, others.len());
        if fresh.is_empty() {
            return;
        }
        let neighbours = self.telling.neighbours(self.own, self.membership.standing(), others).to_vec();
        for to in neighbours {
            let news = fresh.iter().filter(|(_, have)| !have.contains(&to));
            let lines: Vec<Line> = news.filter_map(|(subject, _)| self.planes().line(subject)).collect();
            for lines in lines.chunks(LINES_MAX) {
                self.send(to, &Message::Told(lines.to_vec()));
            }
        }
    }

    /// Asks others for what was not answered in time.
    fn ask_on(&mut self) {
        if self.asking.deadline().is_none_or(|due| due > self.now.mono) {
            return;
        }
        let planes = Planes { intent: &self.intent, reports: &self.reports, plan: self.plan.digest };
        let membership = &self.membership;
        let again = self.asking.overdue(self.now.mono, |line| planes.lacks(line), |member| membership.is_up(member));
        let mut wishes: BTreeMap<NodeId, Vec<Wish>> = BTreeMap::new();
        for (member, subject) in again {
            wishes.entry(member).or_default().push(self.planes().wish(&subject));
        }
        for (member, wishes) in wishes {
            self.want(member, wishes);
        }
    }

    fn want(&mut self, of: NodeId, wishes: Vec<Wish>) {
        for wishes in wishes.chunks(LINES_MAX) {
            self.send(of, &Message::Wanted(wishes.to_vec()));
        }
    }
}
