//! Text for people, wrapped.

/// Columns of a page.
pub(super) const WIDTH: usize = 100;

/// Wraps at the width, whole words where there are any.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn line(&mut self, indent: usize, text: &str) {
        self.hanging(indent, "", text);
    }

    /// Continuation lines stand under the text, not under the mark.
    pub(super) fn hanging(&mut self, indent: usize, mark: &str, text: &str) {
        let inner = indent + mark.chars().count();
        let mut line = format!("{:indent$}{mark}", "");
        let mut column = inner;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if column > inner && column + 1 + length > WIDTH {
                self.push(&line);
                line = " ".repeat(inner);
                column = inner;
            }
            if column > inner {
                line.push(' ');
                column += 1;
            }
            line.push_str(word);
            column += length;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}
