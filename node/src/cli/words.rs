//! Words for people: durations, sizes, ids, as Docker writes them; and amounts as people type them.

use std::time::Duration;

use crate::api::time::{now_ms, parse_rfc3339};

/// Characters of an id that are shown where a table has no room for all.
const ID_CHARS: usize = 12;
/// Longest error in a table, in characters, as in Docker's.
const ERROR_CHARS_MAX: usize = 30;

/// Returns the beginning of an id.
pub(super) fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(ID_CHARS).collect()
}

/// Returns an error as a table shows it: quoted, and cut.
pub(super) fn short_error(error: &str) -> String {
    match error.chars().count() {
        0 => String::new(),
        count if count > ERROR_CHARS_MAX => {
            format!("\"{}…\"", error.chars().take(ERROR_CHARS_MAX - 1).collect::<String>())
        }
        _ => format!("\"{error}\""),
    }
}

/// Returns a word with a capital, as in `Running`.
pub(super) fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Returns how long ago a time was, as in `5 seconds ago`; empty if there is no such time.
pub(super) fn ago(rfc3339: Option<&str>) -> String {
    let then_ms = rfc3339.and_then(parse_rfc3339);
    then_ms.map_or_else(String::new, |then_ms| {
        format!("{} ago", duration(Duration::from_millis(now_ms().saturating_sub(then_ms))).to_lowercase())
    })
}

/// Returns a duration in Docker's rough words.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let hours = (seconds + 1_800) / 3_600;
    match (seconds, hours) {
        (0, _) => "Less than a second".to_owned(),
        (1, _) => "1 second".to_owned(),
        (..60, _) => format!("{seconds} seconds"),
        (..120, _) => "About a minute".to_owned(),
        (..3_600, _) => format!("{} minutes", seconds / 60),
        (_, 1) => "About an hour".to_owned(),
        (_, ..48) => format!("{hours} hours"),
        (_, ..336) => format!("{} days", hours / 24),
        (_, ..1_440) => format!("{} weeks", hours / 24 / 7),
        (_, ..17_520) => format!("{} months", hours / 24 / 30),
        (_, _) => format!("{} years", seconds / 3_600 / 24 / 365),
    }
}

/// Returns a number of bytes with three digits and a decimal unit, as in `12.3MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes}B");
    }
    let mut thousandths = bytes;
    let mut unit = 0;
    while thousandths >= 999_500 && unit + 1 < UNITS.len() {
        thousandths = (thousandths + 500) / 1_000;
        unit += 1;
    }
    let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
    let number = match whole {
        0..10 => format!("{whole}.{:02}", (rest + 5).min(999) / 10),
        10..100 => format!("{whole}.{}", (rest + 50).min(999) / 100),
        _ => format!("{}", whole + u64::from(rest >= 500)),
    };
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

/// Reads a duration in Go's form, as Docker's options take it: `1.5s`, `500ms`, `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration, expected one like 500ms, 10s or 1m30s");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let unit_at = rest.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|character: char| character.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ns = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        let ns = scaled(number, unit_ns).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_nanos(ns)).ok_or_else(wrong)?;
        rest = tail;
    }
    let within = !text.is_empty() && i64::try_from(total.as_nanos()).is_ok();
    if within { Ok(total) } else { Err(wrong()) }
}

/// Reads an amount of memory: bytes, or with one of the units b, k, m, g (of 1024).
pub fn parse_memory(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => 0,
    };
    let bytes = scaled(digits, unit).filter(|bytes| unit > 0 && *bytes > 0).and_then(|bytes| i64::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text:?} is not an amount of memory, expected one like 512m or 2g"))
}

/// Reads a number of CPUs, such as `0.5`, in billionths.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let nano = scaled(text, 1_000_000_000).filter(|nano| *nano > 0).and_then(|nano| i64::try_from(nano).ok());
    nano.ok_or_else(|| format!("{text:?} is not a number of CPUs, expected one like 0.5 or 2"))
}

/// Reads the mode of a file: octal where it begins with a zero.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = match text.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        Some(octal) => u32::from_str_radix(octal.trim_start_matches('o'), 8).ok(),
        None => text.parse().ok(),
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| format!("{text:?} is not a file mode, expected one like 0444"))
}

/// Returns a decimal number times a unit, without floating point; `None` if it is none or too great.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = format!("{fraction:0<9}").parse::<u128>().ok()?;
    let below = u64::try_from(fraction * u128::from(unit) / 1_000_000_000).ok()?;
    whole.checked_mul(unit)?.checked_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs are those of the tests of `docker/go-units`.
    #[test]
    fn durations_have_dockers_words() {
        const HOUR: u64 = 3_600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (180, "3 minutes"),
            (HOUR, "About an hour"),
            (3 * HOUR, "3 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (1_234, "1.23kB"),
            (12_345_678, "12.3MB"),
            (187_654_321, "188MB"),
            (999_999, "1MB"),
            (4_200_000_000, "4.2GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn amounts_are_read_as_docker_reads_them() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("1.5s", 1_500), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1x", "-1s", "1.2.3s", "99999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("512m", 512 << 20), ("2G", 2 << 30), ("1024", 1024), ("1.5k", 1536), ("64MiB", 64 << 20)]
        {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1m", "1q", "0", "99999999999t"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
        assert_eq!(parse_cpus("0.5"), Ok(500_000_000));
        assert!(parse_cpus("0").is_err() && parse_cpus("two").is_err());
    }

    #[test]
    fn modes_are_octal_where_they_begin_with_a_zero() {
        for (text, mode) in [("0440", 0o440), ("288", 0o440), ("0o440", 0o440), ("0", 0), ("01777", 0o1777)] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for text in ["", "-1", "0888", "u+r", "010000"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_are_quoted_and_cut() {
        assert_eq!(short_error(""), "");
        assert_eq!(short_error("task: non-zero exit (1)"), "\"task: non-zero exit (1)\"");
        assert_eq!(short_error(&"é".repeat(31)), format!("\"{}…\"", "é".repeat(29)));
    }
}
