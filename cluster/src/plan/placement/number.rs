//! Numbers that every node computes alike: scrambling, rounding to a few digits, roots, and a slot's share.

use crate::plan::placement::STRICT_SLOTS;

/// Scrambles 64 bits (the finalizer of SplitMix64), so that slots need no SHA-256 of their own.
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Rounds down to the `bits` most significant binary digits.
pub(super) const fn floor_to(bits: u32, value: u64) -> u64 {
    let length = u64::BITS - value.leading_zeros();
    if length <= bits {
        return value;
    }
    let low = length - bits;
    (value >> low) << low
}

/// Rounds up to the `bits` most significant binary digits.
pub(super) const fn ceil_to(bits: u32, value: u64) -> u64 {
    let floor = floor_to(bits, value);
    if floor == value {
        return value;
    }
    let length = u64::BITS - value.leading_zeros();
    floor.saturating_add(1 << (length - bits))
}

/// Rounds to the nearest number of `bits` binary digits.
pub(super) const fn near_to(bits: u32, value: u64) -> u64 {
    let (floor, ceil) = (floor_to(bits, value), ceil_to(bits, value));
    if value - floor < ceil - value { floor } else { ceil }
}

/// Rounds a number of nodes down so that it rarely changes when a node comes or goes: exact up to [`STRICT_SLOTS`],
/// where every node shows, three binary digits beyond.
pub(super) const fn node_count(exact: usize) -> u32 {
    if exact <= STRICT_SLOTS as usize { exact as u32 } else { floor_to(3, exact as u64) as u32 }
}

/// Returns how many of the slots up to `slot` one of `count` nodes may hold: the even share, rounded up; beyond
/// [`STRICT_SLOTS`] its root and one more, so that few slots have to give way when a node goes.
pub(super) const fn share(slot: u32, count: u32) -> u32 {
    let even = slot.div_ceil(if count == 0 { 1 } else { count });
    if slot <= STRICT_SLOTS { even } else { even + even.isqrt() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_the_leading_digits() {
        assert_eq!([0, 1, 7, 8, 9, 10, 5_000].map(|value| floor_to(3, value)), [0, 1, 7, 8, 8, 10, 4_096]);
        assert_eq!([0, 1, 7, 8, 9, 10, 5_000].map(|value| ceil_to(3, value)), [0, 1, 7, 8, 10, 10, 5_120]);
        assert_eq!([3, 31, 32, 33, 40, 5_000].map(node_count), [3, 31, 32, 32, 40, 4_096]);
        assert_eq!(
            [0, 7, 9, 15, 17, 19, 512, 575, 576].map(|value| near_to(3, value)),
            [0, 7, 10, 16, 16, 20, 512, 512, 640]
        );
        assert_eq!(ceil_to(3, u64::MAX), u64::MAX);
    }

    /// The share never falls short of what all slots up to this one need, or some slot would find no node.
    #[test]
    fn shares_suffice_and_never_shrink() {
        for count in 1..200_usize {
            let mut before = 0;
            for slot in 1..2_000 {
                let share = share(slot, node_count(count));
                assert!(u64::from(share) * count as u64 >= u64::from(slot));
                assert!(share >= before);
                before = share;
            }
        }
        assert_eq!([1, 3, 4, 6, 7].map(|slot| share(slot, 3)), [1, 1, 2, 2, 3]);
    }
}
