//! Headers of tar entries: what the fixed fields and the extended records in front of them say together.
//!
//! Input: header blocks and the bodies of extended headers (POSIX pax, GNU long names). Output: an [`Entry`].

use std::{io, str};

use tar::Header;

use super::{Entry, Kind, TarError, TarLimits, shown};

/// Values of extended headers that apply to the next entry.
#[derive(Default)]
pub(super) struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) bytes: u64,
    pub(super) count: u32,
}

impl Extensions {
    pub(super) fn take(&mut self, kind: u8, mut body: Vec<u8>) -> Result<(), &'static str> {
        if kind == b'x' {
            return self.take_pax(&body);
        }
        while body.last() == Some(&0) {
            body.pop();
        }
        *(if kind == b'L' { &mut self.path } else { &mut self.link }) = Some(body);
        Ok(())
    }

    /// Records are `length key=value\n`, where length counts the whole record in decimal; values may hold any byte.
    fn take_pax(&mut self, mut rest: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "an extended record is malformed";
        while !rest.is_empty() {
            let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or(BROKEN)?;
            let length: usize = number(&rest[..space]).ok_or(BROKEN)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(BROKEN);
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
            self.take_record(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size_bytes = Some(number(value).ok_or("the extended size is not a number")?),
            b"uid" => self.uid = Some(number(value).ok_or("the extended owner is not a number")?),
            b"gid" => self.gid = Some(number(value).ok_or("the extended group is not a number")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("the extended time is not a number")?),
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse files are not supported"),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn apply(
        self,
        header: &Header,
        size: u64,
        limits: &TarLimits,
        broken: impl Fn(&'static str) -> TarError,
    ) -> Result<Entry, TarError> {
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self.link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();
        for text in [&path, &link] {
            if text.len() as u64 > limits.path_bytes_max {
                return Err(TarError::Path { bytes: text.len(), max: limits.path_bytes_max });
            }
            if text.contains(&0) {
                return Err(broken("a path holds a NUL"));
            }
        }
        let kind = kind_of(header, &path)?;
        let fields = header.as_old();
        let id = |extended: Option<u64>, plain: Option<u64>| {
            let id = extended.or(plain).and_then(|id| u32::try_from(id).ok());
            // The greatest value means "leave as it is" to the kernel.
            id.filter(|id| *id != u32::MAX).ok_or_else(|| broken("an owner is out of range"))
        };
        let (mtime_s, mtime_ns) = match self.mtime {
            Some(time) => time,
            // Binary fields hold negative times in two's complement.
            None => {
                let time = field(&fields.mtime, header.mtime()).ok_or_else(|| broken("the time is not a number"))?;
                (time.cast_signed(), 0)
            }
        };
        let device = |number: io::Result<Option<u32>>| match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                number.ok().flatten().ok_or_else(|| broken("the device number is not a number"))
            }
            Kind::File | Kind::Directory | Kind::Symlink | Kind::HardLink | Kind::Fifo => Ok(0),
        };
        Ok(Entry {
            kind,
            size_bytes: if kind == Kind::File { self.size_bytes.unwrap_or(size) } else { 0 },
            mode: field(&fields.mode, header.mode()).ok_or_else(|| broken("the mode is not a number"))? & 0o7777,
            uid: id(self.uid, field(&fields.uid, header.uid()))?,
            gid: id(self.gid, field(&fields.gid, header.gid()))?,
            mtime_s,
            mtime_ns,
            device: (device(header.device_major())?, device(header.device_minor())?),
            xattrs: self.xattrs,
            path,
            link,
        })
    }
}

fn kind_of(header: &Header, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match header.entry_type().as_byte() {
        // Archives older than POSIX mark a directory by the slash alone.
        b'\0' | b'0' if path.ends_with(b"/") => Kind::Directory,
        b'\0' | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(TarError::Kind { path: shown(path), kind: char::from(other) }),
    })
}

/// A header field that was left empty counts as zero.
pub(super) fn field<N: Default>(raw: &[u8], parsed: io::Result<N>) -> Option<N> {
    if raw.iter().all(|byte| matches!(byte, 0 | b' ')) { Some(N::default()) } else { parsed.ok() }
}

fn number<N: str::FromStr>(text: &[u8]) -> Option<N> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, as in `1700000000.25`. Digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // The fraction of a negative time counts downwards, the kernel's upwards.
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        (true, 0) | (false, _) => Some((seconds, nanoseconds)),
    }
}
