//! Inner packets: the little of an IP header that forwarding needs.
//!
//! Input: bytes from the TUN or from a peer, hostile in both cases. Output: source and destination, or
//! [`Malformed`]. Only the bounds of the fixed header are looked at; what is inside is the business of its reader.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length in bytes of an IPv4 header without options (RFC 791 §3.1).
pub(crate) const HEADER_V4: usize = 20;
/// Length in bytes of the fixed IPv6 header (RFC 8200 §3).
pub(crate) const HEADER_V6: usize = 40;

/// The two ends of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who the packet says it is from; believed only after [`crate::forward`] has checked it.
    pub source: IpAddr,
    /// Where it wants to go.
    pub destination: IpAddr,
}

/// The bytes are not exactly one IPv4 or IPv6 packet. They should be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not exactly one ip packet")]
pub struct Malformed;

/// Reads the ends of `packet`, whose stated length must be its real one.
pub fn parse(packet: &[u8]) -> Result<Ends, Malformed> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) | None => Err(Malformed),
    }
}

fn parse_v4(packet: &[u8]) -> Result<Ends, Malformed> {
    let header: &[u8; HEADER_V4] = packet.first_chunk().ok_or(Malformed)?;
    let header_length = header_length_v4(header);
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_length < HEADER_V4 || header_length > total_length || total_length != packet.len() {
        return Err(Malformed);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    Ok(Ends { source: source.into(), destination: destination.into() })
}

fn parse_v6(packet: &[u8]) -> Result<Ends, Malformed> {
    let header: &[u8; HEADER_V6] = packet.first_chunk().ok_or(Malformed)?;
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if HEADER_V6 + payload_length != packet.len() {
        return Err(Malformed);
    }
    let mut source = [0; 16];
    let mut destination = [0; 16];
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    Ok(Ends { source: Ipv6Addr::from(source).into(), destination: Ipv6Addr::from(destination).into() })
}

/// Returns the length in bytes that an IPv4 header states for itself, which may be absurd.
pub(crate) fn header_length_v4(header: &[u8; HEADER_V4]) -> usize {
    usize::from(header[0] & 0x0f) * 4
}

#[cfg(test)]
pub(crate) mod build {
    //! Packets for tests.

    use super::*;

    /// Returns a minimal UDP-like packet between two addresses of one family.
    pub(crate) fn packet(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut bytes = vec![0u8; HEADER_V4];
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&((HEADER_V4 + payload.len()) as u16).to_be_bytes());
                bytes[8] = 64;
                bytes[9] = 17;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&destination.octets());
                bytes.extend_from_slice(payload);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut bytes = vec![0u8; HEADER_V6];
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
                bytes[6] = 17;
                bytes[7] = 64;
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&destination.octets());
                bytes.extend_from_slice(payload);
                bytes
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_short_and_other_protocols_are_malformed() {
        for bytes in [&[][..], &[0x45; 19], &[0x60; 39], &[0x00; 60], &[0xf0; 60]] {
            assert_eq!(parse(bytes), Err(Malformed));
        }
    }

    #[test]
    fn a_packet_longer_or_shorter_than_it_says_is_malformed() {
        let v4: [IpAddr; 2] = [[10, 64, 1, 2].into(), [10, 64, 2, 2].into()];
        let v6: [IpAddr; 2] = ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()];
        for [source, destination] in [v4, v6] {
            let good = build::packet(source, destination, b"payload");
            assert_eq!(parse(&good), Ok(Ends { source, destination }));
            assert_eq!(parse(&good[..good.len() - 1]), Err(Malformed));
            assert_eq!(parse(&[&good[..], b"x"].concat()), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn garbage_behind_a_version_nibble_never_panics(
            version in prop_oneof![Just(0x40u8), Just(0x60u8)],
            low in 0u8..16,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = vec![version | low];
            bytes.extend(rest);
            if parse(&bytes).is_ok() {
                prop_assert!(bytes.len() >= HEADER_V4);
            }
        }
    }
}
