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

/// A moment in letters, of which there are always as many; made for each event, so without a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<const N: usize>([u8; N]);

impl<const N: usize> Stamp<N> {
    /// From a form in which each run of `#` stands for the digits of one number.
    fn new(form: &[u8; N], numbers: &[u64]) -> Self {
        let mut text = *form;
        let mut numbers = numbers.iter().rev();
        let mut number = 0;
        let mut inside = false;
        for letter in text.iter_mut().rev() {
            let digit = *letter == b'#';
            if digit {
                if !inside {
                    number = numbers.next().copied().unwrap_or(0);
                }
                // Less than ten.
                *letter = b'0' + (number % 10) as u8;
                number /= 10;
            }
            inside = digit;
        }
        Self(text)
    }

    /// The letters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const N: usize> std::fmt::Display for Stamp<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 3339 with microseconds: `2026-11-21T03:14:07.123456Z`. `time_ns` is nanoseconds since 1970.
pub fn rfc3339(time_ns: u64) -> Stamp<27> {
    let Civil { year, month, day, hour, minute, second, nanos } = civil(time_ns);
    Stamp::new(b"####-##-##T##:##:##.######Z", &[year, month, day, hour, minute, second, nanos / 1_000])
}

/// The time of day with milliseconds: `03:14:07.123`.
pub fn clock(time_ns: u64) -> Stamp<12> {
    let Civil { hour, minute, second, nanos, .. } = civil(time_ns);
    Stamp::new(b"##:##:##.###", &[hour, minute, second, nanos / 1_000_000])
}

/// The date: `2026-11-21`.
pub fn date(time_ns: u64) -> Stamp<10> {
    let Civil { year, month, day, .. } = civil(time_ns);
    Stamp::new(b"####-##-##", &[year, month, day])
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
            assert_eq!(rfc3339(seconds * 1_000_000_000).as_str(), expected);
        }
    }

    #[test]
    fn fractions_are_cut_not_rounded() {
        assert_eq!(rfc3339(999_999_999).as_str(), "1970-01-01T00:00:00.999999Z");
        assert_eq!(clock(999_999_999).as_str(), "00:00:00.999");
        assert_eq!(date(86_400_000_000_000).as_str(), "1970-01-02");
    }
}
