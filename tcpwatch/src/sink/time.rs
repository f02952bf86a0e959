//! Time of day without a time zone database: UTC only.

/// A moment in UTC, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    nanos: u64,
}

/// RFC 3339 with microseconds: `2026-11-21T03:14:07.123456Z`. `time_ns` is nanoseconds since 1970.
pub fn rfc3339(time_ns: u64) -> String {
    let Civil { year, month, day, hour, minute, second, nanos } = civil(time_ns);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", nanos / 1_000)
}

/// The time of day with milliseconds: `03:14:07.123`.
pub fn clock(time_ns: u64) -> String {
    let Civil { hour, minute, second, nanos, .. } = civil(time_ns);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", nanos / 1_000_000)
}

/// The date: `2026-11-21`.
pub fn date(time_ns: u64) -> String {
    let Civil { year, month, day, .. } = civil(time_ns);
    format!("{year:04}-{month:02}-{day:02}")
}

fn civil(time_ns: u64) -> Civil {
    let seconds = time_ns / 1_000_000_000;
    let of_day = seconds % 86_400;
    // Years are counted from March, so that the leap day is the last of its year and months follow one formula
    // (Howard Hinnant, "chrono-compatible low-level date algorithms"). 719468 days lie between 0000-03-01 and 1970.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        hour: of_day / 3_600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
        nanos: time_ns % 1_000_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let table = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (seconds, expected) in table {
            assert_eq!(rfc3339(seconds * 1_000_000_000), expected);
        }
    }

    #[test]
    fn fractions_are_cut_not_rounded() {
        assert_eq!(rfc3339(999_999_999), "1970-01-01T00:00:00.999999Z");
        assert_eq!(clock(999_999_999), "00:00:00.999");
        assert_eq!(date(86_400_000_000_000), "1970-01-02");
    }
}
