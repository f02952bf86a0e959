//! HOOKS: what tcpwatch attaches, how, and what cannot be seen without it. The loader, `doctor`, the `start` event and
//! `docs/hooks.md` are made from this table.

use super::shape::Shape;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook as id;

/// Ways to hook a kernel, best first: by cost, and by how much the kernel promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// A tracepoint with its raw arguments. Every kernel with BPF grants it.
    Tracepoint,
    /// A BPF trampoline at a function's start or end.
    Fentry,
    /// A breakpoint, or ftrace, at a function's start or end.
    Kprobe,
}

impl Rung {
    /// The name in events and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// How one program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    RawTracepoint,
    /// A tracepoint's program to which the verifier tells the types of its arguments: its readings are loads and no calls.
    TypedTracepoint,
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
}

/// The programs that together make a hook on one rung.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub rung: Rung,
    pub parts: &'static [(Part, &'static str)],
}

impl Way {
    /// Whether the kernel's own types are needed, and its word which arguments may be NULL.
    fn is_typed(&self) -> bool {
        self.parts.iter().any(|(part, _)| *part == Part::TypedTracepoint)
    }
}

/// When a hook is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only before 6.10, where the reset tracepoint does not tell everything.
    ResetTracepointIncomplete,
    /// Only as a substitute for a hook that this kernel does not grant.
    Instead(u8),
    /// Only if the user asks for events that need it.
    Asked(u32),
    /// If asked for, or as a substitute on a kernel whose drops carry reason and socket.
    Drops,
    /// As soon as the kernel has the function: it is in a module.
    Module(&'static str),
}

/// A row of [`HOOKS`].
#[derive(Debug)]
pub struct Hook {
    pub id: u8,
    pub when: When,
    pub ways: &'static [Way],
    /// What only this hook can tell.
    pub loses: &'static str,
}

impl Hook {
    /// The kernel function or tracepoint.
    pub fn name(&self) -> &'static str {
        id::name(self.id).unwrap_or("unnamed")
    }

    /// Without it whole kinds of events are missing or nobody owns them, and no other hook makes up for that.
    pub fn is_essential(&self) -> bool {
        matches!(
            self.id,
            id::INET_SOCK_SET_STATE
                | id::INET_TWSK_ALLOC
                | id::TCP_SEND_RESET
                | id::TCP_V4_SEND_RESET
                | id::TCP_V6_SEND_RESET
                | id::TCP_RESET
                | id::TCP_RECEIVE_RESET
                | id::TCP_CONN_REQUEST
                | id::TCP_V4_SYN_RECV_SOCK
                | id::TCP_V6_SYN_RECV_SOCK
        )
    }
}

macro_rules! ways {
    (tracepoint $program:literal) => {
        &[Way { rung: Rung::Tracepoint, parts: &[(Part::RawTracepoint, $program)] }]
    };
    (typed $name:literal) => {
        &[
            Way { rung: Rung::Tracepoint, parts: &[(Part::TypedTracepoint, concat!($name, "_typed"))] },
            Way { rung: Rung::Tracepoint, parts: &[(Part::RawTracepoint, $name)] },
        ]
    };
    (entry $name:literal) => {
        &[
            Way { rung: Rung::Fentry, parts: &[(Part::Fentry, concat!($name, "_fentry"))] },
            Way { rung: Rung::Kprobe, parts: &[(Part::Kprobe, concat!($name, "_kprobe"))] },
        ]
    };
    (exit $name:literal) => {
        &[
            Way { rung: Rung::Fentry, parts: &[(Part::Fexit, concat!($name, "_fexit"))] },
            Way {
                rung: Rung::Kprobe,
                // The return first: an entry without its return would only leave arguments lying about.
                parts: &[
                    (Part::Kretprobe, concat!($name, "_kretprobe")),
                    (Part::Kprobe, concat!($name, "_kprobe")),
                ],
            },
        ]
    };
}

macro_rules! hooks {
    ($($id:ident $when:expr, $ways:expr, $loses:literal;)*) => {
        /// Every hook, in the order of attaching: what remembers comes before what reports, so that no event finds an
        /// empty memory.
        pub const HOOKS: &[Hook] = &[$(Hook { id: id::$id, when: $when, ways: $ways, loses: $loses }),*];
    };
}

hooks! {
    INET_SOCK_SET_STATE When::Always, ways!(typed "inet_sock_set_state"),
        "states, and who connected, listened or closed";
    TCP_DESTROY_SOCK When::Always, ways!(tracepoint "tcp_destroy_sock"),
        "when to forget a socket: an owner could be taken over by the next one at its address";
    INET_CSK_ACCEPT When::Always, &[
            Way { rung: Rung::Fentry, parts: &[(Part::Fexit, "inet_csk_accept_fexit")] },
            Way { rung: Rung::Kprobe, parts: &[(Part::Kretprobe, "inet_csk_accept_kretprobe")] },
        ], "the owner of an accepted connection before it is first used";
    INET_CSK_COMPLETE_HASHDANCE When::Always, ways!(entry "inet_csk_complete_hashdance"),
        "the owner of connections that wait for accept(), where several sockets listen on the port";
    INET_CSK_REQSK_QUEUE_ADD When::Always, ways!(entry "inet_csk_reqsk_queue_add"),
        "the same for connections from SYN cookies";
    INET_CHILD_FORGET When::Always, ways!(entry "inet_child_forget"),
        "the owner of connections that waited before tcpwatch started and are reset with their listener";
    TCP_SENDMSG When::Always, ways!(entry "tcp_sendmsg"),
        "the owner of a descriptor that was passed on, until it is closed";
    TCP_RECVMSG When::Always, ways!(entry "tcp_recvmsg"),
        "the owner of a descriptor that was passed on, until it is closed";
    SOCK_SEND_LENGTH When::Instead(id::TCP_SENDMSG), ways!(tracepoint "sock_send_length"),
        "owners by their writes, where functions cannot be hooked";
    SOCK_RECV_LENGTH When::Instead(id::TCP_RECVMSG), ways!(tracepoint "sock_recv_length"),
        "owners by their reads, where functions cannot be hooked";
    TCP_RCV_SPACE_ADJUST When::Instead(id::TCP_RECVMSG), ways!(tracepoint "tcp_rcv_space_adjust"),
        "owners by their reads, where functions cannot be hooked";
    TCP_TIME_WAIT When::Always, ways!(entry "tcp_time_wait"),
        "whether a connection went to TIME_WAIT";
    INET_TWSK_DESCHEDULE_PUT When::Always, ways!(entry "inet_twsk_deschedule_put"),
        "TIME_WAIT sockets that are ended early, by an RST or by reuse";
    INET_TWSK_KILL When::Always, ways!(entry "inet_twsk_kill"),
        "when TIME_WAIT ended";
    INET_TWSK_ALLOC When::Always, &[
            Way { rung: Rung::Fentry, parts: &[(Part::Fexit, "inet_twsk_alloc_fexit")] },
            Way { rung: Rung::Kprobe, parts: &[(Part::Kprobe, "inet_twsk_alloc_kprobe")] },
        ], "sockets that are refused their TIME_WAIT slot (tw_overflow events)";
    TCP_SEND_RESET When::Always, ways!(typed "tcp_send_reset"),
        "RSTs that this host sends";
    TCP_V4_SEND_RESET When::ResetTracepointIncomplete, ways!(entry "tcp_v4_send_reset"),
        "IPv4: RSTs for closed ports, for vanished connections and in TIME_WAIT";
    TCP_V6_SEND_RESET When::ResetTracepointIncomplete, ways!(entry "tcp_v6_send_reset"),
        "IPv6: RSTs for closed ports, for vanished connections and in TIME_WAIT";
    NF_SEND_RESET When::Module("nf_reject_ipv4"), ways!(entry "nf_send_reset"),
        "IPv4: RSTs that the firewall sends";
    NF_SEND_RESET6 When::Module("nf_reject_ipv6"), ways!(entry "nf_send_reset6"),
        "IPv6: RSTs that the firewall sends";
    TCP_RESET When::Always, ways!(entry "tcp_reset"),
        "sequence numbers of received RSTs";
    TCP_RECEIVE_RESET When::Instead(id::TCP_RESET), ways!(typed "tcp_receive_reset"),
        "RSTs received";
    TCP_VALIDATE_INCOMING When::Always, &[
            Way { rung: Rung::Fentry, parts: &[(Part::Fexit, "tcp_validate_incoming_fexit")] },
        ], "RSTs that a connection does not obey, with certainty";
    TCP_RCV_STATE_PROCESS When::Always, ways!(entry "tcp_rcv_state_process"),
        "RSTs that a listener or a connect() does not obey";
    INET_CSK_REQSK_QUEUE_DROP When::Always, ways!(entry "inet_csk_reqsk_queue_drop"),
        "whether an RST ended a half-open request";
    TCP_CHECK_REQ When::Always, ways!(exit "tcp_check_req"),
        "RSTs that meet a half-open request";
    TCP_TIMEWAIT_STATE_PROCESS When::Always, ways!(exit "tcp_timewait_state_process"),
        "RSTs that meet a TIME_WAIT socket";
    TCP_MAKE_SYNACK When::Always, ways!(entry "tcp_make_synack"),
        "whether a SYN was answered, and with a cookie";
    INET_CSK_REQSK_QUEUE_HASH_ADD When::Always, ways!(entry "inet_csk_reqsk_queue_hash_add"),
        "whether a SYN was queued";
    INET_REQSK_ALLOC When::Always, ways!(entry "inet_reqsk_alloc"),
        "whether a queue was full when a SYN was dropped";
    TCP_V4_ROUTE_REQ When::Always, ways!(entry "tcp_v4_route_req"),
        "IPv4: whether memory or route was missing when a SYN was dropped";
    TCP_V6_ROUTE_REQ When::Always, ways!(entry "tcp_v6_route_req"),
        "IPv6: whether memory or route was missing when a SYN was dropped";
    TCP_CONN_REQUEST When::Always, &[
            Way {
                rung: Rung::Fentry,
                parts: &[(Part::Fexit, "tcp_conn_request_fexit"), (Part::Fentry, "tcp_conn_request_fentry")],
            },
            Way {
                rung: Rung::Kprobe,
                parts: &[(Part::Kretprobe, "tcp_conn_request_kretprobe"), (Part::Kprobe, "tcp_conn_request_kprobe")],
            },
        ], "SYNs that a listener drops, and SYN cookies";
    TCP_V4_SYN_RECV_SOCK When::Always, ways!(exit "tcp_v4_syn_recv_sock"),
        "IPv4: handshakes whose last ACK is dropped because the accept queue is full";
    TCP_V6_SYN_RECV_SOCK When::Always, ways!(exit "tcp_v6_syn_recv_sock"),
        "IPv6: handshakes whose last ACK is dropped because the accept queue is full";
    TCP_REQ_ERR When::Always, ways!(entry "tcp_req_err"),
        "handshakes that an ICMP error ends";
    KFREE_SKB When::Drops, ways!(tracepoint "kfree_skb"),
        "dropped segments";
    TCP_RETRANSMIT_SKB When::Asked(deliver::RETRANSMIT), ways!(tracepoint "tcp_retransmit_skb"),
        "retransmissions";
}

/// The row of a hook.
pub fn find(id: u8) -> Option<&'static Hook> {
    HOOKS.iter().find(|hook| hook.id == id)
}

/// The page `docs/hooks.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Hooks\n\nWhat tcpwatch attaches, the ways it tries, and what cannot be seen where none holds.\n\
         `tcpwatch doctor` says how it stands on a host.\n\n| hook | when | ways | without it |\n|---|---|---|---|\n",
    );
    for hook in HOOKS {
        let when = match hook.when {
            When::Always => "always".to_owned(),
            When::ResetTracepointIncomplete => "before 6.10".to_owned(),
            When::Instead(other) => format!("without `{}`", id::name(other).unwrap_or("?")),
            When::Asked(_) => "on request".to_owned(),
            When::Drops => "on request, or in place of hooks that are not granted".to_owned(),
            When::Module(module) => format!("when `{module}` is there"),
        };
        let mut ways: Vec<&str> = hook.ways.iter().map(|way| way.rung.name()).collect();
        ways.dedup();
        page.push_str(&format!("| `{}` | {when} | {} | {} |\n", hook.name(), ways.join(", "), hook.loses));
    }
    page
}

/// What the kernel lets tcpwatch attach: found out by attaching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    pub fentry: bool,
    pub kprobe: bool,
    /// Tracepoints by their numbers in the kernel's own types.
    pub typed: bool,
    /// The verifier knows which arguments of typed tracepoints may be NULL (since 6.13). Without that it takes them for sound from 6.2
    /// on, drops the program's own question, and a load from NULL ends the host. Not asked where no socket may be NULL.
    ///
    /// kernel: v6.13.. kernel/bpf/btf.c `raw_tp_null_args`
    pub null: bool,
}

impl Granted {
    pub fn allows(self, rung: Rung) -> bool {
        match rung {
            Rung::Tracepoint => true,
            Rung::Fentry => self.fentry,
            Rung::Kprobe => self.kprobe,
        }
    }
}

/// Decides, from what the kernel has and grants, which hooks are attached and how.
pub struct Plan<'a> {
    pub shape: &'a Shape,
    pub granted: Granted,
    /// Bits of [`deliver`].
    pub deliver: u32,
}

impl Plan<'_> {
    /// Ways that can work for a hook on this kernel, best first.
    pub fn ways(&self, hook: &'static Hook) -> impl Iterator<Item = &'static Way> {
        hook.ways.iter().filter(move |way| {
            self.granted.allows(way.rung)
                && self.kernel_has(hook, way)
                && (!way.is_typed() || self.types_tell(hook))
        })
    }

    /// Whether a hook is known to be there and this host grants a way to it: if it is not attached all the same, something
    /// is wrong with its program.
    pub fn owes(&self, hook: &'static Hook) -> bool {
        let mut ways = self.ways(hook);
        ways.any(|way| way.rung != Rung::Kprobe || self.shape.functions.contains_key(hook.name()))
    }

    /// Whether a program that trusts the types of a tracepoint's arguments can do so.
    fn types_tell(&self, hook: &Hook) -> bool {
        let numbered = self.shape.numbers.tracepoints.iter().any(|(name, _)| *name == hook.name());
        // The one among them that has a socket that is NULL at times: since it fires without a socket too.
        let sound =
            hook.id != id::TCP_SEND_RESET || !self.shape.reset_tracepoint_complete() || self.granted.null;
        self.granted.typed && numbered && sound
    }

    fn kernel_has(&self, hook: &Hook, way: &Way) -> bool {
        match way.rung {
            Rung::Tracepoint => self.shape.tracepoints.contains_key(hook.name()),
            Rung::Fentry => self.shape.functions.contains_key(hook.name()),
            // A function of a module, or one without a type of its own: only attaching tells.
            Rung::Kprobe => true,
        }
    }

    /// Whether a hook will be attached, as far as can be said beforehand.
    pub fn expects(&self, id: u8) -> bool {
        find(id).is_some_and(|hook| self.wants(hook) && self.ways(hook).next().is_some())
    }

    /// Whether a hook has anything to do.
    pub fn wants(&self, hook: &Hook) -> bool {
        match hook.when {
            When::Always | When::Module(_) => true,
            When::ResetTracepointIncomplete => !self.shape.reset_tracepoint_complete(),
            When::Instead(other) => !self.expects(other),
            When::Asked(bits) => self.deliver & bits != 0,
            When::Drops => {
                self.deliver & deliver::DROP != 0
                    || self.ignored_from_drops() != 0
                    || self.overflow_from_drops()
            }
        }
    }

    /// Value of `Config::ignored_from_drops`.
    pub fn ignored_from_drops(&self) -> u32 {
        if self.expects(id::TCP_VALIDATE_INCOMING) || !self.drops_tell() {
            0
        } else if self.expects(id::TCP_RCV_STATE_PROCESS) {
            1
        } else {
            2
        }
    }

    /// Value of `Config::overflow_from_drops`.
    pub fn overflow_from_drops(&self) -> bool {
        !self.expects(id::TCP_V4_SYN_RECV_SOCK)
            && self.drops_tell()
            && self.shape.reasons.drop_number("TCP_LISTEN_OVERFLOW").is_some()
    }

    /// The drop tracepoint carries reason and receiving socket.
    fn drops_tell(&self) -> bool {
        self.shape.tracepoints.get("kfree_skb").is_some_and(|args| *args >= 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_number_has_exactly_one_row() {
        for (number, name) in id::ALL {
            assert_eq!(HOOKS.iter().filter(|hook| hook.id == *number).count(), 1, "{name}");
        }
    }

    #[test]
    fn every_row_names_the_programs_of_its_own_hook() {
        for hook in HOOKS {
            for (_, program) in hook.ways.iter().flat_map(|way| way.parts) {
                assert!(program.starts_with(hook.name()), "{program} is not a program of {}", hook.name());
            }
        }
    }
}
