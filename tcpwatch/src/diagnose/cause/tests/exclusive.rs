//! No two rules speak of the same facts, whatever these are.

use super::*;
use crate::diagnose::cause::Facts;
use crate::diagnose::{catalog, cause, words};
use crate::event::Endpoint;
use std::cell::OnceCell;
use std::collections::BTreeSet;

const FUNCTIONS: [&[&str]; 21] = [
    &[],
    &["tcp_send_active_reset", "__tcp_close"],
    &["tcp_send_active_reset", "tcp_disconnect", "__tcp_close"],
    &["tcp_send_active_reset", "tcp_disconnect", "__inet_stream_connect"],
    &["tcp_send_active_reset", "tcp_disconnect"],
    &["tcp_send_active_reset", "tcp_disconnect", "inet_child_forget", "inet_csk_listen_stop"],
    &["tcp_send_active_reset", "tcp_abort", "tcp_diag_destroy"],
    &["tcp_send_active_reset", "tcp_keepalive_timer"],
    &["tcp_send_active_reset", "tcp_out_of_resources"],
    &["tcp_send_active_reset", "mptcp_do_fastclose", "__mptcp_close"],
    &["tcp_send_active_reset", "__mptcp_close"],
    &["tcp_send_active_reset", "mptcp_subflow_reset"],
    &["tcp_send_active_reset", "subflow_check_data_avail"],
    &["tcp_send_active_reset", "a_new_function"],
    &["tcp_v4_send_reset", "tcp_v4_rcv"],
    &["tcp_v4_send_reset", "tcp_v4_do_rcv", "tcp_v4_rcv"],
    &["tcp_v4_send_reset", "tcp_check_req", "tcp_v4_rcv"],
    &["tcp_v4_send_reset", "subflow_syn_recv_sock", "tcp_check_req"],
    &["tcp_v4_send_reset", "cookie_v4_check", "tcp_v4_do_rcv"],
    &["tcp_reset", "tcp_validate_incoming"],
    &["inet_twsk_alloc", "tcp_time_wait"],
];
const HOOKS: [u8; 10] = [
    hook::TCP_SEND_RESET,
    hook::TCP_V4_SEND_RESET,
    hook::NF_SEND_RESET,
    hook::TCP_RESET,
    hook::TCP_CHECK_REQ,
    hook::TCP_TIMEWAIT_STATE_PROCESS,
    hook::TCP_CONN_REQUEST,
    hook::TCP_REQ_ERR,
    hook::KFREE_SKB,
    hook::INET_TWSK_ALLOC,
];

/// A small generator (xorshift): the same facts on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

fn any_record(dice: &mut Dice) -> Record {
    let mut record = samples::record(1 + dice.below(5) as u8, dice.of(&HOOKS));
    record.flags = dice.next() as u32 & !flag::REASON & 0xfff;
    record.state = if dice.below(4) == 0 { LISTEN } else { dice.below(13) as u8 };
    record.packet.flags = dice.of(&[SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST]);
    record.packet.len = dice.of(&[0, 0, 7]);
    record.socket.linger2 = dice.of(&[0, -1]);
    record.socket.flags = dice.of(&[0, 1 << 3, 1 << 4]);
    record.socket.shutdown = dice.of(&[0, 1, 3]);
    record.socket.memory_max = dice.of(&[0, 10]);
    record.socket.memory_used = dice.of(&[5, 15]);
    record.listen.stage = dice.of(&[0, 1]);
    record.listen.accept_len = dice.of(&[0, 5]);
    record.listen.syn_len = dice.of(&[0, 5]);
    record.listen.accept_max = 4;
    record.listen.max_syn_backlog = dice.of(&[4, 128]);
    record.listen.syncookies = dice.of(&[0, 1]);
    record.listen.passed = dice.next() as u8 & 0x1f;
    record.present = memory(&[(dice.below(13) as u8, 1), (CLOSE, 2)]);
    record.past = memory(&[(dice.below(13) as u8, 1), (CLOSE, 2)]);
    record.past.end = dice.below(9) as u8;
    record.past.error = dice.of(&[0, 0, 103, 104, 110, 113]);
    record.past.end_state = dice.of(&[FIN_WAIT2, TIME_WAIT]);
    record
}

#[test]
fn no_two_rules_speak_and_none_beyond_its_row() {
    let mut dice = Dice(0x7c9);
    let mut given = BTreeSet::new();
    for _ in 0..200_000 {
        let record = any_record(&mut dice);
        let stack = dice.of(&FUNCTIONS);
        let name = dice.of(words::reset::WORDS).name;
        let reason = (dice.below(2) == 0).then(|| samples::kernel_reason(name));
        let site = site::locate(&record, frames(stack));
        let began = crate::diagnose::state::began(&record, &site, reason.as_ref());
        let kind = crate::diagnose::event_kind(record.kind);
        let nobody = Endpoint { addr: std::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        let cookie_age_ns = dice.of(&[None, Some(1_000_000)]);
        let listener = lately::Listener { cookie_age_ns, ..lately::Listener::default() };
        let around = Around { listener: Some(listener), ..Around::default() };
        let facts = Facts {
            around: &around,
            record: &record,
            kind,
            site: &site,
            reason: reason.as_ref(),
            began,
            owner: None,
            task: None,
            listen: (record.kind == kind::LISTEN_DROP)
                .then(|| crate::diagnose::listen::judge(&record, &site))
                .flatten(),
            local: nobody,
            remote: nobody,
            sort: OnceCell::new(),
        };
        let speaking: Vec<_> = catalog::all()
            .filter(|spec| spec.events.contains(&kind))
            .filter(|spec| spec.rule.is_some_and(|rule| rule(&facts).is_some()))
            .map(|spec| spec.id)
            .collect();
        assert!(speaking.len() <= 1, "{speaking:?} of {record:?} at {stack:?}, {reason:?}");
        given.insert((cause::diagnose(&facts).id, kind));
    }
    for spec in catalog::all().filter(|spec| spec.rule.is_some()) {
        for kind in spec.events {
            assert!(given.contains(&(spec.id, *kind)), "{} was never given of {kind:?}", spec.id);
        }
    }
}
