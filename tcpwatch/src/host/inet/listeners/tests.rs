//! Tests on made-up tables.

use super::*;

const HEADING: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn row(n: usize, local: &str, state: &str, inode: u64) -> String {
    format!(
        "{n:4}: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

/// Gives a table out in pieces of a chosen size, as the kernel does.
struct Pieces<'a>(&'a [u8], usize, usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.1.min(self.0.len()).min(buffer.len());
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        self.2 += 1;
        Ok(length)
    }
}

#[test]
fn rows_are_found_however_the_table_is_cut() {
    let mut table = HEADING.to_owned();
    for n in 0..100 {
        table += &row(n, &format!("00000000:{n:04X}"), "0A", 1000 + n as u64);
    }
    for size in [3_841, 4_000, 4_096, 1 << 20] {
        let mut found = Vec::new();
        of_table(Pieces(table.as_bytes(), size, 0), |port, socket| found.push((port, socket)));
        assert!(found.iter().copied().eq((0..100).map(|n| (n, 1000 + u64::from(n)))), "pieces of {size}");
    }
}

/// Listeners found and pieces read.
fn found_and_read(table: &str) -> (usize, usize) {
    let mut found = 0;
    let mut pieces = Pieces(table.as_bytes(), 4096, 0);
    of_table(&mut pieces, |_, _| found += 1);
    (found, pieces.2)
}

#[test]
fn reading_ends_behind_the_of_table() {
    let mut table = HEADING.to_owned() + &row(0, "00000000:0050", "0A", 100);
    for n in 0..10_000 {
        table += &row(n, "0100007F:9C40", "01", 0);
    }
    assert_eq!(found_and_read(&table), (1, 2));
}

#[test]
fn less_than_a_page_of_rows_is_all_of_them() {
    let table = HEADING.to_owned() + &row(0, "00000000:0050", "0A", 100);
    assert_eq!(found_and_read(&table), (1, 1));
}

#[test]
fn rubbish_in_a_table_is_passed_over() {
    let long = "x".repeat(200_000);
    for text in ["", "\n\n", "no such table", "  0: 1:2 3:4 0A", "  0: zz:zz 0:0 0A a b c d e f", &long] {
        of_table(text.as_bytes(), |port, socket| panic!("{text:.20}: {port} {socket}"));
    }
}
