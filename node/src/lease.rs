//! The lease of the tasks of fenced services: a file that the driver touches as long as it takes turns.
//!
//! Output: the file's modification time, each second. The shims of those tasks read it, and end them once it has stood still for
//! too long (`docs/design/0032-fenced-services.md`).

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Time between two touches.
const TOUCH: Duration = Duration::from_secs(1);

/// The file, and when it was touched last.
#[derive(Debug)]
pub struct Lease {
    file: PathBuf,
    touched: Option<Instant>,
}

impl Lease {
    /// Returns the lease that this file is, which is made with the first touch.
    pub fn new(file: PathBuf) -> Self {
        Self { file, touched: None }
    }

    /// Touches the file if it is time.
    pub fn keep(&mut self) {
        let now = Instant::now();
        if self.touched.is_some_and(|touched| now - touched < TOUCH) {
            return;
        }
        self.touched = Some(now);
        if let Err(error) = self.touch() {
            tracing::warn!(%error, file = %self.file.display(), "cannot touch the lease of fenced tasks: they end soon");
        }
    }

    fn touch(&self) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(false).open(&self.file)?;
        file.set_modified(SystemTime::now())
    }
}
