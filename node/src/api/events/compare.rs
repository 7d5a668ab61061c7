//! What happened between two looks at the shoal. Pure.

use std::collections::BTreeMap;

use shoal_cluster::intent::node::Availability;
use shoal_cluster::membership::member::{Member, MemberState};
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;
use shoal_cluster::{NodeId, TaskId, Views};

use super::{Event, Kind};
use crate::api::containers;

type Attributes = BTreeMap<String, String>;

/// Returns the events that lie between two views, nodes first, then services, then this node's containers.
pub(super) fn compare(before: &Views, after: &Views, own: NodeId) -> Vec<Event> {
    let mut events = Vec::new();
    nodes(before, after, &mut events);
    services(before, after, &mut events);
    containers(before, after, own, &mut events);
    events
}

fn nodes(before: &Views, after: &Views, events: &mut Vec<Event>) {
    for member in &after.members {
        let mut attributes = Attributes::from([("name".to_owned(), member.meta.name.to_string())]);
        let (action, differs) = match before.member(&member.id) {
            None => ("create", true),
            Some(old) => {
                let state = changed(&mut attributes, "state", state(old), state(member));
                let availability = changed(
                    &mut attributes,
                    "availability",
                    availability(before, &member.id),
                    availability(after, &member.id),
                );
                ("update", state || availability)
            }
        };
        if differs {
            events.push(Event::new(Kind::Node, action, member.id.to_string(), attributes));
        }
    }
    for member in before.members.iter().filter(|member| after.member(&member.id).is_none()) {
        let attributes = Attributes::from([("name".to_owned(), member.meta.name.to_string())]);
        events.push(Event::new(Kind::Node, "remove", member.id.to_string(), attributes));
    }
}

/// Notes a difference as Docker writes it.
fn changed(attributes: &mut Attributes, what: &str, old: &str, new: &str) -> bool {
    if old != new {
        attributes.insert(format!("{what}.old"), old.to_owned());
        attributes.insert(format!("{what}.new"), new.to_owned());
    }
    old != new
}

fn state(member: &Member) -> &'static str {
    match member.state {
        // A suspicion is not news: it is refuted or becomes true within seconds.
        MemberState::Alive | MemberState::Suspect => "ready",
        MemberState::Down => "down",
        MemberState::Left => "disconnected",
    }
}

fn availability(views: &Views, node: &NodeId) -> &'static str {
    match views.nodes.get(node).map(|intent| intent.spec.availability) {
        None | Some(Availability::Active) => "active",
        Some(Availability::Pause) => "pause",
        Some(Availability::Drain) => "drain",
    }
}

fn services(before: &Views, after: &Views, events: &mut Vec<Event>) {
    let old: BTreeMap<_, _> = before.services.iter().map(|service| (service.id, service)).collect();
    let new: BTreeMap<_, _> = after.services.iter().map(|service| (service.id, service)).collect();
    let named = |name: &dyn std::fmt::Display| Attributes::from([("name".to_owned(), name.to_string())]);
    for (id, service) in &new {
        let action = match old.get(id) {
            None => "create",
            Some(old) if old.version != service.version => "update",
            Some(_) => continue,
        };
        events.push(Event::new(Kind::Service, action, id.to_string(), named(&service.spec.name)));
    }
    for (id, service) in old.iter().filter(|(id, _)| !new.contains_key(id)) {
        events.push(Event::new(Kind::Service, "remove", id.to_string(), named(&service.spec.name)));
    }
}

/// How far a container has come: not made, running, ended.
fn stage(task: &TaskView) -> u8 {
    match task.report.state {
        TaskState::Accepted | TaskState::Preparing | TaskState::Starting => 0,
        TaskState::Running | TaskState::Stopping => 1,
        TaskState::Complete | TaskState::Failed | TaskState::Shutdown => 2,
    }
}

fn containers(before: &Views, after: &Views, own: NodeId, events: &mut Vec<Event>) {
    let here = |views: &'_ Views| -> BTreeMap<TaskId, TaskView> {
        let here = views.tasks.iter().filter(|task| task.node == own);
        here.map(|task| (task.report.id, task.clone())).collect()
    };
    let (old, new) = (here(before), here(after));
    for (id, task) in &new {
        let (was, is) = (old.get(id).map_or(0, stage), stage(task));
        // One that ended before anybody looked has been there all the same, unless it never started.
        if was == 0 && (is == 1 || (is == 2 && task.report.exit_code.is_some())) {
            for action in ["create", "start"] {
                events.push(Event::new(Kind::Container, action, id.to_string(), containers::attributes(after, task)));
            }
        }
        if was < 2 && is == 2 {
            let mut attributes = containers::attributes(after, task);
            attributes.insert("exitCode".to_owned(), task.report.exit_code.unwrap_or(137).to_string());
            events.push(Event::new(Kind::Container, "die", id.to_string(), attributes));
        }
    }
    for (id, task) in old.iter().filter(|(id, _)| !new.contains_key(id)) {
        events.push(Event::new(Kind::Container, "destroy", id.to_string(), containers::attributes(before, task)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::views;

    fn words(before: &Views, after: &Views) -> Vec<(String, String)> {
        let own = before.members[0].id;
        let events = compare(before, after, own);
        events.into_iter().map(|event| (event.kind.word().to_owned(), event.action.to_owned())).collect()
    }

    fn pair(kind: &str, action: &str) -> (String, String) {
        (kind.to_owned(), action.to_owned())
    }

    #[test]
    fn each_difference_is_told_once_and_no_difference_is_silence() {
        let before = views();
        assert_eq!(words(&before, &before), []);

        let mut after = before.clone();
        after.services[0].version += 1;
        let gone = after.services.remove(1);
        assert_eq!(words(&before, &after), [pair("service", "update"), pair("service", "remove")]);
        assert_eq!(words(&after, &before)[1], pair("service", "create"));
        assert_eq!(gone.spec.name.to_string(), "web");

        let mut after = before.clone();
        after.members[1].state = MemberState::Alive;
        assert_eq!(words(&before, &after), [], "a suspicion is not news");
        after.members[1].state = MemberState::Down;
        let events = compare(&before, &after, before.members[0].id);
        assert_eq!(events[0].attributes["state.new"], "down");
    }

    #[test]
    fn a_containers_life_is_told_even_if_it_was_missed() {
        let full = views();
        let mut none = full.clone();
        none.tasks.clear();
        // Of this node's two, one runs and one has failed; those of other nodes are not told.
        let begun = words(&none, &full);
        let expected = ["create", "start", "die", "create", "start"].map(|action| pair("container", action));
        assert_eq!(begun, expected);
        assert_eq!(words(&full, &none), [pair("container", "destroy"), pair("container", "destroy")]);
        let mut ended = full.clone();
        ended.tasks[1].report.state = TaskState::Shutdown;
        ended.tasks[1].report.exit_code = Some(143);
        let events = compare(&full, &ended, full.members[0].id);
        assert_eq!((events[0].action, events[0].attributes["exitCode"].as_str()), ("die", "143"));
        assert_eq!(events[0].attributes["com.docker.swarm.service.name"], "web");
    }
}
