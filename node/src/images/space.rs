//! Space: when the disk fills up, images go that nobody here needs and others have.
//!
//! Input: how full the disk is, the views. Output: a pruned store. What a task runs, what a service wants, what is being
//! fetched, and what only this node has stays, however full the disk is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::Views;
use shoal_runtime::image::{Digest, ImageStore, Pruned, StoreError};

use super::{Images, chain, order};

/// Time between two looks at the disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Looks at the disk from time to time, for ever, and prunes when it is fuller than `high_water_percent`.
pub async fn watch(images: Arc<Images>, high_water_percent: u8) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (store, views, own) = (Arc::clone(images.store()), images.views.borrow().clone(), images.own);
        let looked = tokio::task::spawn_blocking(move || {
            if is_full(store.root(), high_water_percent) { relieve(&store, &views, own).map(Some) } else { Ok(None) }
        });
        match looked.await {
            Ok(Ok(Some(pruned))) => {
                tracing::warn!(bytes = pruned.bytes, high_water_percent, "the disk is filling up: pruned images");
                images.changed();
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the disk is filling up, and pruning failed"),
            Err(error) => tracing::warn!(%error, "pruning panicked"),
        }
    }
}

/// Returns the images of all services: their tasks, or heirs of them, may be here at any time.
pub fn wanted(views: &Views) -> BTreeSet<Digest> {
    let digests = views.services.iter().filter_map(|service| service.spec.task.image.digest.as_ref());
    digests.filter_map(|digest| digest.parse().ok()).collect()
}

/// Removes images that no service wants and that another node keeps, then what nothing refers to.
fn relieve(store: &ImageStore, views: &Views, own: shoal_cluster::NodeId) -> Result<Pruned, StoreError> {
    let wanted = wanted(views);
    for image in store.list() {
        let is_wanted = std::iter::once(&image.digest).chain(&image.indexes).any(|digest| wanted.contains(digest));
        if !is_wanted && order::keeper(views, &image.digest).is_some_and(|keeper| keeper != own) {
            store.remove(&image.digest)?;
        }
    }
    // Images without a name may be all that is left of one; they go only by the rule above.
    let kept = store.list().into_iter().map(|image| image.digest).chain(wanted).collect();
    store.prune(&kept)
}

/// Tells whether the disk is fuller than it should be.
pub(super) fn is_full(path: &Path, high_water_percent: u8) -> bool {
    used_percent(path) >= high_water_percent
}

/// Returns how full the file system at `path` is; 0 if that cannot be found out.
fn used_percent(path: &Path) -> u8 {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return 0 };
    let (all, free) = (u128::from(stat.blocks()), u128::from(stat.blocks_available()));
    let free_percent = (free * 100).checked_div(all).unwrap_or(100);
    u8::try_from(100_u128.saturating_sub(free_percent)).unwrap_or(0)
}
