//! Bytes of the ring buffer to records, where they lie. Total: any bytes give a record or say what is wrong with them.

use tcpwatch_common::{
    hook,
    record::{Record, StateRecord, kind},
};
use zerocopy::FromBytes;

/// A record as, and where, the kernel programs wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw<'a> {
    Event(&'a Record),
    State(&'a StateRecord),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No record is that long.
    Length(usize),
    /// They do not begin at a multiple of eight, where the ring buffer has each record.
    Place,
    /// No such kind, or a kind of the other shape.
    Kind(u8),
    /// No such hook.
    Hook(u8),
    /// More stack frames than fit.
    Frames(u32),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(len) => write!(f, "no record is {len} bytes long"),
            Self::Place => write!(f, "a record that does not begin at a multiple of eight"),
            Self::Kind(kind) => write!(f, "unknown kind of record: {kind}"),
            Self::Hook(hook) => write!(f, "unknown hook: {hook}"),
            Self::Frames(frames) => write!(f, "{frames} stack frames in a record"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads one record. The two shapes are told apart by length, so a buffer must hold exactly one.
pub fn decode(bytes: &[u8]) -> Result<Raw<'_>, Malformed> {
    if bytes.len() == size_of::<Record>() {
        let record = Record::ref_from_bytes(bytes).map_err(|_| Malformed::Place)?;
        if !matches!(record.kind, kind::RST_SENT..=kind::DROP | kind::RETRANSMIT) {
            return Err(Malformed::Kind(record.kind));
        }
        if record.frames as usize > record.stack.len() {
            return Err(Malformed::Frames(record.frames));
        }
        known_hook(record.hook)?;
        return Ok(Raw::Event(record));
    }
    if bytes.len() == size_of::<StateRecord>() {
        let record = StateRecord::ref_from_bytes(bytes).map_err(|_| Malformed::Place)?;
        if record.kind != kind::STATE {
            return Err(Malformed::Kind(record.kind));
        }
        known_hook(record.hook)?;
        return Ok(Raw::State(record));
    }
    Err(Malformed::Length(bytes.len()))
}

fn known_hook(id: u8) -> Result<(), Malformed> {
    hook::name(id).map(|_| ()).ok_or(Malformed::Hook(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn record() -> Record {
        let mut record = Record::new_zeroed();
        record.kind = kind::RST_SENT;
        record.hook = hook::TCP_SEND_RESET;
        record
    }

    fn state() -> StateRecord {
        let mut record = StateRecord::new_zeroed();
        record.kind = kind::STATE;
        record.hook = hook::INET_SOCK_SET_STATE;
        record
    }

    #[test]
    fn both_shapes_round_trip() {
        assert_eq!(decode(record().as_bytes()), Ok(Raw::Event(&record())));
        assert_eq!(decode(state().as_bytes()), Ok(Raw::State(&state())));
    }

    #[test]
    fn a_record_at_an_odd_place_is_refused() {
        for record in [record().as_bytes(), state().as_bytes()] {
            let mut twice = record.repeat(2);
            for shift in 1..8 {
                twice.copy_within(..record.len(), shift);
                assert_eq!(decode(&twice[shift..shift + record.len()]), Err(Malformed::Place), "{shift}");
            }
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let (event, state) = (size_of::<Record>(), size_of::<StateRecord>());
        let bytes = vec![1; event + 16];
        for len in (0..bytes.len()).filter(|len| *len != event && *len != state) {
            assert_eq!(decode(&bytes[..len]), Err(Malformed::Length(len)));
        }
    }

    #[test]
    fn every_kind_and_hook_is_known_or_refused() {
        for byte in 0..=u8::MAX {
            let of_kind = Record { kind: byte, ..record() };
            let known = (1..=6).contains(&byte) || byte == 8;
            assert_eq!(decode(of_kind.as_bytes()).is_ok(), known, "kind {byte}");

            let of_hook = Record { hook: byte, ..record() };
            let expected = hook::name(byte).is_some();
            assert_eq!(decode(of_hook.as_bytes()).is_ok(), expected, "hook {byte}");
        }
    }

    #[test]
    fn a_kind_in_the_wrong_shape_is_refused() {
        let wrong = StateRecord { kind: kind::RST_SENT, ..state() };
        assert_eq!(decode(wrong.as_bytes()), Err(Malformed::Kind(kind::RST_SENT)));
        let wrong = StateRecord { hook: 0, ..state() };
        assert_eq!(decode(wrong.as_bytes()), Err(Malformed::Hook(0)));
    }

    #[test]
    fn more_frames_than_fit_are_refused() {
        let wrong = Record { frames: 25, ..record() };
        assert_eq!(decode(wrong.as_bytes()), Err(Malformed::Frames(25)));
    }
}
