//! Promise 3, of what services use: whoever knows of a secret or config has all of its bytes.

use shoal_cluster::intent::object::DataKind;

use crate::world::World;

/// Looks for secrets and configs that count and whose bytes a node lacks.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    for (index, core) in world.up() {
        for kind in [DataKind::Secret, DataKind::Config] {
            let data = core.intent().data(kind);
            if let Some(data) = data.values().find(|data| !core.intent().sealed().has(&data.id)) {
                return Err(format!("node {index} lacks bytes of the {} {}", kind.word(), data.name));
            }
        }
    }
    Ok(())
}
