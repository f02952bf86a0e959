//! The running kernel: loads the programs, attaches what is granted, hands out records and counters.

use super::attach::{Attached, attach, loader, missed, probe, short};
use super::ladder::{Outcome, climb_all};
use super::object;
use super::ring::Ring;
use super::table::Table;
use crate::host::Host;
use crate::host::preflight::{self, HookStatus};
use crate::host::seed::Seed;
use crate::kernel::hooks::{Granted, Hook, Plan, Rung, When};
use crate::kernel::shape::{CURRENT_TASK, Shape};
use crate::memory;
use anyhow::{Context, Result, anyhow, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, StackTraceMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tcpwatch_common::config::Config;
use tcpwatch_common::counters::{HookCounters, NetnsCounters, TableCounters};
use tcpwatch_common::filter::Filter;
use tcpwatch_common::flow::{Flow, PortKey};
use tcpwatch_common::hook;
use tcpwatch_common::offsets::{ABSENT, Offsets};
use tcpwatch_common::owner::{Life, Memory, Owner, PortOwner, Step};
use tcpwatch_common::record::FRAMES;
use tcpwatch_common::state;
use tcpwatch_common::storm::{self, Slot};
use tcpwatch_common::table::{self, Chunk, Grave};

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PIDNS: u64 = 0xEFFF_FFFC;

/// Entries of a table of sockets when nobody says otherwise.
pub const TABLE: u32 = 65_536;

/// What the user decided about the kernel side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bits of `tcpwatch_common::config::deliver`.
    pub deliver: u32,
    pub filter: Filter,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub buffer: u32,
    /// Live sockets that are remembered.
    pub sockets: u32,
    /// Ended connections that are remembered.
    pub ended: u32,
    /// Sockets whose owners [`Live::seed`] is going to tell, at most.
    pub seeds: u32,
    /// Events of one kind, port and peer network that are told one by one in a second; `None`: all of them.
    pub storm: Option<u32>,
    /// Kernel stack frames are shown, not only looked at for the deciding function.
    pub stacks: bool,
    /// Keep the user stack of each socket's last read.
    pub read_stacks: bool,
    /// The only rung to use for functions, for tests and odd hosts; `None`: whatever is granted.
    pub only: Option<Rung>,
    /// Tracepoints may be attached by programs that know the types of their arguments.
    pub typed: bool,
    /// Set from outside when the run is to end before it has begun.
    pub stop: Arc<AtomicBool>,
}

/// The run was ended while it began.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ended by a signal before every hook was attached")
    }
}

impl std::error::Error for Stopped {}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deliver: 0,
            filter: Filter::NONE,
            buffer: 4 << 20,
            sockets: TABLE,
            ended: TABLE,
            seeds: 1024,
            storm: None,
            stacks: false,
            read_stacks: false,
            only: None,
            typed: true,
            stop: Arc::default(),
        }
    }
}

/// Programs in the kernel, attached. Dropping it takes them off; so does the kernel if the process is killed.
pub struct Live {
    /// Programs that may still be attached. `None`: none may, and their code is megabytes.
    ebpf: Option<Ebpf>,
    events: Ring,
    counters: PerCpuArray<MapData, HookCounters>,
    netns: PerCpuHashMap<MapData, u32, NetnsCounters>,
    closed: Array<MapData, u32>,
    seeds: HashMap<MapData, u64, Owner>,
    ports: HashMap<MapData, PortKey, PortOwner>,
    tables: PerCpuArray<MapData, TableCounters>,
    storms: Table<Slot>,
    storm_counts: PerCpuArray<MapData, [u64; storm::COUNTS as usize]>,
    living: Table<Life>,
    dead: Table<Grave>,
    /// `None`: nobody wants them.
    read_stacks: Option<StackTraceMap<MapData>>,
    sizes: Sizes,
    granted: Granted,
    status: Vec<HookStatus>,
    /// What holds, by hook.
    attached: Vec<(u8, Vec<Attached>)>,
    /// Hooks whose module is not loaded yet.
    waiting: Vec<&'static Hook>,
    /// Essential hooks that are not attached though this host grants a way to them, and what was said.
    unexpected: Vec<String>,
}

impl Live {
    /// Loads and attaches. Fails only if nothing could be told at all; what is missing is in [`Self::status`].
    pub fn start(shape: &Shape, settings: &Settings) -> Result<Self> {
        raise_memlock();
        let (granted, refused, types) = probe(shape, settings.only, settings.typed);
        let plan = Plan { shape, granted, deliver: settings.deliver };
        let sizes = Sizes {
            // Up to half of its places are held without loss.
            sockets: table::entries(settings.sockets.saturating_mul(2)),
            // Every CPU holds a piece, and needs others to choose from.
            ended: table::entries(settings.ended.max(cpus() * 2 * table::CHUNK)),
        };
        let config = configure(&plan, settings, sizes);
        let mut loader = loader();
        loader
            .override_global("CONFIG", &config, true)
            .map_max_entries("EVENTS", settings.buffer)
            .map_max_entries("LIVE", sizes.sockets)
            .map_max_entries("LIVE_KEYS", sizes.sockets / table::LIVE)
            .map_max_entries("DEAD", sizes.ended)
            .map_max_entries("DEAD_CHUNKS", sizes.ended / table::CHUNK)
            .map_max_entries("DEAD_KEYS", table::dead_lines(sizes.ended))
            .map_max_entries("SEEDS", settings.seeds.max(1));
        if !settings.read_stacks {
            loader.map_max_entries("STACKS", 1);
        }
        let mut ebpf = loader.load(object::PROGRAMS).map_err(anyhow::Error::from).map_err(|error| {
            let why = short(&error);
            let memory = preflight::locked_memory(&preflight::Facts::read(&Host::live(), true));
            let hint = memory.map_or_else(
                || "`tcpwatch doctor` says which privilege is missing".to_owned(),
                |finding| format!("{}: {}; {}", finding.what, finding.effect, finding.hint),
            );
            anyhow!("cannot create the tables in the kernel: {why}\nhint: {hint}")
        })?;
        let read_stacks = match settings.read_stacks {
            true => Some(StackTraceMap::try_from(take(&mut ebpf, "STACKS")?)?),
            false => None,
        };
        let mut live = Self {
            events: Ring::new(map(&mut ebpf, "EVENTS")?, settings.buffer)?,
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)?,
            netns: PerCpuHashMap::try_from(take(&mut ebpf, "NETNS_COUNTERS")?)?,
            closed: Array::try_from(take(&mut ebpf, "CLOSED")?)?,
            seeds: HashMap::try_from(take(&mut ebpf, "SEEDS")?)?,
            ports: HashMap::try_from(take(&mut ebpf, "PORTS")?)?,
            tables: PerCpuArray::try_from(take(&mut ebpf, "TABLES")?)?,
            storms: Table::new(take(&mut ebpf, "STORMS")?, storm::SLOTS)?,
            storm_counts: PerCpuArray::try_from(take(&mut ebpf, "STORM_COUNTS")?)?,
            living: Table::with_keys(take(&mut ebpf, "LIVE")?, take(&mut ebpf, "LIVE_KEYS")?, sizes.sockets)?,
            dead: Table::new(take(&mut ebpf, "DEAD")?, sizes.ended)?,
            read_stacks,
            sizes,
            ebpf: None,
            granted,
            status: Vec::new(),
            attached: Vec::new(),
            waiting: Vec::new(),
            unexpected: Vec::new(),
        };
        let Some(outcomes) = climb_all(&mut ebpf, &plan, types.as_ref(), &settings.stop) else {
            bail!(Stopped);
        };
        for outcome in outcomes {
            live.settle(outcome, &plan, &refused);
        }
        live.ebpf = (!live.waiting.is_empty()).then_some(ebpf);
        drop(types);
        memory::give_back_gaps();
        if !live.is_attached(hook::TCP_SEND_RESET) && !live.is_attached(hook::INET_SOCK_SET_STATE) {
            let why = live.status.iter().flat_map(|status| &status.tried).map(|(_, why)| why.as_str()).next();
            bail!(
                "nothing could be attached to this kernel: {}\nhint: `tcpwatch doctor` says which privilege or kernel option is missing",
                why.unwrap_or("it has none of the hooks")
            );
        }
        Ok(live)
    }

    /// Notes what became of a hook.
    fn settle(&mut self, outcome: Outcome, plan: &Plan<'_>, refused: &[(Rung, String)]) {
        let Outcome { hook, attached, mut tried } = outcome;
        let attached = attached.map(|(rung, programs)| {
            self.attached.push((hook.id, programs));
            rung.to_owned()
        });
        if attached.is_none() {
            if hook.is_essential() && plan.owes(hook) {
                let tried: Vec<_> = tried.iter().map(|(how, why)| format!("{how}: {why}")).collect();
                self.unexpected.push(format!("{} ({}; {})", hook.name(), tried.join(", "), hook.loses));
            }
            for way in hook.ways.iter().filter(|way| plan.ways(hook).all(|other| other.rung != way.rung)) {
                let why = match refused.iter().find(|(rung, _)| *rung == way.rung) {
                    Some((_, why)) => why.clone(),
                    None if plan.granted.allows(way.rung) => {
                        "this kernel has no such function or tracepoint".to_owned()
                    }
                    None => "not used".to_owned(),
                };
                tried.push((way.rung.name().to_owned(), why));
            }
            if let When::Module(module) = hook.when {
                // A kprobe on a module's function works as soon as the module is there.
                if self.granted.kprobe && !module_loaded(module) {
                    tried = vec![("kprobe".to_owned(), format!("waits for the module {module}"))];
                    self.waiting.push(hook);
                }
            }
        }
        self.status.push(HookStatus {
            name: hook.name().to_owned(),
            attached,
            tried,
            loses: hook.loses.to_owned(),
        });
    }

    /// Who listens on a port, as the programs have it: also what began to listen while they were at work.
    pub fn listens(&self, netns: u32, port: u16) -> Option<Owner> {
        self.ports.get(&PortKey { netns, port: u32::from(port) }, 0).ok().map(|port| port.owner)
    }

    /// What is attached, how, and what is not.
    pub fn status(&self) -> &[HookStatus] {
        &self.status
    }

    /// A sentence when this kernel grants more than it took: what is missing then is missing by a fault of tcpwatch.
    pub fn unexpected(&self) -> Option<String> {
        (!self.unexpected.is_empty()).then(|| {
            format!(
                "not everything will be seen, because hooks that this kernel has could not be attached: {}\n\
                 hint: this is a bug of tcpwatch: please report it with the output of `TCPWATCH_DEBUG=1 tcpwatch doctor`",
                self.unexpected.join(", ")
            )
        })
    }

    pub fn is_attached(&self, id: u8) -> bool {
        hook::name(id).is_some_and(|name| {
            self.status.iter().any(|status| status.name == name && status.attached.is_some())
        })
    }

    /// Attaches hooks whose module came in the meantime; gives their names. Cheap while nothing changes.
    pub fn attach_late(&mut self) -> Vec<&'static str> {
        let mut came = Vec::new();
        let Some(ebpf) = &mut self.ebpf else { return came };
        let waiting = std::mem::take(&mut self.waiting);
        for hook in waiting {
            let When::Module(module) = hook.when else { continue };
            if !module_loaded(module) {
                self.waiting.push(hook);
                continue;
            }
            for way in hook.ways.iter().filter(|way| way.rung == Rung::Kprobe) {
                let mut programs = ebpf.programs_mut().collect();
                let result = attach(&mut programs, way, hook.name(), None);
                if let Some(status) = self.status.iter_mut().find(|status| status.name == hook.name()) {
                    match result {
                        Ok(programs) => {
                            status.attached = Some(way.rung.name().to_owned());
                            self.attached.push((hook.id, programs));
                            came.push(hook.name());
                        }
                        Err(error) => status.tried = vec![(way.rung.name().to_owned(), short(&error))],
                    }
                }
            }
        }
        came
    }

    /// Tells the programs who owned what before they were attached.
    pub fn seed(&mut self, seed: &Seed) -> Result<()> {
        for (inode, owner) in seed.sockets() {
            if self.seeds.insert(inode, owner, 0).is_err() {
                // More than there were when the table was made: the rest have no owner until they are used.
                break;
            }
        }
        for (key, owner) in &seed.ports {
            // What a program learnt in the meantime is newer.
            if self.ports.get(key, 0).is_err() {
                self.ports.insert(key, owner, 0).context("cannot tell the programs who listens")?;
            }
        }
        Ok(())
    }

    /// Lets no program count or send any more. Those at work on another CPU may still finish, for some microseconds. The
    /// programs stay where they are until [`Live`] is dropped: taking them off takes up to a tenth of a second for each.
    pub fn close(&mut self) -> Result<()> {
        self.waiting.clear();
        self.closed.set(0, 1, 0).context("cannot tell the programs to stop counting")
    }

    /// Hands out the records that are there, at most `limit` and as long as `go_on` says so; gives whether they were all.
    pub fn drain(
        &mut self,
        limit: usize,
        go_on: &mut dyn FnMut() -> bool,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool> {
        let mut count = 0;
        while count < limit && go_on() {
            if !self.events.next(&mut take)? {
                return Ok(true);
            }
            count += 1;
        }
        Ok(false)
    }

    /// The books of every hook, summed over the CPUs.
    pub fn counters(&self) -> Result<Vec<(u8, HookCounters)>> {
        let mut all = Vec::with_capacity(hook::ALL.len());
        for (id, name) in hook::ALL {
            let per_cpu = self
                .counters
                .get(&u32::from(*id), 0)
                .with_context(|| format!("cannot read the counters of {name}"))?;
            let mut sum = HookCounters::default();
            per_cpu.iter().for_each(|row| sum.add(row));
            all.push((*id, sum));
        }
        Ok(all)
    }

    /// Runs of each hook that the kernel left out; hooks without any are not listed.
    pub fn missed(&self) -> Vec<(u8, u64)> {
        let all = self.attached.iter().map(|(id, programs)| (*id, missed(programs)));
        all.filter(|(_, count)| *count != 0).collect()
    }

    /// How many entries the tables of sockets hold.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How far they are filled, summed over the CPUs.
    pub fn tables(&self) -> TableCounters {
        let mut sum = TableCounters::default();
        if let Ok(per_cpu) = self.tables.get(&0, 0) {
            per_cpu.iter().for_each(|row| sum.add(row));
        }
        sum
    }

    /// Live sockets that were seen to enter CLOSE_WAIT and are in it.
    ///
    /// Goes through the table of the living, a megabyte of keys in its usual size and what they stand for: not for every tick.
    pub fn close_wait(&self) -> Result<Vec<Life>> {
        let mut found = Vec::new();
        self.living.each(|life| {
            let last = life.memory.history().last();
            if life.flow.remote_port != 0
                && last.is_some_and(|step: Step| step.state() == state::CLOSE_WAIT && step.at_ns() != 0)
            {
                found.push(*life);
            }
        })?;
        Ok(found)
    }

    /// The user stacks of reads are kept.
    pub fn keeps_read_stacks(&self) -> bool {
        self.read_stacks.is_some()
    }

    /// The addresses on a user stack, innermost first, by the id in [`Life::read_stack`].
    pub fn read_stack(&self, id: u32) -> Option<Vec<u64>> {
        let stack = self.read_stacks.as_ref()?.get(&id, 0).ok()?;
        Some(stack.frames().iter().map(|frame| frame.ip).collect())
    }

    /// Hands out the connections that ended lately, as many as the table holds.
    pub fn ended(&self, mut take: impl FnMut(&Flow, &Memory)) -> Result<()> {
        self.dead.each(|grave| {
            if grave.flow.netns != 0 {
                take(&grave.flow, &grave.memory);
            }
        })
    }

    /// What was only counted, at the places where something was counted since they were last found free; `all`: at every place.
    pub fn storms(&self, all: bool) -> Result<Vec<Storm>> {
        let mut slots = Vec::new();
        let (mut slot, mut newest) = (0, 0);
        self.storms.each(|found| {
            newest = newest.max(found.window);
            if found.counted != 0 {
                slots.push((slot, *found));
            }
            slot += 1;
        })?;
        // What is older was asked for before.
        slots.retain(|(_, found)| all || newest.wrapping_sub(found.counted) <= 2 * storm::KEPT);
        let mut storms = Vec::with_capacity(slots.len());
        let line = |slot: u32| storm::count_of(slot).0;
        // Places come in order: each value is read once.
        for together in slots.chunk_by(|(a, _), (b, _)| line(*a) == line(*b)) {
            let per_cpu = self
                .storm_counts
                .get(&line(together[0].0), 0)
                .context("cannot read what was counted of a storm")?;
            storms.extend(together.iter().map(|(slot, found)| {
                let (_, word) = storm::count_of(*slot);
                let count = per_cpu.iter().map(|counts| counts[word]).sum();
                Storm { slot: *slot, key: found.key, count }
            }));
        }
        Ok(storms)
    }

    /// The books of every network namespace, summed over the CPUs.
    pub fn netns_counters(&self) -> Vec<(u32, NetnsCounters)> {
        self.netns
            .iter()
            .flatten()
            .map(|(netns, per_cpu)| {
                let mut sum = NetnsCounters::default();
                per_cpu.iter().for_each(|row| sum.add(row));
                (netns, sum)
            })
            .collect()
    }
}

/// What the kernel side only counted.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Its place.
    pub slot: u32,
    pub key: storm::Key,
    /// At this place, since the programs were loaded.
    pub count: u64,
}

/// Entries of the tables of sockets.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub sockets: u32,
    pub ended: u32,
}

impl Sizes {
    /// What the kernel sets aside for them, in bytes: the entries and their keys.
    pub fn memory(self) -> u64 {
        let keys = u64::from(self.sockets) + u64::from(table::dead_lines(self.ended) * table::DEAD);
        let entries = |count: u32, size: usize| u64::from(count) * size as u64;
        keys * size_of::<u64>() as u64
            + entries(self.sockets, size_of::<Life>())
            + entries(self.ended, size_of::<Grave>())
            + entries(self.ended / table::CHUNK, size_of::<Chunk>())
    }
}

/// Frames up to the function that decided, behind the tracing machinery: more of it lies on the stack of a kprobe.
fn frames_wanted(settings: &Settings, granted: Granted) -> usize {
    match granted {
        _ if settings.stacks => FRAMES,
        Granted { fentry: false, kprobe: true, .. } => 20,
        _ => 12,
    }
}

fn configure(plan: &Plan<'_>, settings: &Settings, sizes: Sizes) -> Config {
    let shape = plan.shape;
    let flag = |yes: bool| u32::from(yes);
    let drop_args = shape.tracepoints.get("kfree_skb").copied().unwrap_or(0);
    Config {
        deliver: plan.deliver,
        reset_tracepoint_complete: flag(shape.reset_tracepoint_complete()),
        reset_functions: flag(
            !shape.reset_tracepoint_complete()
                && plan.expects(hook::TCP_V4_SEND_RESET)
                && plan.expects(hook::TCP_V6_SEND_RESET),
        ),
        reset_has_skb: flag(shape.args("tcp_reset") >= 2),
        drop_has_reason: flag(drop_args >= 3),
        drop_has_socket: flag(drop_args >= 4),
        ignored_from_drops: plan.ignored_from_drops(),
        overflow_from_drops: flag(plan.overflow_from_drops()),
        read_stacks: flag(settings.read_stacks),
        drop_listen_overflow: shape.reasons.drop_number("TCP_LISTEN_OVERFLOW").unwrap_or(ABSENT),
        drop_tcp_reset: shape.reasons.drop_number("TCP_RESET").unwrap_or(ABSENT),
        reset_tcp_state: shape.reasons.reset_number("TCP_STATE").unwrap_or(ABSENT),
        args_inet_csk_accept: shape.args("inet_csk_accept"),
        args_tcp_validate_incoming: shape.args("tcp_validate_incoming"),
        args_tcp_check_req: shape.args("tcp_check_req"),
        args_tcp_timewait_state_process: shape.args("tcp_timewait_state_process"),
        args_inet_twsk_alloc: shape.args("inet_twsk_alloc"),
        args_tcp_conn_request: shape.args("tcp_conn_request"),
        args_tcp_v4_syn_recv_sock: shape.args("tcp_v4_syn_recv_sock"),
        args_tcp_v6_syn_recv_sock: shape.args("tcp_v6_syn_recv_sock"),
        socket_head: flag(has_usual_head(&shape.offsets)),
        typed_task: flag(plan.granted.typed && shape.functions.contains_key(CURRENT_TASK)),
        live_lines: sizes.sockets / table::LIVE,
        dead_lines: table::dead_lines(sizes.ended),
        storm: settings.storm.map_or(0, storm::per_window),
        stacks: flag(settings.stacks),
        frames: u32::try_from(frames_wanted(settings, plan.granted)).unwrap_or(0),
        pidns: own_pidns(),
        offsets: shape.offsets,
        filter: settings.filter,
    }
}

/// Whether `struct sock_common` begins with the remote address, the local one, four bytes, the ports and the family.
fn has_usual_head(offsets: &Offsets) -> bool {
    let Offsets { sock_daddr, sock_rcv_saddr, sock_dport, sock_num, sock_family, .. } = *offsets;
    cfg!(target_endian = "little")
        && [sock_daddr, sock_rcv_saddr, sock_dport, sock_num, sock_family] == [0, 4, 12, 14, 16]
}

/// Inode of the own pid namespace, 0 for the initial one.
fn own_pidns() -> u32 {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata("/proc/self/ns/pid").map(|file| file.ino()) {
        Ok(INITIAL_PIDNS) | Err(_) => 0,
        Ok(inode) => u32::try_from(inode).unwrap_or(0),
    }
}

/// How many CPUs may run programs.
fn cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

fn module_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK. Later ones do not, and a container may not raise it: so failure is
/// no error here, creating the maps will tell.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name).with_context(|| format!("there is no table `{name}`"))
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).with_context(|| format!("there is no table `{name}`"))
}
