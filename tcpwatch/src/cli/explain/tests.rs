//! Names and what comes of them.

use super::*;

fn kernel() -> Kernel {
    let names =
        |names: &[(u32, &str)]| names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect();
    let reset = names(&[
        (1, "SK_RST_REASON_NO_SOCKET"),
        (14, "SK_RST_REASON_TCP_STATE"),
        (25, "SK_RST_REASON_TCP_NEW"),
        (26, "SK_RST_REASON_MAX"),
    ]);
    let drop = names(&[
        (3, "SKB_DROP_REASON_NO_SOCKET"),
        (14, "SKB_DROP_REASON_VXLAN_INVALID_HDR"),
        (1, "SKB_CONSUMED"),
    ]);
    Kernel { name: "kernel 9.9".to_owned(), reasons: ReasonNames::new(reset, drop) }
}

fn found(typed: &str) -> Vec<String> {
    let kernel = kernel();
    let answer = answer(Some(typed), Some(&kernel)).unwrap_or_else(|error| panic!("{typed}: {error}"));
    let title = |entry: &Entry<'_>| match entry {
        Entry::Cause(spec) => format!("cause {}", spec.id),
        Entry::Word { dictionary, word, number } => format!("{} {} {number:?}", dictionary.id(), word.name),
        Entry::Nameless { dictionary, name, number } => format!("? {} {name} {number}", dictionary.id()),
    };
    answer.entries.iter().map(title).collect()
}

#[test]
fn a_name_is_shown_from_every_dictionary_that_has_it() {
    assert_eq!(found("no_socket"), ["reset_reason NO_SOCKET Some(1)", "drop_reason NO_SOCKET Some(3)"]);
    assert_eq!(found("SK_RST_REASON_NO_SOCKET"), ["reset_reason NO_SOCKET Some(1)"]);
    assert_eq!(found("TCP_CLOSE"), ["drop_reason TCP_CLOSE None", "state CLOSE Some(7)"]);
    assert_eq!(found("linger_zero"), ["cause linger-zero"]);
    assert_eq!(found("LISTEN"), ["state LISTEN Some(10)", "event listen_drop None", "owner.how listen None"]);
    assert_eq!(found(" TcpExtTW "), ["counter TW None"]);
}

#[test]
fn what_only_the_kernel_knows_is_said_to_be_unknown() {
    assert_eq!(found("tcp_new"), ["? reset_reason TCP_NEW 25"]);
    assert_eq!(found("SKB_DROP_REASON_VXLAN_INVALID_HDR"), ["? drop_reason VXLAN_INVALID_HDR 14"]);
    let kernel = kernel();
    let text = |name| answer(Some(name), Some(&kernel)).ok().unwrap().text();
    assert!(text("tcp_new").contains("unknown to tcpwatch"));
    assert!(text("vxlan_invalid_hdr").contains("outside TCP"));
    let list = answer(None, Some(&kernel)).ok().unwrap().text();
    assert!(list.contains("unknown to tcpwatch: newer than it:\n    TCP_NEW\n"), "{list}");
    assert!(list.contains("newer than tcpwatch:\n    VXLAN_INVALID_HDR\n"), "{list}");
    assert!(!list.contains(" MAX"), "a count is no reason");
}

#[test]
fn the_list_says_which_kernel_it_is_about() {
    let list = |kernel| answer(None, kernel).ok().unwrap().text();
    assert_eq!(list(None).matches("does not show its kernel's types").count(), 2, "for resets and for drops");
    let old = Kernel { name: "kernel 5.10".to_owned(), reasons: ReasonNames::default() };
    assert_eq!(list(Some(&old)).matches("(kernel 5.10 has no such reasons: it is older)").count(), 2);
    assert!(list(Some(&kernel())).contains("not in kernel 9.9:\n    NOT_SPECIFIED "));
    let page = answer(Some("INVALID_SYN"), Some(&old)).ok().unwrap().text();
    assert!(
        page.starts_with("INVALID_SYN: reset reason of the kernel (sk_rst_reason), not in kernel 5.10\n")
    );
}

#[test]
fn numbers_are_those_of_the_kernel() {
    assert_eq!(found("14"), ["reset_reason TCP_STATE Some(14)", "? drop_reason VXLAN_INVALID_HDR 14"]);
    assert_eq!(
        found("1"),
        ["reset_reason NO_SOCKET Some(1)", "drop_reason CONSUMED Some(1)", "state ESTABLISHED Some(1)"]
    );
    let kernel = kernel();
    let error = answer(Some("26"), Some(&kernel)).err().unwrap();
    assert!(error.what.contains("kernel 9.9") && error.hint.contains("--btf"), "{error}");
    assert_eq!(answer(Some("14"), None).err().unwrap().exit, super::super::Exit::Failed);
    assert_eq!(answer(Some("8"), None).ok().unwrap().entries.len(), 1, "states never move");
}

#[test]
fn near_misses_are_recognised() {
    for (typed, hint) in [
        ("linger-zro", "did you mean `linger-zero`?"),
        ("TCP_STAT", "did you mean `TCP_STATE`?"),
        ("SK_RST_REASON_TCP_STAET", "did you mean `TCP_STATE`?"),
        ("TcpExtListenDrop", "did you mean `ListenDrops`?"),
        ("TimeWaitOverflow", "did you mean `TCPTimeWaitOverflow`?"),
        ("close_wiat", "did you mean `CLOSE_WAIT`?"),
        ("queue-full", "did you mean one of: accept-queue-full, syn-queue-full?"),
        ("tcp_", "lists them"),
        ("xyzzyx", "`tcpwatch explain` lists every name"),
        ("", "`tcpwatch explain` lists every name"),
        ("MAX", "lists every name"),
    ] {
        let error = answer(Some(typed), None).err().unwrap_or_else(|| panic!("{typed} was found"));
        assert!(error.hint.contains(hint), "{typed}: {error}");
        assert_eq!(error.exit, super::super::Exit::Usage, "{typed}");
    }
}

#[test]
fn no_line_is_too_wide() {
    let kernel = kernel();
    let everything = answer(None, Some(&kernel)).ok().unwrap();
    let mut pages = vec![everything.text()];
    for entry in &everything.entries {
        pages.push(answer(Some(entry.name()), Some(&kernel)).ok().unwrap().text());
    }
    for line in pages.iter().flat_map(|page| page.lines()) {
        assert!(line.chars().count() <= super::super::page::WIDTH, "{line}");
        let placeholder = line.split('{').skip(1).any(|rest| rest.starts_with(char::is_lowercase));
        assert!(!placeholder, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

/// Each entry is one line of the list, and has nothing left of a template.
#[test]
fn the_list_is_complete() {
    let list = answer(None, None).ok().unwrap();
    let text = list.text();
    for entry in &list.entries {
        let line = format!("\n  {} ", entry.name());
        assert!(text.contains(&line), "{} is not in the list", entry.name());
    }
    for dictionary in Dictionary::ALL {
        assert!(text.contains(dictionary.heading()));
    }
}

#[test]
fn json_has_one_object_a_line_and_null_for_what_is_not_known() {
    let kernel = kernel();
    let lines = |name| {
        let text = answer(name, Some(&kernel)).ok().unwrap().json();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let state = &lines(Some("TCP_STATE"))[0];
    assert_eq!(state["dictionary"], "reset_reason");
    assert_eq!(state["number"], 14);
    assert_eq!(state["acts"][0]["cause"], "linger-zero");
    assert!(state["cause"].is_null() && state["known"] == true);
    let new = &lines(Some("TCP_NEW"))[0];
    assert!(new["means"].is_null() && new["known"] == false, "{new}");
    let cause = &lines(Some("linger-zero"))[0];
    assert_eq!(cause["cause"]["events"][0], "rst_sent");
    assert!(cause["number"].is_null() && cause["means"].is_null());
    assert!(lines(None).len() > 200);
}
