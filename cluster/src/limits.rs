//! Bounds on everything that comes from outside, and their relations, checked when the crate is compiled.

use core::time::Duration;

/// Longest message between nodes, in bytes. Anti-entropy answers are cut to fit.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Longest encoded value of one intent entry, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest durable record, in bytes.
pub const RECORD_BYTES_MAX: usize = 512 * 1024;
/// Concurrent versions kept of one entry; beyond that the oldest stamps lose.
pub const VERSIONS_MAX: usize = 16;
/// Replicas that one service may have.
pub const REPLICAS_MAX: u32 = 100_000;
/// Services in one shoal.
pub const SERVICES_MAX: usize = 10_000;
/// Nodes in one shoal.
pub const NODES_MAX: usize = 10_000;
/// Bytes of a service or node name: one DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Tasks that one node may report, finished ones included.
pub const TASKS_PER_NODE_MAX: usize = 2_000;
/// Slots that one plan places; those of the last services by id beyond it wait.
pub const SLOTS_MAX: usize = 4_000_000;
/// Constraints, preferences or platforms of one service.
pub const CONSTRAINTS_MAX: usize = 64;
/// Mounts, hosts, capabilities, sysctls and the like of one service, of each.
pub const CONTAINER_OPTIONS_MAX: usize = 64;
/// Bytes of the name of a volume.
pub const VOLUME_NAME_BYTES_MAX: usize = 128;
/// Bytes of the name of a network, secret or config.
pub const OBJECT_NAME_BYTES_MAX: usize = 128;

/// Networks, secrets and configs in one shoal, of each.
pub const OBJECTS_MAX: usize = 10_000;

/// Bytes of one secret or config, as in Docker.
pub const DATA_BYTES_MAX: usize = 500 * 1024;

/// Bytes that sealing may add.
pub const SEAL_BYTES_MAX: usize = 256;

/// Sealed bytes of a secret or config in one entry.
pub const PART_BYTES_MAX: usize = VALUE_BYTES_MAX - 4 * 1024;

/// Bytes that all secrets and configs may take together: half of what intent may.
pub const ALL_DATA_BYTES_MAX: usize = INTENT_BYTES_MAX / 2;

/// Bytes of all labels of one network, secret or config.
pub const LABELS_BYTES_MAX: usize = VALUE_BYTES_MAX / 2;

/// Networks, aliases on one network, ports, secrets and configs of one service, of each.
pub const ATTACHMENTS_MAX: usize = 64;

/// Labels that operators may write on one node.
pub const LABELS_MAX: usize = 64;
/// Bytes of one label of a node, name and value together.
pub const LABEL_BYTES_MAX: usize = 256;
/// Bytes of all labels that a node is started with: every member keeps them of every other.
pub const ENGINE_LABELS_BYTES_MAX: usize = 512;
/// Bytes of one constraint or placement preference.
pub const CONSTRAINT_BYTES_MAX: usize = 512;
/// Finished tasks kept per slot for `service ps`, as Docker's `TaskHistoryRetentionLimit`.
pub const TASK_HISTORY_PER_SLOT: usize = 4;
/// How long a member is down before others start its fenced tasks, besides their grace period: it stops them itself once it
/// hears nobody, or, if its daemon is gone, their shims do after 20 s; 15 s are left for what it notices later than others.
pub const FENCE: Duration = Duration::from_secs(35);
/// Earlier revisions that a service keeps, to show and to roll back to.
pub const HISTORY_MAX: usize = 10;
/// Slots of one rollout that one node may say have failed; more make no difference.
pub const FAILED_SLOTS_MAX: usize = 256;
/// Images that one node may say it has.
pub const IMAGES_PER_NODE_MAX: usize = 1_000;
/// Bytes of the name of an image in a report, such as `web:latest@sha256:…`.
pub const IMAGE_BYTES_MAX: usize = 512;
/// Bytes of an error text in a report; longer ones are cut.
pub const ERROR_BYTES_MAX: usize = 512;
/// Actors that the context of one version may name; a writer that has seen more leaves out the oldest.
pub const CONTEXT_ACTORS_MAX: usize = 1_024;
/// Bytes of the id of an author's certificate in a version.
pub const AUTHOR_BYTES_MAX: usize = 64;
/// Bytes of a signature in a version.
pub const SIGNATURE_BYTES_MAX: usize = 256;
/// Writes of one actor that may wait for those before them to arrive.
pub const PENDING_DOTS_MAX: usize = 256;
/// Bytes of the name of an intent key.
pub const KEY_BYTES_MAX: usize = 255;
/// Bytes that all intent entries may take together.
pub const INTENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of the key and value of one report item of a kind that is not known here.
pub const ITEM_BYTES_MAX: usize = 4 * 1024;
/// Items of one node's report, withdrawn ones included.
pub const ITEMS_PER_NODE_MAX: usize = 2 * (TASKS_PER_NODE_MAX + IMAGES_PER_NODE_MAX);
/// Bytes of entries and items in one message between nodes: what is left beside the longest single one.
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4;
/// Random members to which a change is pushed. Serf's and memberlist's default.
pub const FANOUT: usize = 3;
/// Members that compare at once with one that came up, on average. All of a thousand would send it, and make of a thousand that
/// start together, a million comparisons; enough that it misses none, with a chance of e⁻⁸, and then there are its own rounds.
pub const HURRIED: usize = 8;
/// How far one claim of a peer may carry a counter: no claim uses up the counters of a node.
pub const CLAIM_JUMP_MAX: u64 = 1 << 32;
/// How far ahead of this node's wall clock a peer's stamp may be, in milliseconds.
pub const SKEW_MAX_MS: u64 = 60_000;

const _: () = assert!(
    VALUE_BYTES_MAX + CONTEXT_ACTORS_MAX * 64 + AUTHOR_BYTES_MAX + SIGNATURE_BYTES_MAX + KEY_BYTES_MAX + 1_024
        < MESSAGE_BYTES_MAX,
    "the longest version fits into one message"
);
const _: () = assert!(BATCH_BYTES_MAX * 2 + VALUE_BYTES_MAX < MESSAGE_BYTES_MAX, "a message holds what `Known` tells");
const _: () = assert!(ITEM_BYTES_MAX > 2 * ERROR_BYTES_MAX && ITEM_BYTES_MAX > IMAGE_BYTES_MAX, "an item holds a task");
const _: () = assert!(VALUE_BYTES_MAX * 2 < MESSAGE_BYTES_MAX, "a message carries at least one entry");
const _: () = assert!(MESSAGE_BYTES_MAX <= RECORD_BYTES_MAX, "what was received can be made durable");
