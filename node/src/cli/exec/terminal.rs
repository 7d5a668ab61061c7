//! This command's own terminal: its size, and raw mode while a command elsewhere has it.

use std::io::{self, IsTerminal};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Tells whether standard input is a terminal.
pub(super) fn is_here() -> bool {
    io::stdin().is_terminal()
}

/// Returns rows and columns of the terminal, if there is one.
pub(super) fn size() -> Option<[u16; 2]> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some([size.ws_row, size.ws_col])
}

/// The terminal in raw mode: each key goes to the command as it is typed. As it was before once this is dropped.
#[derive(Debug)]
pub(super) struct Raw(Termios);

impl Raw {
    pub(super) fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
