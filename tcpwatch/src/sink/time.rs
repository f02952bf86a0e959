//! Time of day without a time zone database: UTC only.

use std::ops::Range;

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

/// A moment in letters, of which there are always as many, ASCII all of them; made for each event, so without a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<const N: usize>([u8; N]);

impl<const N: usize> Stamp<N> {
    /// Writes a number, as many of its last digits as there is room for. The range is a constant, so that none of this is a loop and
    /// the numbers of a moment do not wait for each other.
    #[inline(always)]
    fn with(mut self, place: Range<usize>, mut number: u64) -> Self {
        for digit in self.0[place].iter_mut().rev() {
            // Less than ten.
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self
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
    Stamp(*b"yyyy-mm-ddThh:mm:ss.uuuuuuZ")
        .with(0..4, year)
        .with(5..7, month)
        .with(8..10, day)
        .with(11..13, hour)
        .with(14..16, minute)
        .with(17..19, second)
        .with(20..26, nanos / 1_000)
}

/// The time of day with milliseconds: `03:14:07.123`.
pub fn clock(time_ns: u64) -> Stamp<12> {
    let Civil { hour, minute, second, nanos, .. } = civil(time_ns);
    Stamp(*b"hh:mm:ss.mmm")
        .with(0..2, hour)
        .with(3..5, minute)
        .with(6..8, second)
        .with(9..12, nanos / 1_000_000)
}

/// The date: `2026-11-21`.
pub fn date(time_ns: u64) -> Stamp<10> {
    let Civil { year, month, day, .. } = civil(time_ns);
    Stamp(*b"yyyy-mm-dd").with(0..4, year).with(5..7, month).with(8..10, day)
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

/// Nanoseconds since 1970 (UTC), now; 0 where the clock stands before that.
pub fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Back from [`rfc3339`]: exactly that form.
pub fn parse(text: &str) -> Option<u64> {
    let form = b"####-##-##T##:##:##.######Z";
    let bytes = text.as_bytes();
    let fits =
        |(letter, form): (&u8, &u8)| if *form == b'#' { letter.is_ascii_digit() } else { letter == form };
    if bytes.len() != form.len() || !bytes.iter().zip(form).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(number(20, 26)? * 1_000)
}

/// Days from 1970 to a day of the calendar: the way back from [`civil`].
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March, so that the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Conversions of `strftime(3)` that names of files may have; UTC, as everything here.
pub const CONVERSIONS: &str = "%Y %m %d %H %M %S %F %T %s %%";

/// A name with the time in it; `None`: it has a conversion that is not one of [`CONVERSIONS`].
pub fn strftime(form: &str, time_ns: u64) -> Option<String> {
    let Civil { year, month, day, hour, minute, second, .. } = civil(time_ns);
    let mut name = String::with_capacity(form.len() + 16);
    let mut letters = form.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            name.push(letter);
            continue;
        }
        name += &match letters.next()? {
            'Y' => format!("{year:04}"),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'H' => format!("{hour:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'F' => format!("{year:04}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            's' => (time_ns / 1_000_000_000).to_string(),
            '%' => "%".to_owned(),
            _ => return None,
        };
    }
    Some(name)
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
            assert_eq!(parse(expected), Some(seconds * 1_000_000_000));
        }
    }

    #[test]
    fn times_read_back_are_the_same_to_the_microsecond() {
        for day in 0..80_000 {
            let time = day * 86_400_000_000_000 + day % 86_400 * 1_000_000_000 + 123_456_000;
            assert_eq!(parse(rfc3339(time).as_str()), Some(time));
        }
        for text in
            ["", "2026-11-21T03:14:07.123456", "2026-11-21 03:14:07.123456Z", "2026-13-21T03:14:07.123456Z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_files_have_times() {
        let time = 951_782_400_000_000_000;
        assert_eq!(strftime("/tmp/%F_%H-%M-%S.pcapng", time).unwrap(), "/tmp/2000-02-29_00-00-00.pcapng");
        assert_eq!(strftime("%Y%m%d %T %s 100%%", time).unwrap(), "20000229 00:00:00 951782400 100%");
        assert_eq!(strftime("%B", time), None);
        assert_eq!(strftime("%", time), None);
    }

    #[test]
    fn fractions_are_cut_not_rounded() {
        assert_eq!(rfc3339(999_999_999).as_str(), "1970-01-01T00:00:00.999999Z");
        assert_eq!(clock(999_999_999).as_str(), "00:00:00.999");
        assert_eq!(date(86_400_000_000_000).as_str(), "1970-01-02");
    }
}
