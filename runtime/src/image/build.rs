//! Building: an image from an executable of this machine and the libraries that it needs.
//!
//! Input: a program on disk, its name in the image, what to run. Output: a tar that is an OCI layout, and that
//! `docker load` reads too. The same input gives the same bytes: entries are sorted, times are zero. No external
//! program is used. Works for ELF programs of x86_64 and aarch64 Linux; what a program loads while it runs, as
//! plug-ins and data files, is not found.

mod elf;
mod layout;
mod root;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    digest::Digest,
    reference::{Reference, ReferenceError},
};

/// How the image's process is started. All of it can be overridden by a service's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildConfig {
    /// The program and its fixed arguments. If empty, the executable's name in the image.
    pub entrypoint: Vec<String>,
    /// Arguments after those, unless others are given.
    pub command: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports that it listens on, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The user, as in Docker (`nobody`, `1000:1000`). Root if `None`.
    pub user: Option<String>,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image's name.
    pub reference: Reference,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its files, as paths in the image, the executable included.
    pub files: Vec<PathBuf>,
    /// Bytes of its one layer, uncompressed.
    pub layer_bytes: u64,
}

/// Why no image was built. What was written until then is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file changed while it was read.
    #[error("{} changed while the image was made, try again", .0.display())]
    Changed(PathBuf),
    /// The output cannot be written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// Not a 64-bit little-endian ELF program or library that is intact.
    #[error("{} is not a 64-bit linux program or library: {reason}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program for a processor that is not supported.
    #[error("{} is for another processor (ELF machine {machine}), only x86_64 and aarch64 are supported", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// The ELF number of the processor.
        machine: u16,
    },
    /// A shared library is in none of the places where the loader looks.
    #[error("library {name}, needed by {}, is in none of the standard directories", needed_by.display())]
    Library {
        /// Its name.
        name: String,
        /// The file that needs it.
        needed_by: PathBuf,
    },
    /// More libraries than any program has.
    #[error("{} needs more than {max} libraries", path.display())]
    Libraries {
        /// The executable.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// The executable's name in the image is not an absolute path without `..`.
    #[error("{0:?} cannot be the executable's name in the image, expected an absolute path like /bin/web")]
    Name(String),
    /// The image's name is invalid.
    #[error("the image cannot be named")]
    Reference(#[from] ReferenceError),
}

/// Makes an image of the program `executable` and the libraries that it needs, and writes it to `out` as a tar.
///
/// In the image the program is `name`, an absolute path; the loader is where the program looks for it, libraries are
/// in the directories where they were found. There are `root` and `nobody` in `/etc/passwd` and `/etc/group`, a
/// `/tmp`, and empty directories to mount on.
///
/// # Errors
/// [`BuildError`], see there.
pub fn build_from_executable(
    executable: &Path,
    name: &str,
    reference: &str,
    config: &BuildConfig,
    out: &mut impl Write,
) -> Result<Built, BuildError> {
    let reference: Reference = reference.parse()?;
    check_name(name)?;
    let program = elf::Program::collect(executable, Path::new(name))?;
    let root = root::Root::new(&program.files);
    let layer = root.describe()?;
    let image = layout::Layout::new(&reference, name, config, program.architecture, &layer);
    image.write(out, &root)?;
    Ok(Built {
        reference,
        digest: image.digest(),
        files: program.files.into_keys().collect(),
        layer_bytes: layer.bytes,
    })
}

fn check_name(name: &str) -> Result<(), BuildError> {
    let components = || name.split('/').skip(1);
    let valid = name.starts_with('/')
        && name.len() <= 1024
        && !name.contains('\0')
        && components().all(|component| !matches!(component, "" | "." | ".."));
    if valid { Ok(()) } else { Err(BuildError::Name(name.chars().take(200).collect())) }
}
