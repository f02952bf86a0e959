//! What the census says, and that its table and the catalogue know each other.

use super::*;
use crate::cli::page::WIDTH;
use crate::diagnose::catalog::sites::PLACES;
use crate::event::EventKind;
use crate::kernel::census::known::{Known, TARGETS, Target};
use crate::kernel::census::{How, Searched};

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

fn caller(target: &Target, how: How, name: &str, module: Option<&str>, places: usize) -> Caller {
    let known: Option<&'static Known> = TARGETS
        .iter()
        .find(|other| other.name == target.name)
        .and_then(|target| target.callers.iter().find(|known| known.name == name));
    Caller {
        how,
        name: name.to_owned(),
        module: module.map(str::to_owned),
        places,
        known,
        through: known.map(|known| known.through.to_vec()).unwrap_or_default(),
    }
}

fn report(problems: &[&str]) -> Report {
    let (v4, builder, firewall) =
        (target("tcp_v4_send_reset"), target("ip_send_unicast_reply"), target("nf_send_reset"));
    let mut callers = vec![
        caller(v4, How::Call, "tcp_v4_do_rcv", None, 2),
        caller(v4, How::Pointer, "tcp_request_sock_ops", None, 1),
    ];
    if !problems.is_empty() {
        callers.push(caller(v4, How::Call, "toe_abort", Some("toe"), 1));
    }
    let rows = vec![
        Row { target: v4, present: true, callers },
        Row {
            target: builder,
            present: true,
            callers: vec![caller(builder, How::Call, "tcp_v4_send_ack", None, 1)],
        },
        Row { target: firewall, present: false, callers: Vec::new() },
    ];
    let searched = Searched { text_bytes: 16_777_216, module_bytes: 1_250_000, data_bytes: 900 };
    Report {
        version: "0.1.0".to_owned(),
        kernel: "6.12.107".to_owned(),
        taken: Ok(Census {
            rows,
            searched,
            problems: problems.iter().map(|&text| text.to_owned()).collect(),
        }),
    }
}

#[test]
fn the_page_names_every_caller() {
    let expected = "\
tcpwatch 0.1.0 on kernel 6.12.107: census of resets

Searched: 16.7 MB of kernel text, 1.2 MB of modules, 0.0 MB of variables

What sends RSTs
  tcp_v4_send_reset answers an IPv4 segment with an RST: 2 calls, 1 pointer
     2  tcp_v4_do_rcv (net/ipv4/tcp_ipv4.c) P3 P4 P8 P9 P10 P11 P12 P13 P14
     >  tcp_request_sock_ops (net/ipv4/tcp_ipv4.c) P5 P6 P15; by pointer, from source: tcp_check_req
        subflow_v4_route_req
  ip_send_unicast_reply sends an IPv4 segment without a socket: 1 call
     1  tcp_v4_send_ack (net/ipv4/tcp_ipv4.c)
  nf_send_reset rejects an IPv4 segment: not in this kernel, or its module is not loaded

This kernel sends resets from 2 places in 1 function, and by pointer from 2 more.
All of them are known.
";
    let text = report(&[]).text();
    // Below each caller stand its causes, as the catalogue has them, or why there is none.
    let is_meaning = |line: &&str| line.starts_with("            ");
    let rest: String =
        text.lines().filter(|line| !is_meaning(line)).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(rest, expected);
    let meanings: Vec<&str> = text.lines().filter(is_meaning).flat_map(str::split_ascii_whitespace).collect();
    for id in causes(&["P3", "P4", "P8", "P9", "P10", "P11", "P12", "P13", "P14"]) {
        assert!(meanings.contains(&id), "{id}: {text}");
    }
    assert!(text.contains("            sends an ACK, no RST\n"), "{text}");
    assert!(report(&[]).is_complete());
}

#[test]
fn what_is_unknown_stands_out() {
    let report = report(&["toe_abort [toe] calls tcp_v4_send_reset, and the catalogue does not know it"]);
    let text = report.text();
    assert!(text.contains("     1  toe_abort [toe]: UNKNOWN\n"), "{text}");
    assert!(text.contains("\nno  toe_abort [toe] calls"), "{text}");
    assert!(text.ends_with("Not all of them are known: see `no` above.\n"), "{text}");
    assert!(!report.is_complete());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
}

#[test]
fn without_a_census_it_says_why() {
    let unchecked =
        Unchecked { why: "/proc/kcore cannot be read: no".to_owned(), hint: "run as root".to_owned() };
    let report = Report { taken: Err(unchecked), ..report(&[]) };
    let expected = "\
tcpwatch 0.1.0 on kernel 6.12.107: census of resets

Not checked: /proc/kcore cannot be read: no
hint: run as root
";
    assert_eq!(report.text(), expected);
    assert!(!report.is_complete());
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&json["checked"], &json["complete"]), (&false.into(), &false.into()));
    assert_eq!(json["hint"], "run as root");
    assert!(json["targets"].is_null() && json["problems"].is_null());
}

#[test]
fn the_json_has_everything_that_the_page_has() {
    let json: serde_json::Value = serde_json::from_str(&report(&[]).json()).unwrap();
    assert_eq!(json["complete"], true);
    assert_eq!(json["searched"]["text_bytes"], 16_777_216);
    let callers = &json["targets"][0]["callers"];
    assert_eq!(callers[0]["how"], "call");
    assert_eq!(callers[0]["places"], 2);
    assert_eq!(callers[0]["sites"][0], "P3");
    assert!(
        callers[0]["causes"].as_array().is_some_and(|ids| ids.contains(&"stray-segment-to-listener".into()))
    );
    assert!(callers[0]["through"].is_null() && callers[0]["note"].is_null());
    assert_eq!(callers[1]["through"][0], "tcp_check_req");
    assert_eq!(json["targets"][2]["present"], false);
    assert!(json["why"].is_null());
}

/// Sites that the table of callers names, for these roles.
fn reachable(roles: &[Role]) -> BTreeSet<&'static str> {
    let targets = TARGETS.iter().filter(|target| roles.contains(&target.role));
    let known = targets.flat_map(|target| target.callers);
    known.flat_map(|known| known.meaning.sites()).copied().collect()
}

#[test]
fn every_site_in_the_table_is_in_the_catalogue_and_has_a_cause() {
    for target in TARGETS {
        for known in target.callers {
            for site in known.meaning.sites() {
                assert!(PLACES.iter().any(|place| place.id == *site), "{}: {site}", known.name);
                assert!(!causes(&[*site]).is_empty(), "{}: {site} has no cause", known.name);
            }
            for id in causes(known.meaning.sites()) {
                assert!(catalog::find(id).is_some(), "{id}");
            }
        }
    }
}

#[test]
fn every_site_that_resets_has_a_caller() {
    let sends = reachable(&[Role::Sends]);
    for place in PLACES.iter().filter(|place| place.id.starts_with(['A', 'P', 'F'])) {
        assert!(sends.contains(place.id), "no caller leads to {}: {}", place.id, place.when);
    }
    let obeys = reachable(&[Role::Takes]);
    for place in PLACES.iter().filter(|place| place.id.starts_with('R') && place.function == "tcp_reset") {
        assert!(obeys.contains(place.id), "no caller leads to {}: {}", place.id, place.when);
    }
    assert!(reachable(&[Role::Replaces]).contains("Q2"));
}

#[test]
fn every_cause_of_an_rst_sent_has_a_caller() {
    let sends = reachable(&[Role::Sends]);
    let sent = catalog::all().filter(|spec| spec.events.contains(&EventKind::RstSent));
    // A cause without a site is that of an event that nothing explains.
    for spec in sent.filter(|spec| !spec.sites.is_empty()) {
        assert!(spec.sites.iter().any(|site| sends.contains(site)), "no caller leads to {}", spec.id);
    }
}
