//! Answers to packets that cannot be carried: ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443).
//!
//! Input: the packet and why it was not carried. Output: the packet to hand back to the sender, or nothing where the
//! RFCs forbid an answer (to an ICMP error, to a later fragment, to and from multicast). The answer's source is the
//! destination that was asked for, which lies on the same interface, so it passes reverse-path checks.

use std::net::IpAddr;

use crate::packet::{Ends, HEADER_V4, HEADER_V6};

/// Longest part of the refused packet that is quoted in an answer, in bytes: an answer stays below 576.
const QUOTE_MAX: usize = 500;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 64;

/// What the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such host, or none that is up.
    Unreachable,
    /// The packet is longer than `mtu` bytes, which is what fits.
    TooBig {
        /// The longest inner packet that can be carried, in bytes.
        mtu: u16,
    },
}

/// Returns the ICMP packet that tells the sender of `packet` of its `refusal`. `ends` are those of `packet`.
pub fn answer(packet: &[u8], ends: &Ends, refusal: Refusal) -> Option<Vec<u8>> {
    if ends.source.is_multicast() || ends.destination.is_multicast() || ends.source.is_unspecified() {
        return None;
    }
    match (ends.source, ends.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => answer_v4(packet, refusal),
        (IpAddr::V6(_), IpAddr::V6(_)) => answer_v6(packet, refusal),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn answer_v4(packet: &[u8], refusal: Refusal) -> Option<Vec<u8>> {
    let header: &[u8; HEADER_V4] = packet.first_chunk()?;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let header_length = crate::packet::header_length_v4(header);
    // Echo (8) and echo reply (0) may be answered; every other ICMP type may be an error itself.
    let icmp_error = header[9] == PROTOCOL_ICMP && !matches!(packet.get(header_length), Some(0 | 8));
    if later_fragment || icmp_error {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE_MAX)];
    let (code, rest) = match refusal {
        Refusal::Unreachable => (1, [0, 0, 0, 0]),
        Refusal::TooBig { mtu } => (4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]),
    };
    let mut message = vec![3, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(quote);
    let sum = checksum(&message, 0);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut answer = vec![0u8; HEADER_V4];
    answer[0] = 0x45;
    answer[2..4].copy_from_slice(&u16::try_from(HEADER_V4 + message.len()).ok()?.to_be_bytes());
    answer[8] = HOP_LIMIT;
    answer[9] = PROTOCOL_ICMP;
    answer[12..16].copy_from_slice(&header[16..20]);
    answer[16..20].copy_from_slice(&header[12..16]);
    let sum = checksum(&answer, 0);
    answer[10..12].copy_from_slice(&sum.to_be_bytes());
    answer.extend_from_slice(&message);
    Some(answer)
}

fn answer_v6(packet: &[u8], refusal: Refusal) -> Option<Vec<u8>> {
    let header: &[u8; HEADER_V6] = packet.first_chunk()?;
    // ICMPv6 errors have types below 128 (RFC 4443 §2.1).
    if header[6] == PROTOCOL_ICMPV6 && packet.get(HEADER_V6).is_none_or(|&kind| kind < 128) {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE_MAX)];
    let (kind, code, rest) = match refusal {
        Refusal::Unreachable => (1, 3, 0u32),
        Refusal::TooBig { mtu } => (2, 0, u32::from(mtu)),
    };
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(quote);

    let length = u16::try_from(message.len()).ok()?;
    let mut answer = vec![0u8; HEADER_V6];
    answer[0] = 0x60;
    answer[4..6].copy_from_slice(&length.to_be_bytes());
    answer[6] = PROTOCOL_ICMPV6;
    answer[7] = HOP_LIMIT;
    answer[8..24].copy_from_slice(&header[24..40]);
    answer[24..40].copy_from_slice(&header[8..24]);
    // The pseudo-header of RFC 8200 §8.1: both addresses, the length and the next header.
    let pseudo = sum_words(&answer[8..40]) + u64::from(length) + u64::from(PROTOCOL_ICMPV6);
    let sum = checksum(&message, pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    answer.extend_from_slice(&message);
    Some(answer)
}

/// Returns the Internet checksum (RFC 1071) of `bytes`, begun with `initial`.
fn checksum(bytes: &[u8], initial: u64) -> u16 {
    let mut sum = initial + sum_words(bytes);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn sum_words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{build, parse};

    fn both_families() -> [(IpAddr, IpAddr); 2] {
        [([10, 64, 1, 2].into(), [10, 64, 2, 2].into()), ("fd01::2".parse().unwrap(), "fd02::2".parse().unwrap())]
    }

    #[test]
    fn an_answer_goes_back_to_the_sender_with_right_checksums() {
        for (source, destination) in both_families() {
            for refusal in [Refusal::Unreachable, Refusal::TooBig { mtu: 1280 }] {
                let packet = build::packet(source, destination, &[7; 1301]);
                let ends = parse(&packet).unwrap();
                let answer = answer(&packet, &ends, refusal).unwrap();
                assert_eq!(parse(&answer), Ok(Ends { source: destination, destination: source }));
                assert!(answer.len() < 576);
                let sum = match source {
                    IpAddr::V4(_) => {
                        assert_eq!(checksum(&answer[..20], 0), 0);
                        checksum(&answer[20..], 0)
                    }
                    IpAddr::V6(_) => {
                        let length = (answer.len() - 40) as u64;
                        checksum(&answer[40..], sum_words(&answer[8..40]) + length + 58)
                    }
                };
                assert_eq!(sum, 0);
            }
        }
    }

    #[test]
    fn errors_are_never_answered_with_errors() {
        for (source, destination) in both_families() {
            let packet = build::packet(source, destination, b"ping");
            let first = answer(&packet, &parse(&packet).unwrap(), Refusal::Unreachable).unwrap();
            assert_eq!(answer(&first, &parse(&first).unwrap(), Refusal::Unreachable), None);
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_answered_by_a_packet_or_not_at_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), v6 in any::<bool>(),
        ) {
            let (source, destination) = both_families()[usize::from(v6)];
            let mut packet = build::packet(source, destination, &bytes);
            packet[6] = bytes.first().copied().unwrap_or(0);
            packet[9] = bytes.last().copied().unwrap_or(0);
            if let Ok(ends) = parse(&packet)
                && let Some(answer) = answer(&packet, &ends, Refusal::Unreachable)
            {
                prop_assert!(parse(&answer).is_ok());
            }
        }
    }
}
