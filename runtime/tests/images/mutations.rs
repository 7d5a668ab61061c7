//! Archives with random damage: every one is loaded or refused, none does harm.

use rand_steps::Steps;
use serde_json::json;
use tar::EntryType;

use crate::support::{Sandbox, Tar, TestImage, gzip, is_root};

const ARCHIVES: u64 = 400;
/// Fewer, because each is synced to disk before it is unpacked.
const LAYERS: u64 = 120;

/// A generator that is the same everywhere, so that a failure can be repeated from its seed.
mod rand_steps {
    pub(crate) struct Steps(u64);

    impl Steps {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        /// A number below `bound` (xorshift64*).
        pub(crate) fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        }
    }
}

/// Damages bytes, and repairs the checksums of headers so that the damage gets past the first test.
fn damage(bytes: &mut Vec<u8>, steps: &mut Steps) {
    const NASTY: [&[u8]; 8] = [b"../", b"/", b"\0", b"..", b"77777777777", b"\x80\xff\xff\xff", b".wh.", b"{}"];
    for _ in 0..=steps.below(4) {
        let at = steps.below(bytes.len());
        match steps.below(6) {
            0 => bytes[at] = steps.below(256) as u8,
            1 => bytes.truncate(at.max(1)),
            2 => {
                let nasty = NASTY[steps.below(NASTY.len())];
                let end = (at + nasty.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&nasty[..end - at]);
            }
            // The first fields of a header: name, mode, owner, size, type, link.
            3 => {
                let at = (at / 512 * 512 + steps.below(260)).min(bytes.len() - 1);
                bytes[at] = steps.below(256) as u8;
            }
            4 => {
                let block = bytes[at / 512 * 512..].iter().take(512).copied().collect::<Vec<_>>();
                let to = steps.below(bytes.len()) / 512 * 512;
                bytes.splice(to..to, block);
            }
            _ => {
                let at = (at / 512 * 512 + 156).min(bytes.len() - 1);
                bytes[at] = b"0123456xgLKSV7"[steps.below(14)];
            }
        }
    }
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

fn rich_layer() -> Tar {
    Tar::new()
        .directory("./", 0o755)
        .directory("a/", 0o755)
        .file("a/b", "body")
        .symlink("a/up", "../..")
        .symlink("out", "/a")
        .file("a/up/c", "c")
        .hard_link("a/d", "a/b")
        .xattr("user.x", b"y")
        .file("a/.wh.gone", "")
        .file("a/.wh..wh..opq", "")
        .entry(EntryType::Fifo, "fifo", "", b"", |_| {})
        .file("out/x", "x")
        .file("z", [7; 700])
}

#[test]
fn damaged_archives_are_loaded_or_refused_and_leave_nothing() {
    let image = TestImage::plain();
    let archives = [image.docker_save(&["web"]), image.oci(&json!({ "io.containerd.image.name": "web:1" }))];
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    for seed in 0..ARCHIVES {
        let mut steps = Steps::new(seed);
        let mut archive = archives[steps.below(2)].clone();
        damage(&mut archive, &mut steps);
        if steps.below(8) == 0 {
            archive = gzip(&archive);
        }
        let before = sandbox.blobs();
        match store.load(&archive[..]) {
            Ok(loaded) => {
                for image in loaded {
                    assert!(store.image(&image.digest).is_ok(), "seed {seed}");
                }
            }
            Err(_) => assert_eq!(sandbox.blobs(), before, "seed {seed}"),
        }
        sandbox.assert_tidy();
    }
}

/// The digests are right, as those of a hostile author would be: it is the layer that is bad.
#[test]
fn damaged_layers_are_unpacked_or_refused_and_touch_nothing_outside() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let (mut good, mut bad) = (0, 0);
    for seed in 0..LAYERS {
        let mut steps = Steps::new(seed);
        let mut layer = rich_layer().end();
        // The first is whole, and must be good.
        if seed > 0 {
            damage(&mut layer, &mut steps);
        }
        let image = TestImage::new([Tar::new().directory("a/", 0o700).end(), layer]);
        let digest = store.load(&image.docker_save(&["web"])[..]).unwrap()[0].digest;
        match store.unpack(&digest) {
            Ok(layers) => {
                good += 1;
                assert!(layers.iter().all(|layer| layer.starts_with(sandbox.store_path())), "seed {seed}");
            }
            Err(error) => {
                assert!(seed > 0, "{error:?}");
                bad += 1;
            }
        }
        sandbox.assert_tidy();
        store.remove(&digest).unwrap();
        store.prune(&Default::default()).unwrap();
    }
    println!("{good} unpacked, {bad} refused");
    assert!(good > 0 && bad > 0);
}
