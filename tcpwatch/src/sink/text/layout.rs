//! Words into lines, times into few letters.

use crate::event::HistoryStep;
use std::fmt::{self, Display};

/// Columns of the terminal that everything but IPv6 fits into.
pub(in crate::sink) const WIDTH: usize = 100;

/// Breaks text at spaces. A word longer than a line stays whole.
pub(in crate::sink) fn wrap(text: &str, width: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let (mut start, mut end, mut at, mut len) = (0, 0, 0, 0);
        for word in text.split(' ') {
            let letters = word.chars().count();
            if len > 0 && len + 1 + letters > width {
                rest = Some(&text[at..]);
                break;
            }
            if len > 0 {
                len += 1;
            } else {
                start = at;
            }
            len += letters;
            end = at + word.len();
            at = end + 1;
        }
        Some(&text[start..end])
    })
}

/// A state with its time: `ESTABLISHED 17 ms`.
pub(in crate::sink) fn step(step: &HistoryStep) -> impl Display {
    fmt::from_fn(|f| match step.for_us {
        Some(us) => write!(f, "{} {}", step.state, span(us)),
        None => f.write_str(step.state),
    })
}

/// Microseconds in few letters.
pub(in crate::sink) fn span(us: u64) -> impl Display {
    fmt::from_fn(move |f| match us {
        0..1_000 => write!(f, "{us} us"),
        1_000..1_000_000 => write!(f, "{} ms", us / 1_000),
        1_000_000..60_000_000 => write!(f, "{}.{} s", us / 1_000_000, us / 100_000 % 10),
        60_000_000..3_600_000_000 => write!(f, "{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
        _ => write!(f, "{} h {} min", us / 3_600_000_000, us / 60_000_000 % 60),
    })
}

/// Letters in bytes that are UTF-8.
pub(in crate::sink) fn letters(bytes: &[u8]) -> usize {
    // Each has one byte that is no continuation.
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces() {
        let wrapped = |text, width| wrap(text, width).collect::<Vec<_>>();
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert_eq!(wrapped("  two  spaces", 11), ["two  spaces"]);
        assert_eq!(wrapped("two  spaces", 5), ["two ", "spaces"]);
        assert_eq!(wrapped("für größe", 5), ["für", "größe"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn spans_are_short() {
        let table = [
            (999, "999 us"),
            (16_954, "16 ms"),
            (2_450_000, "2.4 s"),
            (61_000_000, "1 min 1 s"),
            (7_260_000_000, "2 h 1 min"),
        ];
        for (us, text) in table {
            assert_eq!(span(us).to_string(), text);
        }
    }
}
