//! Times: milliseconds since the Unix epoch to RFC 3339 and back, which is all that the API needs of a calendar.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: u64 = 86_400_000;
/// The end of the year 9999, the last that RFC 3339 can write.
const MS_MAX: u64 = 253_402_300_799_999;

/// Returns the present time by the wall clock, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a time as RFC 3339 in UTC, such as `2026-02-28T12:00:00.250Z`.
pub fn rfc3339(ms: u64) -> String {
    let ms = ms.min(MS_MAX);
    let (year, month, day) = date(ms / DAY_MS);
    let ms_of_day = ms % DAY_MS;
    let (hour, minute, second) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60, ms_of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms_of_day % 1_000)
}

/// Reads RFC 3339; `None` if it is malformed or before 1970. Digits beyond milliseconds are cut off.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date_text, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date_text.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days(year, month, day) * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + millis(fraction)?;
    let offset = offset_ms(zone)?;
    u64::try_from(i64::try_from(local).ok()? - offset).ok()
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn millis(fraction: &str) -> Option<u64> {
    let digits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| fraction.bytes().chain(*b"000").take(3).fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0')))
}

fn offset_ms(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return (zone.len() == 1).then_some(0),
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let minutes = number(hours)?.checked_mul(60)? + number(minutes)?;
    Some(sign * i64::try_from(minutes * 60_000).ok()?)
}

/// Returns year, month and day of the day with this number, counted from 1970-01-01.
/// See Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(day_number: u64) -> (u64, u64, u64) {
    let shifted = day_number + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Returns the number of a day, counted from 1970-01-01; the inverse of [`date`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(parse_rfc3339(text), Some(ms));
        }
        assert_eq!(parse_rfc3339("2024-01-01T02:00:00.123456789+02:00"), parse_rfc3339("2024-01-01T00:00:00.123Z"));
        assert_eq!(parse_rfc3339("2023-12-31T22:30:00-01:30"), parse_rfc3339("2024-01-01T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn times_survive_a_round_trip(ms in 0..=MS_MAX) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }

        #[test]
        fn hostile_times_do_not_panic(text in "[0-9TZ:+.é-]{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
