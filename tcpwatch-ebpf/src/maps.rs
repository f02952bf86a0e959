//! Every map, its size and why. Sizes of tables are defaults: user space sets them before loading.

use crate::emit::Event;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_STACK_TRACE;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_map_def};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use tcpwatch_common::counters::{HookCounters, NetnsCounters, TableCounters};
use tcpwatch_common::flow::PortKey;
use tcpwatch_common::hook;
use tcpwatch_common::owner::{Life, Memory, Owner, PortOwner, USER_FRAMES};
use tcpwatch_common::record::Listen;
use tcpwatch_common::storm::{self, Slot};
use tcpwatch_common::table::{self, Chunk, DeadLine, Grave, LiveLine};

/// Records on their way to user space. 4 MiB hold 6,500 resets, a tenth of a second of the fastest storm seen.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The books, one row per hook.
#[map]
pub static COUNTERS: PerCpuArray<HookCounters> = PerCpuArray::with_max_entries(hook::COUNT as u32, 0);

/// The books, per network namespace.
#[map]
pub static NETNS_COUNTERS: LruPerCpuHashMap<u32, NetnsCounters> = LruPerCpuHashMap::with_max_entries(4096, 0);

/// Not 0 once user space closes the books: from then on nothing is counted or sent any more. Taking the programs off takes up
/// to a tenth of a second for each; the summary need not wait for that.
#[map]
pub static CLOSED: Array<u32> = Array::with_max_entries(1, 0);

/// What is known of each live socket. Emptied by `tcp_destroy_sock`; where there are more sockets than entries one makes room
/// for another, so that memory stays bounded. Arrays, in which `tables` finds its way: user space maps this one into its memory.
#[map]
pub static LIVE: Array<Life> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);
/// Addresses of the sockets in [`LIVE`], for user space to see what is in use.
#[map]
pub static LIVE_KEYS: Array<LiveLine> = Array::with_max_entries(65_536 / table::LIVE, BPF_F_MMAPABLE);

/// What was known of a connection when its socket closed, found by its addresses: a late segment looks here. A log: each CPU
/// writes a piece of it from end to end, then takes the piece that nobody has written to for the longest time.
#[map]
pub static DEAD: Array<Grave> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);
/// Who writes where in [`DEAD`].
#[map]
pub static DEAD_CHUNKS: Array<Chunk> = Array::with_max_entries(65_536 / table::CHUNK, 0);
/// The piece of [`DEAD`] that is to be taken next, more or less: CPUs that take one at the same moment may set it back a little.
#[map]
pub static DEAD_NEXT: Array<u32> = Array::with_max_entries(1, 0);
/// Leads from addresses to entries of [`DEAD`]. Nobody maps it, but only where that is allowed do the values begin at a page, so that
/// each set is one line of the CPU's cache; else the kernel puts them right behind its own description of the map.
#[map]
pub static DEAD_KEYS: Array<DeadLine> = Array::with_max_entries(table::dead_lines(65_536), BPF_F_MMAPABLE);

/// How full [`LIVE`] and [`DEAD`] are.
#[map]
pub static TABLES: PerCpuArray<TableCounters> = PerCpuArray::with_max_entries(1, 0);

/// What is told of storms, and how much of it in this window. User space maps it, and gives places back.
#[map]
pub static STORMS: Array<Slot> = Array::with_max_entries(storm::SLOTS, BPF_F_MMAPABLE);
/// How many events were counted at each place of [`STORMS`]: of all keys that ever had it, and of each CPU apart, because what is
/// counted comes as fast as the wire carries it.
#[map]
pub static STORM_COUNTS: PerCpuArray<[u64; storm::COUNTS as usize]> =
    PerCpuArray::with_max_entries(storm::SLOTS / storm::COUNTS, 0);

/// What is being decided of the event at hand, a place per hook.
#[map]
pub static DECIDING: PerCpuArray<Deciding> = PerCpuArray::with_max_entries(hook::COUNT as u32, 0);

/// User stacks from which sockets were read, each once. A program reads in few places, so that 4,096 do for a host of many; they
/// take 1.1 MB. The kernel keeps a stack where its hash says, and nothing is ever taken out: a stack whose place is taken
/// is not kept, since to put it there would give every socket that points to the other one a wrong stack. One entry when
/// nobody wants them.
#[map]
pub static STACKS: UserStacks = UserStacks::with_max_entries(4096);

/// Owners of the sockets that were there before tcpwatch, by the socket's inode; filled once by user space, which sets its size.
/// Preallocated, because kernels before 6.1 put a warning into their log when a tracing program has a table that is not.
#[map]
pub static SEEDS: HashMap<u64, Owner> = HashMap::with_max_entries(1024, 0);

/// The event at hand, a place per hook.
#[map]
pub static EVENT: PerCpuArray<Event> = PerCpuArray::with_max_entries(hook::COUNT as u32, 0);

/// What is remembered for the event at hand, a place per hook.
#[map]
pub static FOUND: PerCpuArray<Found> = PerCpuArray::with_max_entries(hook::COUNT as u32, 0);

/// Who listens on a port.
#[map]
pub static PORTS: LruHashMap<PortKey, PortOwner> = LruHashMap::with_max_entries(16_384, 0);

/// Arguments of a function between its kprobe and its kretprobe, a slot per hook.
#[map]
pub static CALLS: PerCpuArray<[u64; 4]> = PerCpuArray::with_max_entries(hook::COUNT as u32, 0);

/// The SYN that `tcp_conn_request` is working on, on this CPU.
#[map]
pub static SYN: PerCpuArray<Syn> = PerCpuArray::with_max_entries(1, 0);

/// The request or minisock that was removed last on this CPU.
#[map]
pub static REMOVED: PerCpuArray<Removed> = PerCpuArray::with_max_entries(2, 0);

/// Type of [`STACKS`].
///
/// `aya_ebpf::maps::StackTrace` has 127 frames in every entry: four times as much memory, and the kernel refuses it where
/// `kernel.perf_event_max_stack` is smaller than the default.
#[repr(transparent)]
pub struct UserStacks(UnsafeCell<bpf_map_def>);

// SAFETY: the loader puts a reference to the map in its place; no program reads the definition.
unsafe impl Sync for UserStacks {}

impl UserStacks {
    const fn with_max_entries(max_entries: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_STACK_TRACE,
            key_size: size_of::<u32>() as u32,
            value_size: (USER_FRAMES * size_of::<u64>()) as u32,
            max_entries,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    /// What helpers take for the map.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

/// Value of [`FOUND`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    pub present: Memory,
    pub past: Memory,
    /// Bits of `record::flag`.
    pub flags: u32,
    pub pad: u32,
}

/// Value of [`DECIDING`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Deciding {
    /// Events that are told in a window, of the finest level.
    pub limit: u32,
    pub window: u32,
    /// Places in [`STORMS`], by level.
    pub slots: [u32; 4],
    pub fate: u32,
    pub pad: u32,
}

/// Value of [`SYN`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Syn {
    /// The listener, 0 when none is at work.
    pub sock: u64,
    pub skb: u64,
    pub listen: Listen,
}

/// Value of [`REMOVED`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Removed {
    pub sock: u64,
    pub at_ns: u64,
}

/// Row of [`REMOVED`] for half-open requests.
pub const REMOVED_REQUEST: u32 = 0;
/// Row of [`REMOVED`] for TIME_WAIT minisocks.
pub const REMOVED_TIMEWAIT: u32 = 1;
