//! Taps: copies of the container's output for whoever is attached. None of them can hold up the container.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Most copies of one stream at a time.
const TAPS_MAX: usize = 64;

/// The pipes that one stream is copied to.
#[derive(Default)]
pub(super) struct Taps(Vec<File>);

impl Taps {
    /// Copies what comes from now on to this pipe, too.
    pub(super) fn add(&mut self, pipe: OwnedFd) -> io::Result<()> {
        if self.0.len() >= TAPS_MAX {
            return Err(io::Error::other(format!("{TAPS_MAX} are attached already")));
        }
        let pipe = File::from(pipe);
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        self.0.push(pipe);
        Ok(())
    }

    /// Copies a piece, and closes the pipes whose readers are gone or too slow for all of it.
    pub(super) fn copy(&mut self, piece: &[u8]) {
        self.0.retain_mut(|pipe| pipe.write_all(piece).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_is_too_slow_is_let_go_and_the_others_go_on() {
        let (slow, slow_end) = io::pipe().unwrap();
        let (mut quick, quick_end) = io::pipe().unwrap();
        let (gone, gone_end) = io::pipe().unwrap();
        drop(gone);
        let mut taps = Taps::default();
        for end in [slow_end.into(), quick_end.into(), gone_end.into()] {
            taps.add(end).unwrap();
        }
        let piece = [7; 4096];
        let mut read = [0; 4096];
        for _ in 0..64 {
            taps.copy(&piece);
            quick.read_exact(&mut read).unwrap();
            assert_eq!(read, piece);
        }
        assert_eq!(taps.0.len(), 1);
        let mut kept = Vec::new();
        (&slow).read_to_end(&mut kept).unwrap();
        assert!(!kept.is_empty() && kept.len() < 64 * piece.len(), "what was there is still read, and then its end");
        for _ in taps.0.len()..TAPS_MAX {
            taps.add(io::pipe().unwrap().1.into()).unwrap();
        }
        assert!(taps.add(io::pipe().unwrap().1.into()).is_err());
    }
}
