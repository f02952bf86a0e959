//! The queue between a sink and its reader, with pipes for readers.

use super::*;
use std::io::{PipeReader, Read};

/// Bytes of an event here, and what no event has.
const EVENT: usize = 1000;
/// A pipe holds this much unless it is told otherwise.
const PIPE: usize = 64 << 10;
static TOLD: AtomicBool = AtomicBool::new(true);

fn piped() -> (Output, Queue, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let (output, queue) = queue(writer).unwrap();
    (output, queue, reader)
}

/// A line with its number, of which no part can be taken for another's.
fn event(number: usize) -> Vec<u8> {
    let mut line = vec![b'.'; EVENT];
    write!(&mut line[..], "{number:08}").unwrap();
    line[EVENT - 1] = b'\n';
    line
}

/// As many events as are taken until the pipe is full, too: the writer may have its turn late.
fn fill(queue: &mut Queue, reader: &PipeReader) -> usize {
    let mut taken = 0;
    let mut in_pipe = 0;
    loop {
        while queue.put(&event(taken), Weight::Event).unwrap() == Shown::Yes {
            queue.flush().unwrap();
            taken += 1;
            assert!(taken < 1_000_000, "it has no end");
        }
        let now = rustix::io::ioctl_fionread(reader).unwrap();
        if now == in_pipe && usize::try_from(now).unwrap() > PIPE - PIECE {
            return taken;
        }
        in_pipe = now;
        std::thread::sleep(LOOK);
    }
}

#[test]
fn a_reader_who_takes_nothing_gets_whole_events_and_every_note_in_the_end() {
    let (output, mut queue, mut reader) = piped();
    let taken = fill(&mut queue, &reader);
    let room = LIMIT..=LIMIT + PIPE + CHUNK;
    assert!(room.contains(&((taken + 1) * EVENT)), "{taken} events of {EVENT} bytes were taken");
    assert!(queue.len() <= LIMIT);
    assert_eq!(queue.put(&event(taken), Weight::Event).unwrap(), Shown::No, "it stays full");
    let mut notes = 0;
    while queue.put(b"note\n", Weight::Note).unwrap() == Shown::Yes {
        notes += 1;
    }
    assert!((NOTES / 5 - EVENT..=(NOTES + EVENT) / 5).contains(&notes), "{notes} notes");
    queue.closing();
    assert_eq!(queue.put(b"last note\n", Weight::Note).unwrap(), Shown::Yes);
    assert_eq!(queue.put(b"summary\n", Weight::Must).unwrap(), Shown::Yes);
    let began = Instant::now();
    assert_eq!(queue.put(&event(taken), Weight::Event).unwrap(), Shown::No);
    assert!(began.elapsed() >= STALLED, "it is waited for at the end");
    let began = Instant::now();
    assert_eq!(queue.put(&event(taken), Weight::Event).unwrap(), Shown::No);
    assert!(began.elapsed() < STALLED, "once");
    drop(queue);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    output.finish(&TOLD).unwrap();
    let all = reading.join().unwrap();
    let expected: Vec<u8> =
        (0..taken).flat_map(event).chain(b"note\n".repeat(notes)).chain(*b"last note\nsummary\n").collect();
    assert!(all == expected, "{} bytes and not {}", all.len(), expected.len());
}

#[test]
fn a_reader_who_comes_back_finds_room_again() {
    let (output, mut queue, mut reader) = piped();
    let taken = fill(&mut queue, &reader);
    let mut half = vec![0; LIMIT / 2];
    reader.read_exact(&mut half).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while queue.put(&event(taken), Weight::Event).unwrap() == Shown::No {
        assert!(Instant::now() < end, "there is no room");
        std::thread::yield_now();
    }
    drop(queue);
    let reading = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()).unwrap());
    output.finish(&TOLD).unwrap();
    assert_eq!(half.len() + reading.join().unwrap(), (taken + 1) * EVENT);
}

#[test]
fn at_the_end_a_slow_reader_is_waited_for() {
    let (output, mut queue, mut reader) = piped();
    let taken = fill(&mut queue, &reader);
    queue.closing();
    let reading = std::thread::spawn(move || {
        let mut all = 0;
        let mut some = [0; PIECE];
        loop {
            std::thread::sleep(Duration::from_micros(100));
            match reader.read(&mut some).unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    for more in 0..1000 {
        assert_eq!(queue.put(&event(taken + more), Weight::Event).unwrap(), Shown::Yes);
    }
    drop(queue);
    output.finish(&TOLD).unwrap();
    assert_eq!(reading.join().unwrap(), (taken + 1000) * EVENT);
}

#[test]
fn what_is_flushed_is_seen_at_once() {
    let (output, mut queue, mut reader) = piped();
    assert_eq!(queue.put(b"start\n", Weight::Must).unwrap(), Shown::Yes);
    queue.flush().unwrap();
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"start\n");
    drop(queue);
    output.finish(&TOLD).unwrap();
}

#[test]
fn a_reader_who_has_gone_is_told_of_with_the_next_flush_and_at_the_end() {
    let (output, mut queue, reader) = piped();
    drop(reader);
    queue.put(b"start\n", Weight::Must).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match queue.flush() {
            Ok(()) => assert!(Instant::now() < end, "nobody notices"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(queue);
    assert_eq!(output.finish(&TOLD).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_full_disk_is_told_of_by_its_name() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (output, mut queue) = queue(full).unwrap();
    queue.put(b"start\n", Weight::Must).unwrap();
    drop(queue);
    assert_eq!(output.finish(&TOLD).unwrap_err().kind(), io::ErrorKind::StorageFull);
}
