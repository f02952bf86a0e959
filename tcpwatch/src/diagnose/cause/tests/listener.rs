//! Connections that a listener turned away in silence.

use super::*;
use tcpwatch_common::record::{Listen, passed};

fn drop_at(stage: u8, passed: u8, change: impl Fn(&mut Listen)) -> Cause {
    cause(&samples::listen_drop(stage, passed, change), &[], None)
}

fn verdict(cause: &Cause) -> (&'static str, Certainty) {
    (cause.id, cause.certainty)
}

#[test]
fn a_full_queue_is_certain_and_an_emptied_one_likely() {
    let full = drop_at(0, 0, |listen| listen.accept_len = 129);
    assert_eq!(verdict(&full), ("accept-queue-full", CERTAIN));
    assert_eq!(full.evidence[0], "accept queue 129 of 128: full when it is over the limit");
    assert_eq!(verdict(&drop_at(0, 0, |_| {})), ("accept-queue-full", LIKELY));
    let no_cookies = drop_at(0, 0, |listen| listen.syncookies = 0);
    assert_eq!(verdict(&no_cookies), ("syn-queue-full", LIKELY));
    let full = drop_at(0, 0, |listen| {
        listen.syncookies = 0;
        listen.syn_len = 129;
    });
    assert_eq!(verdict(&full), ("syn-queue-full", CERTAIN));
}

#[test]
fn the_remedy_is_for_the_setting_that_limits() {
    let full = drop_at(0, 0, |listen| listen.accept_len = 129);
    assert!(full.fix.unwrap().contains("(now 128), up to net.core.somaxconn=4096"));
    let full = drop_at(0, 0, |listen| {
        listen.accept_len = 129;
        listen.somaxconn = 128;
    });
    assert!(full.evidence[1].contains("net.core.somaxconn=128"), "{:?}", full.evidence);
    assert!(full.fix.unwrap().starts_with("sysctl -w net.core.somaxconn=512"));
}

#[test]
fn a_syn_tells_by_how_far_it_came() {
    let cookie = passed::ALLOC | passed::ROUTE | passed::SYNACK | passed::COOKIE;
    assert_eq!(verdict(&drop_at(0, cookie, |_| {})), ("syn-cookies-sent", CERTAIN));
    assert_eq!(verdict(&drop_at(0, passed::ALLOC, |_| {})), ("listen-no-memory", LIKELY));
    let routed = passed::ALLOC | passed::ROUTE;
    assert_eq!(verdict(&drop_at(0, routed, |_| {})), ("listen-refused", LIKELY));
    let quarter = drop_at(0, routed, |listen| {
        listen.syncookies = 0;
        listen.syn_len = 400;
    });
    assert_eq!(verdict(&quarter), ("syn-queue-full", LIKELY));
    assert!(quarter.evidence[0].contains("the last quarter"), "{:?}", quarter.evidence);
}

#[test]
fn the_last_ack_says_what_the_client_sees() {
    let full = |listen: &mut Listen| listen.accept_len = 129;
    let dropped = drop_at(1, 0, full);
    assert_eq!(verdict(&dropped), ("accept-queue-full", CERTAIN));
    assert!(dropped.evidence[2].contains("its data are retried"), "{:?}", dropped.evidence);
    let reset = drop_at(1, 0, |listen| {
        full(listen);
        listen.abort_on_overflow = 1;
    });
    assert!(reset.evidence[2].contains("the client is reset"), "{:?}", reset.evidence);
    assert_eq!(verdict(&drop_at(1, 0, |_| {})), ("listen-refused", POSSIBLE));
}

#[test]
fn an_icmp_error_ends_a_request() {
    let mut record = samples::listen_drop(0, 0, |_| {});
    record.hook = hook::TCP_REQ_ERR;
    assert_eq!(verdict(&cause(&record, &[], None)), ("listen-refused", CERTAIN));
}
