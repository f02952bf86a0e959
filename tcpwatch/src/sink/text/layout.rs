//! Words into lines, times into few letters.

use crate::event::HistoryStep;

/// Columns of the terminal that everything but IPv6 fits into.
pub(in crate::sink) const WIDTH: usize = 100;

/// Breaks text at spaces. A word longer than a line stays whole.
pub(in crate::sink) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut len = 0;
    for word in text.split(' ') {
        let letters = word.chars().count();
        if len > 0 && len + 1 + letters > width {
            lines.push(std::mem::take(&mut line));
            len = 0;
        }
        if len > 0 {
            line.push(' ');
            len += 1;
        }
        line.push_str(word);
        len += letters;
    }
    lines.push(line);
    lines
}

/// A state with its time: `ESTABLISHED 17 ms`.
pub(in crate::sink) fn step(step: &HistoryStep) -> String {
    match step.for_us {
        Some(us) => format!("{} {}", step.state, span(us)),
        None => step.state.to_owned(),
    }
}

/// Microseconds in few letters.
pub(in crate::sink) fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
        60_000_000..3_600_000_000 => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
        _ => format!("{} h {} min", us / 3_600_000_000, us / 60_000_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert_eq!(wrap("", 5), [""]);
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
            assert_eq!(span(us), text);
        }
    }
}
