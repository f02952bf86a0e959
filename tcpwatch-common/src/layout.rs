//! The size of every type that user space and the kernel share, in one list. A change here is a change of the wire.

use crate::{counters, filter, flow, owner, record, storm, table};
use core::mem::{align_of, size_of};

macro_rules! sizes {
    ($($type:ty = $size:literal;)*) => {
        $(const _: () = assert!(size_of::<$type>() == $size, stringify!($type));
          const _: () = assert!(align_of::<$type>() <= 8, stringify!($type));)*
    };
}

sizes! {
    flow::Addr = 16;
    flow::Flow = 40;
    flow::PortKey = 8;
    owner::Owner = 48;
    owner::Memory = 152;
    owner::Life = 208;
    table::Grave = 192;
    table::Chunk = 16;
    storm::Key = 24;
    storm::Slot = 48;
    owner::PortOwner = 72;
    counters::HookCounters = 40;
    counters::NetnsCounters = 32;
    counters::TableCounters = 56;
    filter::Test = 40;
    filter::Expression = 3364;
    filter::Filter = 3384;
    record::Packet = 16;
    record::Listen = 24;
    record::Listener = 24;
    record::TimeWait = 16;
    record::Socket = 64;
    record::Task = 24;
    record::StateRecord = 144;
    record::Record = 736;
}

// The two shapes are told apart by length alone.
const _: () = assert!(size_of::<record::Record>() != size_of::<record::StateRecord>());
// The ring buffer hands out 8-byte aligned chunks.
const _: () = assert!(
    size_of::<record::Record>().is_multiple_of(8) && size_of::<record::StateRecord>().is_multiple_of(8)
);
