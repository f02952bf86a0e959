//! RSTs that MPTCP decides, and those that reach its subflows.

use super::*;

#[test]
fn a14_to_a17_mptcp() {
    let mut record = samples::active(ESTABLISHED);
    record.flags |= flag::MPTCP | flag::OWNED;
    let fast = ["tcp_send_active_reset", "mptcp_do_fastclose", "__mptcp_close"];
    assert_eq!(cause(&record, &fast, None).id, "mptcp-fastclose");
    assert_eq!(cause(&record, &[], Some("TCP_ABORT_ON_CLOSE")).id, "mptcp-fastclose");
    assert_eq!(
        cause(&record, &["tcp_send_active_reset", "__mptcp_close"], Some("TCP_ABORT_ON_CLOSE")).id,
        "mptcp-fastclose"
    );
    // Some kernels end the subflows as if by SO_LINGER 0.
    let lingering = ["tcp_send_active_reset", "tcp_disconnect", "__tcp_close", "__mptcp_close_ssk"];
    assert_eq!(cause(&record, &lingering, None).id, "mptcp-fastclose");
    let mut closed = closing(flag::MPTCP | FILE, ESTABLISHED);
    closed.socket.shutdown = 3;
    assert_eq!(cause(&closed, &[], Some("TCP_ABORT_ON_CLOSE")).id, "close-with-unread-data");
    let reset = ["tcp_send_active_reset", "mptcp_subflow_reset", "mptcp_worker"];
    assert_eq!(cause(&record, &reset, Some("ERROR")).id, "mptcp-subflow-reset");
    assert_eq!(cause(&record, &reset, None).id, "mptcp-subflow-reset");
    assert_eq!(cause(&record, &reset, Some("MPTCP_RST_EMPTCP")).id, "mptcp-emptcp");
    let checked = ["tcp_send_active_reset", "subflow_check_data_avail", "subflow_data_ready"];
    assert_eq!(cause(&record, &checked, Some("MPTCP_RST_EMIDDLEBOX")).id, "mptcp-emiddlebox");
    assert_eq!(cause(&record, &checked, None).id, "mptcp-subflow-reset");
    let keepalive = ["tcp_send_active_reset", "tcp_keepalive_timer", "call_timer_fn"];
    assert_eq!(cause(&record, &keepalive, Some("TCP_KEEPALIVE_TIMEOUT")).id, "keepalive-timeout");
}

#[test]
fn p15_p16_mptcp_joins() {
    let stack = ["tcp_v4_send_reset", "subflow_syn_recv_sock", "tcp_check_req", "tcp_v4_rcv"];
    assert_eq!(cause(&samples::at_listener(ACK), &stack, None).id, "mptcp-join-refused");
    let stack = ["tcp_v4_send_reset", "subflow_v4_route_req", "tcp_conn_request"];
    assert_eq!(cause(&samples::at_listener(SYN), &stack, Some("NOT_SPECIFIED")).id, "mptcp-join-refused");
    assert_eq!(cause(&samples::at_listener(SYN), &[], Some("MPTCP_RST_EPROHIBIT")).id, "mptcp-eprohibit");
    let mut unseen = samples::at_listener(SYN);
    unseen.flags |= flag::MPTCP;
    let refused = cause(&unseen, &[], Some("NOT_SPECIFIED"));
    assert_eq!((refused.id, refused.certainty), ("mptcp-join-refused", LIKELY));
    let ambiguous = cause(&unseen, &[], None);
    assert_eq!(
        (ambiguous.id, ambiguous.certainty),
        ("syn-in-handshake", POSSIBLE),
        "neither path nor reason"
    );
}

#[test]
fn mptcp_names_its_reasons() {
    let mut record = samples::active(ESTABLISHED);
    record.flags |= flag::MPTCP;
    for name in ["EUNSPEC", "EMPTCP", "ERESOURCE", "EPROHIBIT", "EWQ2BIG", "EBADPERF", "EMIDDLEBOX"] {
        let id = format!("mptcp-{}", name.to_lowercase());
        let reason = format!("MPTCP_RST_{name}");
        for stack in [&["tcp_send_active_reset", "mptcp_subflow_reset", "mptcp_worker"][..], &[]] {
            let named = cause(&record, stack, Some(&reason));
            assert_eq!((named.id, named.certainty), (id.as_str(), CERTAIN));
        }
    }
}
