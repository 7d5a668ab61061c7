//! `/events`: what happened, as Docker tells it, one JSON object per line.
//!
//! Input: the views, compared with the ones before, and what the API itself does to images. Output: the last
//! [`EVENTS_MAX`] events, and those that come. Views are levels: of a service that is created and removed within a
//! moment nothing is told. Containers and images are this node's; services and nodes are everybody's.

mod compare;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use shoal_cluster::{NodeId, TaskId, Views};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::NodeHandle;
use super::error::ApiError;
use super::filters::Filters;
use super::params::Params;
use crate::reach::{Answer, Question, Reach};
use compare::compare;

/// Events that are kept for those who ask later.
const EVENTS_MAX: usize = 1_024;
const FILTERS: &[&str] = &["type", "event", "container", "image", "service", "node", "scope", "label"];

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Container,
    Image,
    Service,
    Node,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Service => "service",
            Self::Node => "node",
        }
    }

    fn scope(self) -> &'static str {
        match self {
            Self::Container | Self::Image => "local",
            Self::Service | Self::Node => "swarm",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    kind: Kind,
    action: &'static str,
    id: String,
    attributes: BTreeMap<String, String>,
    /// Since 1970.
    at: Duration,
}

impl Event {
    fn new(kind: Kind, action: &'static str, id: String, attributes: BTreeMap<String, String>) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { kind, action, id, attributes, at }
    }

    fn show(&self) -> Value {
        let nanos = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        let mut shown = json!({
            "Type": self.kind.word(),
            "Action": self.action,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": self.kind.scope(),
            "time": self.at.as_secs(),
            "timeNano": nanos,
        });
        if matches!(self.kind, Kind::Container | Kind::Image) {
            // As the oldest clients know it.
            shown["status"] = self.action.into();
            shown["id"] = self.id.clone().into();
        }
        if self.kind == Kind::Container {
            shown["from"] = self.attributes.get("image").cloned().into();
        }
        shown
    }

    fn fits(&self, filters: &Filters) -> bool {
        let attribute = |name: &str| self.attributes.get(name).map(String::as_str);
        let named = |kind: Kind, text: &str, other: Option<&str>| {
            (self.kind == kind && (self.id.starts_with(text) || attribute("name") == Some(text))) || other == Some(text)
        };
        let image_of = attribute("image").map(|image| image.split('@').next().unwrap_or(image));
        let service_of = attribute("com.docker.swarm.service.name");
        filters.any("type", |kind| kind == self.kind.word())
            && filters.any("event", |action| action == self.action)
            && filters.any("scope", |scope| scope == self.kind.scope())
            && filters.any("container", |text| named(Kind::Container, text, None))
            && filters.any("image", |text| named(Kind::Image, text, image_of))
            && filters.any("service", |text| named(Kind::Service, text, service_of))
            && filters.any("node", |text| named(Kind::Node, text, attribute("com.docker.swarm.node.id")))
            && filters.labels("label", attribute)
    }
}

/// All that happened lately.
#[derive(Debug)]
pub struct Events {
    past: Mutex<VecDeque<Arc<Event>>>,
    present: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { past: Mutex::default(), present: broadcast::Sender::new(EVENTS_MAX) }
    }
}

impl Events {
    fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let mut past = self.past();
        if past.len() == EVENTS_MAX {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Under the lock, so that whoever listens gets each once. It fails if nobody listens.
        let _ = self.present.send(event);
    }

    /// Tells what became of an image.
    pub(super) fn image(&self, action: &'static str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.tell(Event::new(Kind::Image, action, name.to_owned(), attributes));
    }

    /// Returns what happened since then, and the way to what happens from now on.
    fn listen(&self, since: Option<Duration>) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past();
        let wanted = |event: &&Arc<Event>| since.is_some_and(|since| event.at >= since);
        (past.iter().filter(wanted).cloned().collect(), self.present.subscribe())
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // Every change is one call; a panic elsewhere leaves the queue whole.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what differs between views, until their sender is gone.
pub async fn watch(events: Arc<Events>, own: NodeId, reach: Reach, mut views: watch::Receiver<Arc<Views>>) {
    let mut before = Arc::clone(&views.borrow_and_update());
    while views.changed().await.is_ok() {
        let after = Arc::clone(&views.borrow_and_update());
        for event in compare(&before, &after, own) {
            if event.action == "die" && killed_for_memory(&reach, own, &after, &event.id).await {
                let attributes = event.attributes.clone();
                events.tell(Event::new(Kind::Container, "oom", event.id.clone(), attributes));
            }
            events.tell(event);
        }
        before = after;
    }
}

/// Asks this node's runtime whether the kernel killed a process of a task for want of memory.
async fn killed_for_memory(reach: &Reach, own: NodeId, views: &Views, id: &str) -> bool {
    let task: Option<TaskId> = views.tasks.iter().map(|task| task.report.id).find(|task| task.to_string() == id);
    let Some(task) = task else { return false };
    match reach(own).ask(task, Question::Details).await {
        Ok(Answer::Details(details)) => details.exit.is_some_and(|exit| exit.oom),
        Ok(_) | Err(_) => false,
    }
}

/// `GET /events`
pub(super) async fn events(State(node): State<NodeHandle>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    let (past, present) = node.events.listen(since);
    let (sender, lines) = mpsc::channel(1);
    tokio::spawn(send(past, present, until, filters, sender));
    let stream = futures::stream::unfold(lines, |mut lines| async move {
        let line: Bytes = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
}

/// Sends what is wanted until the end that was named, or the client is gone.
async fn send(
    past: Vec<Arc<Event>>,
    mut present: broadcast::Receiver<Arc<Event>>,
    until: Option<Duration>,
    filters: Filters,
    lines: mpsc::Sender<Bytes>,
) {
    let wanted = |event: &Event| event.fits(&filters) && until.is_none_or(|until| event.at < until);
    let line = |event: &Event| Bytes::from(format!("{}\n", event.show()));
    for event in past.iter().filter(|event| wanted(event)) {
        if lines.send(line(event)).await.is_err() {
            return;
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = until.map(|until| until.saturating_sub(now));
    let end = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let mut end = std::pin::pin!(end);
    loop {
        let event = tokio::select! {
            event = present.recv() => event,
            () = &mut end => return,
            () = lines.closed() => return,
        };
        match event {
            Ok(event) if wanted(&event) => {
                if lines.send(line(&event)).await.is_err() {
                    return;
                }
            }
            // A client too slow for this many has missed some, as with Docker.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
