//! ELF: which files a program needs to run.
//!
//! Input: an executable. Output: its interpreter and all shared libraries, found as the loader finds them (`ld.so(8)`)
//! but without its cache, each with the path that it must have in an image.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsStr,
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use object::{
    Endianness, elf,
    read::{
        ReadCache, ReadRef, StringTable,
        elf::{Dyn, FileHeader, ProgramHeader},
    },
};

use super::BuildError;

type Header = elf::FileHeader64<Endianness>;

/// Large programs need about two hundred.
const LIBRARIES_MAX: usize = 1000;

/// A processor that images can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// Go's word for it, which images use.
    pub(super) const fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Debian's directories first, then those of other distributions.
    const fn library_directories(self) -> [&'static str; 6] {
        match self {
            Self::X86_64 => {
                ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
            }
            Self::Aarch64 => {
                ["/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
            }
        }
    }
}

/// A program with all that it needs.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) architecture: Architecture,
    /// Path in the image → file on this machine.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
}

/// What one ELF file says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    architecture: Architecture,
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
    /// Directories to search first; may begin with `$ORIGIN`.
    search: Vec<String>,
}

/// A library's file, and where it goes.
struct Found {
    host: PathBuf,
    image: PathBuf,
}

impl Program {
    /// Finds everything that `executable`, which will be `name` in the image, needs.
    pub(super) fn collect(executable: &Path, name: &Path) -> Result<Self, BuildError> {
        let object = Object::read(executable)?;
        let architecture = object.architecture;
        let mut program = Self { architecture, files: BTreeMap::new() };
        program.files.insert(name.to_owned(), executable.to_owned());
        let mut seen = BTreeSet::new();
        if let Some(interpreter) = &object.interpreter {
            // Libraries list the loader among those they need; it is there under the name that the program asks for.
            seen.extend(interpreter.file_name().and_then(OsStr::to_str).map(str::to_owned));
            program.files.insert(interpreter.clone(), interpreter.clone());
        }
        // Breadth first, as the loader does: who is found first serves all that need the same name.
        let mut pending = VecDeque::from([(executable.to_owned(), name.to_owned(), object)]);
        while let Some((host, image, object)) = pending.pop_front() {
            for library in &object.needed {
                if !seen.insert(library.clone()) {
                    continue;
                }
                if seen.len() > LIBRARIES_MAX {
                    return Err(BuildError::Libraries { path: executable.to_owned(), max: LIBRARIES_MAX });
                }
                let (found, parsed) = find(library, &host, &image, &object.search, architecture)
                    .ok_or_else(|| BuildError::Library { name: library.clone(), needed_by: host.clone() })?;
                program.files.insert(found.image.clone(), found.host.clone());
                pending.push_back((found.host, found.image, parsed));
            }
        }
        Ok(program)
    }
}

/// Looks for a library in the directories that its user names, then in the standard ones. Files for other processors
/// are passed over, as the loader does.
fn find(
    library: &str,
    host: &Path,
    image: &Path,
    search: &[String],
    architecture: Architecture,
) -> Option<(Found, Object)> {
    let named = search.iter().map(|directory| (expand(directory, host), expand(directory, image)));
    let standard = architecture.library_directories().into_iter().map(|directory| (directory.into(), directory.into()));
    let candidates = named
        .chain(standard)
        .map(|(host, image): (PathBuf, PathBuf)| Found { host: host.join(library), image: image.join(library) });
    candidates.filter(|found| found.image.is_absolute()).find_map(|found| {
        let object = Object::read(&found.host).ok()?;
        (object.architecture == architecture).then_some((found, object))
    })
}

/// `$ORIGIN` is the directory of the file that names it: here another than in the image.
fn expand(directory: &str, of: &Path) -> PathBuf {
    let rest = directory.strip_prefix("$ORIGIN").or_else(|| directory.strip_prefix("${ORIGIN}"));
    let path = match rest {
        Some(rest) => of.parent().unwrap_or(Path::new("/")).join(rest.trim_start_matches('/')),
        None => PathBuf::from(directory),
    };
    // `$ORIGIN/../lib` must become a plain path in the image.
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            std::path::Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
        path
    })
}

impl Object {
    fn read(path: &Path) -> Result<Self, BuildError> {
        let file = File::open(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })?;
        let cache = ReadCache::new(file);
        let broken =
            |reason: &dyn std::fmt::Display| BuildError::Elf { path: path.to_owned(), reason: reason.to_string() };
        let header = Header::parse(&cache).map_err(|error| broken(&error))?;
        let endian = header.endian().map_err(|error| broken(&error))?;
        let architecture = match (endian, header.e_machine(endian)) {
            (Endianness::Little, elf::EM_X86_64) => Architecture::X86_64,
            (Endianness::Little, elf::EM_AARCH64) => Architecture::Aarch64,
            (_, machine) => return Err(BuildError::Machine { path: path.to_owned(), machine: machine.0 }),
        };
        parse(header, endian, &cache, architecture).map_err(|error| broken(&error))
    }
}

fn parse<'a, R: ReadRef<'a>>(
    header: &Header,
    endian: Endianness,
    data: R,
    architecture: Architecture,
) -> object::Result<Object> {
    let segments = header.program_headers(endian, data)?;
    let mut object = Object { architecture, interpreter: None, needed: Vec::new(), search: Vec::new() };
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            object.interpreter = Some(PathBuf::from(OsStr::from_bytes(interpreter)));
        }
        let Some(dynamic) = segment.dynamic(endian, data)? else { continue };
        let strings = strings(segments, dynamic, endian, data);
        for entry in dynamic.iter().take_while(|entry| entry.tag(endian) != elf::DT_NULL) {
            match entry.tag(endian) {
                elf::DT_NEEDED => object.needed.push(text(entry.string(endian, strings)?)),
                elf::DT_RPATH | elf::DT_RUNPATH => {
                    let directories = text(entry.string(endian, strings)?);
                    object.search.extend(directories.split(':').filter(|part| !part.is_empty()).map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    Ok(object)
}

/// The table that names in the dynamic section point into. It is given by address, so its place in the file follows
/// from the segment that is loaded there.
fn strings<'a, R: ReadRef<'a>>(
    segments: &[elf::ProgramHeader64<Endianness>],
    dynamic: &[elf::Dyn64<Endianness>],
    endian: Endianness,
    data: R,
) -> StringTable<'a, R> {
    let value = |tag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    let (Some(address), Some(bytes)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return StringTable::default();
    };
    let place = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(endian))?;
        (within < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(within)).flatten()
    });
    match place.and_then(|begin| Some((begin, begin.checked_add(bytes)?))) {
        Some((begin, end)) => StringTable::new(data, begin, end),
        None => StringTable::default(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_and_its_libraries_are_found() {
        let executable = std::env::current_exe().unwrap();
        let program = Program::collect(&executable, Path::new("/bin/test")).unwrap();
        assert_eq!(program.files[Path::new("/bin/test")], executable);
        assert!(program.files.keys().any(|path| path.file_name().is_some_and(|name| name == "libc.so.6")));
        assert!(program.files.values().all(|path| path.is_file()));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        assert!(matches!(Program::collect(&path, Path::new("/x")), Err(BuildError::Read { .. })));
        let real = std::fs::read("/bin/true").unwrap();
        for bytes in [&b""[..], b"#!/bin/sh\n", &real[..40], &real[..100]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Program::collect(&path, Path::new("/x")), Err(BuildError::Elf { .. })));
        }
        let mut foreign = real.clone();
        foreign[18] = 3;
        std::fs::write(&path, foreign).unwrap();
        assert!(matches!(Program::collect(&path, Path::new("/x")), Err(BuildError::Machine { machine: 3, .. })));
    }

    /// Every byte of the headers in turn is spoilt: errors are fine, panics are not.
    #[test]
    fn broken_headers_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let real = std::fs::read("/bin/true").unwrap();
        for at in 0..1024 {
            let mut bytes = real.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
            let _ = Program::collect(&path, Path::new("/x"));
        }
    }

    #[test]
    fn origin_is_replaced_on_both_sides() {
        assert_eq!(expand("$ORIGIN/../lib", Path::new("/opt/x/bin/web")), Path::new("/opt/x/lib"));
        assert_eq!(expand("${ORIGIN}", Path::new("/bin/web")), Path::new("/bin"));
        assert_eq!(expand("/usr/lib/x", Path::new("/bin/web")), Path::new("/usr/lib/x"));
    }
}
