//! The finished event: plain public data, the language of everything after diagnosis.
//!
//! Sinks turn these types into their own shapes (`sink/json/schema.rs` is the public one), so a name may change here
//! without changing what users read. What is not known is `None`, never 0 or "".

mod run;
#[cfg(test)]
pub(crate) mod samples;

pub use run::{
    CauseCount, Direction, HookBooks, HookStatus, Lifetimes, ListenerStanding, Lost, Reconciliation,
    Standing, Start, Summary, Tables,
};

use smol_str::SmolStr;
use std::borrow::Cow;
use std::net::IpAddr;

/// What an event is about. The names are the contract of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// This host sent an RST.
    RstSent,
    /// An RST arrived, obeyed or not.
    RstReceived,
    /// A listener turned a connection away.
    ListenDrop,
    /// A socket was refused its TIME_WAIT slot.
    TwOverflow,
    /// A process holds a socket that the peer closed long ago.
    CloseWaitLeak,
    /// A TCP segment was dropped.
    Drop,
    /// A socket changed its state.
    State,
    /// A segment was sent again.
    Retransmit,
}

impl EventKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::RstSent,
        Self::RstReceived,
        Self::ListenDrop,
        Self::TwOverflow,
        Self::CloseWaitLeak,
        Self::Drop,
        Self::State,
        Self::Retransmit,
    ];

    /// The value of `event` in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::ListenDrop => "listen_drop",
            Self::TwOverflow => "tw_overflow",
            Self::CloseWaitLeak => "close_wait_leak",
            Self::Drop => "drop",
            Self::State => "state",
            Self::Retransmit => "retransmit",
        }
    }
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IPv4-mapped addresses are plain IPv4 here.
    pub addr: IpAddr,
    /// Host byte order.
    pub port: u16,
}

impl Endpoint {
    /// Where who answers here may listen: on this address, or on all.
    pub fn listeners(self) -> [Self; 3] {
        let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        [self, Self { addr: any[0], ..self }, Self { addr: any[1], ..self }]
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Each event has two of them at least, and the usual way takes ten times as long.
        let mut digits = itoa::Buffer::new();
        match self.addr {
            IpAddr::V4(addr) => {
                for (octet, after) in addr.octets().into_iter().zip([".", ".", ".", ":"]) {
                    f.write_str(digits.format(octet))?;
                    f.write_str(after)?;
                }
                f.write_str(digits.format(self.port))
            }
            IpAddr::V6(addr) => write!(f, "[{addr}]:{}", self.port),
        }
    }
}

/// The process that owns, or owned, the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerInfo {
    /// In tcpwatch's own pid namespace; `None` where the process is not visible from there.
    pub pid: Option<u32>,
    pub comm: SmolStr,
    /// Path of the executable, filled by the host stage.
    pub exe: Option<SmolStr>,
    /// Effective uid in the initial user namespace.
    pub uid: u32,
    /// Path of the cgroup, filled by the host stage.
    pub cgroup: Option<SmolStr>,
    /// Container id, filled by the host stage.
    pub container: Option<SmolStr>,
    /// How the owner is known: a name of [`tcpwatch_common::owner::how`].
    pub how: &'static str,
    /// Start of the process, nanoseconds since boot: tells two processes with one pid apart. 0: not known.
    pub start_ns: u64,
    /// Cgroup v2 id, 0 when not known. Not in JSON.
    pub cgroup_id: u64,
}

impl OwnerInfo {
    /// `nginx[812]`, with `?` where the pid is not visible from here.
    pub fn named(&self) -> String {
        let pid = self.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        format!("{}[{pid}]", self.comm)
    }

    /// What tells two processes apart, even of one pid: pid and start, in the units that `/proc` has for it. The programs know the
    /// nanosecond, of what was there before only `/proc` tells.
    pub const fn identity(&self) -> (Option<u32>, u64) {
        /// Nanoseconds of a `USER_HZ` tick.
        const TICK: u64 = 10_000_000;
        (self.pid, self.start_ns / TICK)
    }
}

/// Whether the task on the CPU has anything to do with the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskContext {
    /// It happened in a system call, at exit or in a kernel thread: the task did it.
    Process,
    /// It happened in an interrupt: the task is a bystander.
    Softirq,
}

impl TaskContext {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Softirq => "softirq",
        }
    }
}

/// What ran on the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// In tcpwatch's own pid namespace; `None` for the idle task and for what is not visible from there.
    pub pid: Option<u32>,
    pub comm: SmolStr,
    /// `None` where neither stack nor socket tells.
    pub context: Option<TaskContext>,
}

/// Who named the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonFrom {
    /// The running kernel.
    Kernel,
    /// tcpwatch: the name that a newer kernel would give.
    Inferred,
}

impl ReasonFrom {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Inferred => "inferred",
        }
    }
}

/// A reset or drop reason, without the prefix of its enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub name: SmolStr,
    pub from: ReasonFrom,
}

/// How much a cause can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// There is evidence for no cause.
    Unknown,
    /// The evidence fits, and it fits other readings too.
    Possible,
    /// The evidence fits this reading best.
    Likely,
    /// The kernel said so, or the code path leaves no other reading.
    Certain,
}

impl Certainty {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// A text about an event. Many say the same of every event, and those cost nothing.
pub type Text = Cow<'static, str>;

/// Why it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// An id of [`crate::diagnose::catalog`].
    pub id: &'static str,
    pub certainty: Certainty,
    /// One sentence, without a full stop.
    pub summary: String,
    /// What the cause rests on, with figures.
    pub evidence: Vec<Text>,
    /// What to change.
    pub fix: Option<Text>,
}

/// A state that the socket was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStep {
    pub state: &'static str,
    /// Microseconds; `None` when the state was entered before tcpwatch looked.
    pub for_us: Option<u64>,
}

/// Which queue of a listener was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Connections waiting for `accept()`.
    Accept,
    /// Half-open requests.
    Syn,
}

impl Queue {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Syn => "syn",
        }
    }
}

/// Which segment of the handshake was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Syn,
    /// The last ACK.
    Ack,
}

impl Stage {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
        }
    }
}

/// What the listener did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAction {
    /// Nothing: the client tries again.
    Dropped,
    /// It answers with an RST (`tcp_abort_on_overflow`).
    Reset,
    /// It answered with a SYN cookie.
    Cookie,
}

impl ListenAction {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Reset => "reset",
            Self::Cookie => "cookie",
        }
    }
}

/// What makes a listener's queue overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressure {
    /// The process calls `accept()` too rarely, or not at all.
    SlowAccept,
    /// The process accepts, and more connections come at once than the queue holds.
    Burst,
    /// Half-open connections of many peers, none of which answers.
    SynFlood,
}

impl Pressure {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlowAccept => "slow_accept",
            Self::Burst => "burst",
            Self::SynFlood => "syn_flood",
        }
    }
}

/// A listener that turned a connection away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenInfo {
    /// Where it is bound, as `ss -l` shows it: often not the address that was asked for. `None` where that was not seen.
    pub local: Option<Endpoint>,
    /// `None` when neither queue was the reason.
    pub queue: Option<Queue>,
    pub stage: Stage,
    /// Length of that queue (of the accept queue when neither was the reason).
    pub len: u32,
    /// Its limit.
    pub max: u32,
    /// The argument of `listen()`, where it can be known.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` now.
    pub somaxconn: Option<u32>,
    pub action: ListenAction,
    /// `None`: the evidence speaks for none.
    pub pressure: Option<Pressure>,
}

/// The TIME_WAIT table of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWaitInfo {
    pub used: u32,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub max: u32,
}

/// The segment at hand, or the one that drew the RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    pub seq: u32,
    pub ack: u32,
    /// Byte 13 of the TCP header, see [`Flags`].
    pub flags: u8,
    /// As in the header, not scaled.
    pub window: u16,
    /// Payload in bytes.
    pub len: u32,
}

/// Payload of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub received: u64,
    /// What was sent again counts again.
    pub sent: u64,
}

/// Byte 13 of a TCP header in words, as `tcpdump` users know them: `SYN|ACK`, and `none` when it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const NAMES: [(u8, &'static str); 8] =
        [(2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"), (64, "ECE"), (128, "CWR")];

    /// From the same words; `None`: they are others.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self(0));
        }
        let bit = |word: &str| Self::NAMES.iter().find(|(_, name)| *name == word).map(|(bit, _)| *bit);
        text.split('|').try_fold(0, |bits, word| Some(bits | bit(word)?)).map(Self)
    }
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut set = Self::NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| name);
        f.write_str(set.next().unwrap_or(&"none"))?;
        set.try_for_each(|name| write!(f, "|{name}"))
    }
}

/// One event, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// Nanoseconds of `CLOCK_MONOTONIC` at the hook.
    pub mono_ns: u64,
    /// Nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Seen from this host's socket: for an RST sent, the sender.
    pub local: Option<Endpoint>,
    pub remote: Option<Endpoint>,
    /// When the act began; `None` without a socket.
    pub state: Option<&'static str>,
    /// Of `state` events.
    pub old_state: Option<&'static str>,
    /// Of `state` events.
    pub new_state: Option<&'static str>,
    /// Of `state` events: microseconds in the old state.
    pub for_us: Option<u64>,
    pub owner: Option<OwnerInfo>,
    pub task: Option<TaskInfo>,
    pub reason: Option<Reason>,
    pub cause: Option<Cause>,
    /// The kernel function that decided.
    pub site: Option<SmolStr>,
    /// Only with `-k`: `function+0xoffset`, innermost first. The kernel's; of a leak that of the process's last read.
    pub stack: Option<Vec<String>>,
    /// Oldest first.
    pub history: Vec<HistoryStep>,
    pub listen: Option<ListenInfo>,
    pub timewait: Option<TimeWaitInfo>,
    pub packet: Option<PacketInfo>,
    /// What the connection carried, until now or in all its life.
    pub bytes: Option<Bytes>,
    /// An MPTCP subflow.
    pub mptcp: bool,
    /// How many this event stands for.
    pub count: u64,
}

impl Event {
    /// An event that says nothing yet but when it happened.
    pub fn new(kind: EventKind, mono_ns: u64, time_ns: u64) -> Self {
        Self {
            kind,
            mono_ns,
            time_ns,
            netns: None,
            local: None,
            remote: None,
            state: None,
            old_state: None,
            new_state: None,
            for_us: None,
            owner: None,
            task: None,
            reason: None,
            cause: None,
            site: None,
            stack: None,
            history: Vec::new(),
            listen: None,
            timewait: None,
            packet: None,
            bytes: None,
            mptcp: false,
            count: 1,
        }
    }

    /// The listener that turned somebody away, by the name that it has among the listeners. Where it was not seen where it is
    /// bound: the one that `stands` at the address that was asked for, or at all addresses, else that address.
    pub fn listener(&self, stands: impl Fn(&str) -> bool) -> Option<String> {
        if let Some(bound) = self.listen.and_then(|listen| listen.local) {
            return Some(bound.to_string());
        }
        let names = self.local?.listeners().map(|end| end.to_string());
        let [asked, ..] = &names;
        Some(names.iter().find(|name| stands(name)).unwrap_or(asked).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_words() {
        assert_eq!(Flags(0x12).to_string(), "SYN|ACK");
        assert_eq!(Flags(0).to_string(), "none");
        for bits in 0..=u8::MAX {
            assert_eq!(Flags::parse(&Flags(bits).to_string()), Some(Flags(bits)));
        }
        assert_eq!(Flags::parse("SYN|"), None);
        assert_eq!(Flags::parse(""), None);
    }

    #[test]
    fn a_process_is_the_same_whether_the_kernel_or_proc_tells_its_start() {
        let owner = |start_ns| OwnerInfo { start_ns, ..samples::owner(5, "proxy") };
        assert_eq!(owner(1_234_567_890).identity(), owner(1_230_000_000).identity());
        assert_ne!(owner(1_234_567_890).identity(), owner(1_240_000_000).identity());
    }

    #[test]
    fn an_address_is_listened_on_by_itself_or_by_all() {
        let names = samples::end("10.9.0.1:80").listeners().map(|end| end.to_string());
        assert_eq!(names, ["10.9.0.1:80", "0.0.0.0:80", "[::]:80"]);
    }

    #[test]
    fn a_listener_is_known_by_where_it_is_bound_and_else_by_who_stands_there() {
        let mut event = Event::new(EventKind::ListenDrop, 0, 0);
        event.local = Some(samples::end("10.9.0.1:80"));
        event.listen = Some(ListenInfo {
            local: Some(samples::end("0.0.0.0:80")),
            queue: Some(Queue::Accept),
            stage: Stage::Syn,
            len: 129,
            max: 128,
            backlog: None,
            somaxconn: None,
            action: ListenAction::Dropped,
            pressure: None,
        });
        assert_eq!(event.listener(|name| name == "[::]:80").as_deref(), Some("0.0.0.0:80"));
        event.listen = None;
        assert_eq!(event.listener(|name| name == "[::]:80").as_deref(), Some("[::]:80"));
        assert_eq!(event.listener(|_| false).as_deref(), Some("10.9.0.1:80"));
        event.local = None;
        assert_eq!(event.listener(|_| true), None);
    }

    #[test]
    fn an_ipv6_endpoint_keeps_port_and_address_apart() {
        let addr = "fd00::1".parse().unwrap();
        assert_eq!(Endpoint { addr, port: 80 }.to_string(), "[fd00::1]:80");
    }
}
