//! Where in the kernel it was decided, and in whose context: read from the stack.

use crate::event::TaskContext;
use crate::kernel::symbols::Symbols;
use tcpwatch_common::hook;
use tcpwatch_common::record::{Record, flag, kind, tells_caller};
use tcpwatch_common::state;

/// A symbolised stack frame: the function and the distance from its start.
pub type Frame<'a> = (&'a str, u64);

/// What the stack tells. Everything in it may be missing: on many hosts the kernel hides its symbols.
#[derive(Clone, Debug, Default)]
pub struct Site<'a> {
    /// The function that decided.
    pub function: Option<&'a str>,
    /// Whether the current task did it.
    pub context: Option<TaskContext>,
    /// Frames from the sender on, without the tracing machinery, innermost first.
    pub frames: Vec<Frame<'a>>,
    /// Where the deciding function stands in `frames`.
    above: usize,
    /// Where the interrupt begins in `frames`, their number without one: what lies behind was interrupted.
    end: usize,
}

impl<'a> Site<'a> {
    /// Whether the deciding function is this one.
    pub fn is(&self, name: &str) -> bool {
        self.function == Some(name)
    }

    /// Whether a function is on the way from the interrupt, or the system call, to the sender.
    pub fn has(&self, name: &str) -> bool {
        self.own().iter().any(|(frame, _)| *frame == name)
    }

    /// [`Self::has`], for names that begin so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.own().iter().any(|(frame, _)| frame.starts_with(prefix))
    }

    /// Whether a function called the deciding one, directly or not.
    pub fn is_under(&self, name: &str) -> bool {
        self.own().iter().skip(self.above + 1).any(|(frame, _)| *frame == name)
    }

    fn own(&self) -> &[Frame<'a>] {
        self.frames.get(..self.end).unwrap_or_default()
    }
}

/// What sends RSTs. The first frame above them decided to.
const RESET_SENDERS: [&str; 7] = [
    "tcp_v4_send_reset",
    "tcp_v6_send_reset",
    "tcp_v6_send_response",
    "tcp_send_active_reset",
    "mptcp_send_active_reset_reason",
    "nf_send_reset",
    "nf_send_reset6",
];
const RECEIVERS: [&str; 2] = ["tcp_reset", "tcp_done_with_error"];
const TIME_WAIT_MAKERS: [&str; 3] = ["inet_twsk_alloc", "tcp_time_wait", "tcp_time_wait_state"];
const RETRANSMITTERS: [&str; 2] = ["tcp_retransmit_skb", "__tcp_retransmit_skb"];
const DROPPERS: [&str; 8] = [
    "kfree_skb",
    "__kfree_skb",
    "kfree_skb_reason",
    "sk_skb_reason_drop",
    "__sk_skb_reason_drop",
    "tcp_drop",
    "tcp_drop_reason",
    "kfree_skb_list_reason",
];

/// Frames in which an interrupt begins.
fn begins_interrupt(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "__do_softirq",
        "handle_softirqs",
        "run_ksoftirqd",
        "net_rx_action",
        "__napi_poll",
        "call_timer_fn",
        "run_timer_softirq",
        "expire_timers",
        "process_backlog",
    ];
    const PREFIXES: [&str; 3] = ["do_softirq", "irq_exit", "__irq_exit"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Functions that run for an arriving segment, so bottom halves are off even where no interrupt is in sight.
fn receives(name: &str) -> bool {
    name == "tcp_v4_rcv" || name == "tcp_v6_rcv" || name.starts_with("__netif_receive_skb")
}

/// Frames in which a process, or a kernel thread, entered the kernel.
fn begins_process(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["do_syscall_64", "ret_from_fork", "task_work_run", "el0_svc", "invoke_syscall", "do_exit"];
    NAMES.contains(&name)
        || name.starts_with("entry_SYSCALL")
        || name.starts_with("__x64_sys_")
        || name.starts_with("__arm64_sys_")
        || name.starts_with("__se_sys_")
}

/// The record's stack in names; frames of the tracing machinery and addresses without a name are left out.
pub fn symbolise<'a>(record: &Record, symbols: &'a Symbols) -> Vec<Frame<'a>> {
    let count = (record.frames as usize).min(record.stack.len());
    let mut frames: Vec<Frame<'a>> = Vec::with_capacity(count);
    for &addr in &record.stack[..count] {
        let Some(mut found) = symbols.find(addr) else { continue };
        // A return address at the very start of a function lies behind the last call of the one before it.
        if found.offset == 0 && !frames.is_empty() {
            found = symbols.find(addr.wrapping_sub(1)).unwrap_or(found);
        }
        if !found.plumbing {
            frames.push((found.name, found.offset));
        }
    }
    frames
}

/// Finds the deciding function and the context.
pub fn locate<'a>(record: &Record, mut frames: Vec<Frame<'a>>) -> Site<'a> {
    let senders = senders(record);
    let boundary = |frames: &[Frame<'a>]| {
        frames.iter().position(|(name, _)| begins_interrupt(name)).unwrap_or(frames.len())
    };
    // Frames before the sender are tracing machinery that no list knows.
    let end = boundary(&frames);
    let first = frames[..end].iter().position(|(name, _)| senders.contains(name)).unwrap_or(0);
    frames.drain(..first);
    let end = boundary(&frames);
    let above = frames[..end].iter().position(|(name, _)| !senders.contains(name)).unwrap_or(end);
    // Where only the function itself is in sight.
    let alone = (record.kind == kind::TW_OVERFLOW).then_some("tcp_time_wait");
    let caller = frames[..end].get(above).map(|(name, _)| *name);
    let function = by_hook(record).or(caller).or(alone).or_else(|| by_state(record));
    let context = context(record, &frames);
    Site { function, context, frames, above, end }
}

fn senders(record: &Record) -> &'static [&'static str] {
    match record.kind {
        kind::RST_SENT => &RESET_SENDERS,
        kind::TW_OVERFLOW => &TIME_WAIT_MAKERS,
        kind::RETRANSMIT => &RETRANSMITTERS,
        _ if record.hook == hook::KFREE_SKB => &DROPPERS,
        _ => &RECEIVERS,
    }
}

/// Where the hook is the deciding function, no stack is needed.
fn by_hook(record: &Record) -> Option<&'static str> {
    match (record.kind, record.hook) {
        (kind::LISTEN_DROP, hook::KFREE_SKB) if record.flow.remote.is_v4() => Some("tcp_v4_syn_recv_sock"),
        (kind::LISTEN_DROP, hook::KFREE_SKB) => Some("tcp_v6_syn_recv_sock"),
        (
            _,
            hook @ (hook::NF_SEND_RESET
            | hook::NF_SEND_RESET6
            | hook::TCP_CONN_REQUEST
            | hook::TCP_V4_SYN_RECV_SOCK
            | hook::TCP_V6_SYN_RECV_SOCK
            | hook::TCP_CHECK_REQ
            | hook::TCP_TIMEWAIT_STATE_PROCESS
            | hook::TCP_REQ_ERR
            | hook::TCP_VALIDATE_INCOMING
            | hook::TCP_RCV_STATE_PROCESS),
        ) => hook::name(hook),
        _ => None,
    }
}

/// Where kind and state tell the caller, the kernel side takes no stack. See [`tells_caller`] and [`flag::LINGERED`].
fn by_state(record: &Record) -> Option<&'static str> {
    if record.flags & flag::LINGERED != 0 {
        return Some("tcp_disconnect");
    }
    tells_caller(record.kind, record.state).then_some(match record.state {
        state::SYN_SENT => "tcp_rcv_synsent_state_process",
        _ => "tcp_validate_incoming",
    })
}

fn context(record: &Record, frames: &[Frame<'_>]) -> Option<TaskContext> {
    if frames.iter().any(|(name, _)| begins_interrupt(name) || receives(name)) {
        return Some(TaskContext::Softirq);
    }
    if record.flags & flag::OWNED != 0 || frames.iter().any(|(name, _)| begins_process(name)) {
        return Some(TaskContext::Process);
    }
    structural(record)
}

/// Without a stack: what the socket tells.
fn structural(record: &Record) -> Option<TaskContext> {
    let has = |bit: u32| record.flags & bit != 0;
    let segment = has(flag::PACKET);
    match record.kind {
        kind::LISTEN_DROP => Some(TaskContext::Softirq),
        // A firewall's rule also runs for segments that a process sends.
        _ if matches!(record.hook, hook::NF_SEND_RESET | hook::NF_SEND_RESET6) => None,
        // A segment for a socket that a process holds waits for that process; this one did not wait.
        kind::RST_SENT | kind::RST_IGNORED if segment => Some(TaskContext::Softirq),
        kind::RST_RECEIVED => Some(TaskContext::Softirq),
        kind::RST_SENT if record.state == state::CLOSE => {
            // Orphaned and closed: the last lines of close(). Neither orphaned nor held by a file: a listener's
            // child, and whether its listener was closed or closing is not to be seen.
            has(flag::DEAD).then_some(TaskContext::Process)
        }
        // Timers: everybody else holds the lock.
        kind::RST_SENT if !has(flag::MPTCP) => Some(TaskContext::Softirq),
        _ => None,
    }
}

/// Whether a call of `tcp_reset` was none: it is also called for data that arrives after `shutdown()`, and where the
/// hook has no segment only the caller tells.
pub fn is_false_reset(record: &Record, site: &Site<'_>) -> bool {
    record.kind == kind::RST_RECEIVED
        && matches!(record.hook, hook::TCP_RESET | hook::TCP_RECEIVE_RESET)
        && record.flags & flag::PACKET == 0
        && record.state != state::SYN_SENT
        && site.is("tcp_rcv_state_process")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{self, frames};

    fn active() -> Record {
        samples::record(kind::RST_SENT, hook::TCP_SEND_RESET)
    }

    #[test]
    fn the_caller_of_the_sender_decided() {
        let table: [(&[&str], &str); 6] = [
            (&["tcp_send_active_reset", "__tcp_close", "tcp_close", "inet_release"], "__tcp_close"),
            (
                &["tcp_v4_send_reset", "tcp_v4_rcv", "ip_protocol_deliver_rcu", "handle_softirqs"],
                "tcp_v4_rcv",
            ),
            (&["tcp_v6_send_response", "tcp_v6_send_reset", "tcp_v6_rcv"], "tcp_v6_rcv"),
            (&["tcp_v4_send_reset", "tcp_check_req", "tcp_v4_rcv"], "tcp_check_req"),
            (&["tcp_send_active_reset", "tcp_keepalive_timer", "call_timer_fn"], "tcp_keepalive_timer"),
            (&["unknown_tracer", "tcp_send_active_reset", "tcp_abort", "tcp_diag_destroy"], "tcp_abort"),
        ];
        for (names, expected) in table {
            assert_eq!(locate(&active(), frames(names)).function, Some(expected));
        }
    }

    #[test]
    fn what_the_interrupt_interrupted_is_not_asked() {
        let names = [
            "tcp_v4_send_reset",
            "tcp_v4_rcv",
            "__napi_poll",
            "net_rx_action",
            "handle_softirqs",
            "do_softirq",
            "__local_bh_enable_ip",
            "tcp_send_active_reset",
            "tcp_disconnect",
            "__tcp_close",
            "do_syscall_64",
        ];
        let site = locate(&active(), frames(&names));
        assert_eq!(site.function, Some("tcp_v4_rcv"));
        assert_eq!(site.context, Some(TaskContext::Softirq));
        assert!(!site.has("tcp_disconnect"));
        assert!(!site.is_under("__tcp_close"));
    }

    #[test]
    fn a_system_call_without_an_interrupt_is_the_tasks_own() {
        let names = ["tcp_send_active_reset", "tcp_disconnect", "__tcp_close", "__fput", "do_syscall_64"];
        let site = locate(&active(), frames(&names));
        assert_eq!(site.context, Some(TaskContext::Process));
        assert!(site.is("tcp_disconnect") && site.is_under("__tcp_close"));
    }

    #[test]
    fn without_symbols_the_socket_tells_the_context() {
        let mut record = active();
        record.flags |= flag::OWNED;
        assert_eq!(locate(&record, Vec::new()).context, Some(TaskContext::Process));
        assert_eq!(locate(&record, Vec::new()).function, None);

        let mut record = active();
        record.flags = flag::PACKET;
        assert_eq!(locate(&record, Vec::new()).context, Some(TaskContext::Softirq), "meets no socket");

        let mut record = active();
        record.flags = flag::SOCKET | flag::FULL;
        record.state = state::CLOSE;
        assert_eq!(locate(&record, Vec::new()).context, None, "a listener's child");
        record.state = state::ESTABLISHED;
        assert_eq!(locate(&record, Vec::new()).context, Some(TaskContext::Softirq), "a timer");
    }

    #[test]
    fn hooks_that_decide_themselves_need_no_stack() {
        for (kind, hook, expected) in [
            (kind::RST_SENT, hook::NF_SEND_RESET6, "nf_send_reset6"),
            (kind::LISTEN_DROP, hook::TCP_CONN_REQUEST, "tcp_conn_request"),
            (kind::LISTEN_DROP, hook::KFREE_SKB, "tcp_v4_syn_recv_sock"),
            (kind::RST_IGNORED, hook::TCP_VALIDATE_INCOMING, "tcp_validate_incoming"),
            (kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC, "tcp_time_wait"),
        ] {
            assert_eq!(locate(&samples::record(kind, hook), Vec::new()).function, Some(expected));
        }
    }

    #[test]
    fn the_state_tells_who_obeyed() {
        for (state, expected) in [
            (state::ESTABLISHED, Some("tcp_validate_incoming")),
            (state::SYN_SENT, Some("tcp_rcv_synsent_state_process")),
            (state::FIN_WAIT2, None),
            (state::SYN_RECV, None),
        ] {
            for hook in [hook::TCP_RESET, hook::TCP_RECEIVE_RESET] {
                let mut record = samples::record(kind::RST_RECEIVED, hook);
                record.state = state;
                let site = locate(&record, Vec::new());
                assert_eq!(site.function, expected);
                assert_eq!(site.context, Some(TaskContext::Softirq));
                assert!(!is_false_reset(&record, &site));
                record.flags |= flag::OWNED;
                assert_eq!(locate(&record, Vec::new()).context, Some(TaskContext::Process), "its backlog");
            }
        }
    }

    #[test]
    fn a_time_wait_refusal_names_who_asked() {
        let record = samples::record(kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC);
        let site =
            locate(&record, frames(&["inet_twsk_alloc", "tcp_time_wait", "tcp_fin", "tcp_data_queue"]));
        assert_eq!(site.function, Some("tcp_fin"));
    }

    #[test]
    fn tcp_reset_for_data_after_shutdown_is_no_rst() {
        let mut record = samples::record(kind::RST_RECEIVED, hook::TCP_RESET);
        record.state = state::FIN_WAIT2;
        let of = |record: &Record, caller: &'static str| {
            is_false_reset(record, &locate(record, frames(&["tcp_reset", caller, "tcp_v4_do_rcv"])))
        };
        assert!(of(&record, "tcp_rcv_state_process"));
        assert!(!of(&record, "tcp_validate_incoming"));
        record.state = state::SYN_SENT;
        assert!(!of(&record, "tcp_rcv_state_process"), "connection refused");
        record.state = state::FIN_WAIT2;
        record.flags |= flag::PACKET;
        assert!(!of(&record, "tcp_rcv_state_process"), "the program saw the RST bit");
    }

    #[test]
    fn machinery_and_nameless_code_are_left_out() {
        let text = "0000000000001000 t bpf_trace_run3\n0000000000002000 t tcp_send_active_reset\n\
                    0000000000003000 t __tcp_close\n0000000000004000 t behind\n";
        let symbols = Symbols::parse(text.as_bytes()).unwrap();
        let mut record = active();
        record.stack[..5].copy_from_slice(&[0xffff_0000_0000, 0x1010, 0x2005, 0x4000, 0x3001]);
        record.frames = 4;
        // 0x4000 is the return address of a call that ends __tcp_close.
        assert_eq!(symbolise(&record, &symbols), vec![("tcp_send_active_reset", 5), ("__tcp_close", 0xfff)]);
    }
}
