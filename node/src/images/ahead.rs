//! Ahead: the next node in line for a slot fetches its image before it is needed.
//!
//! Input: the views. Output: images in the store, fetched one at a time while no task here waits for one, from nodes that
//! have them whole; the registry is never asked. So a failover fetches nothing in its critical path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::plan::placement::{Inputs, Placement};
use shoal_cluster::{NodeId, Views};
use shoal_runtime::image::Digest;

use super::{Images, chain, space};

/// How long the plan must stand still before it is looked at: fetching for a plan that changes helps nobody.
const CALM: Duration = Duration::from_secs(2);
/// Pause after a fetch that failed, or while a task waits for an image.
const PAUSE: Duration = Duration::from_secs(5);
/// Slots times nodes that are looked at, so that a large shoal costs no more than a small one. What is left out is only
/// fetched later.
const WORK_MAX: usize = 2_000_000;

/// Fetches ahead, for ever.
pub async fn run(images: Arc<Images>, high_water_percent: u8) {
    let mut views = images.views.clone();
    loop {
        while tokio::time::timeout(CALM, views.changed()).await.is_ok_and(|changed| changed.is_ok()) {}
        let present = views.borrow_and_update().clone();
        let own = images.own;
        let heirlooms = tokio::task::spawn_blocking(move || heirs(&present, own)).await.unwrap_or_default();
        let mut is_done = true;
        for (digest, reference) in heirlooms {
            is_done &= fetch(&images, &digest, &reference, high_water_percent).await;
        }
        if !is_done {
            tokio::time::sleep(PAUSE).await;
        } else if views.changed().await.is_err() {
            return;
        }
    }
}

/// Fetches and unpacks one image. Tells whether it need not be tried again soon.
async fn fetch(images: &Arc<Images>, digest: &Digest, reference: &str, high_water_percent: u8) -> bool {
    let (store, image) = (Arc::clone(&images.store), *digest);
    let looked = tokio::task::spawn_blocking(move || (store.image(&image).is_ok(), store.is_unpacked(&image))).await;
    // Loaded here, or left so by a restart of the machine, it may be whole but not unpacked.
    let (is_here, is_ready) = looked.unwrap_or_default();
    if is_ready {
        return true;
    }
    let has_source = is_here || images.is_held(digest);
    if images.is_busy() || !has_source || space::is_full(images.store.root(), high_water_percent) {
        return false;
    }
    match images.ensure(reference, Some(&digest.to_string())).await {
        Ok(_) => {
            tracing::info!(image = reference, %digest, "made an image ready: this node is next in line for it");
            true
        }
        Err(error) => {
            tracing::debug!(image = reference, error = chain(&error), "cannot fetch an image ahead");
            false
        }
    }
}

/// Returns the images of the slots that come to node `own` if any one of the others goes down, with a name of each.
pub(super) fn heirs(views: &Views, own: NodeId) -> BTreeMap<Digest, String> {
    let at_work: BTreeSet<NodeId> = views.tasks.iter().filter(|task| task.desired).map(|task| task.node).collect();
    let whole = Placement::of(Inputs::clone(&views.inputs));
    let work = whole.assignments().len().saturating_mul(views.inputs.nodes.len()).max(1);
    let mut images = BTreeMap::new();
    for lost in at_work.iter().filter(|node| **node != own).take(WORK_MAX / work) {
        let mut placement = whole.clone();
        placement.without(lost);
        let assignments = placement.assignments();
        for service in &views.services {
            let digest = service.spec.task.image.digest.as_ref().and_then(|digest| digest.parse().ok());
            let Some(digest) = digest.filter(|digest| !images.contains_key(digest)) else { continue };
            if assignments.slots(&service.id).any(|(_, node)| node == own) {
                images.insert(digest, service.spec.task.image.reference.clone());
            }
        }
    }
    images
}
