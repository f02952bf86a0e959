//! Filters and what comes of them.

use super::*;
use std::net::IpAddr;
use tcpwatch_common::filter::Filter;
use tcpwatch_common::flow::{Addr, Flow};

mod random;

/// `10.9.0.1:80 10.9.0.2:40000`, local end first.
fn flow(ends: &str) -> Flow {
    let mut ends = ends.split(' ').map(|end| {
        let (addr, port) = end.rsplit_once(':').unwrap();
        (Addr::from_ip(addr.parse::<IpAddr>().unwrap()), port.parse().unwrap())
    });
    let ((local, local_port), (remote, remote_port)) = (ends.next().unwrap(), ends.next().unwrap());
    Flow { local, remote, local_port, remote_port, netns: 7 }
}

fn compile(text: &str) -> Result<Expression, Error> {
    expression(Family::Any, &[], &[], &[text.to_owned()])
}

fn admits(text: &str, flow: &Flow) -> bool {
    let expression = compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Filter { active: 1, expression, ..Filter::NONE }.admits_flow(flow)
}

/// Each filter holds of the first flow and not of the second.
fn tells_apart(cases: &[(&str, &str, &str)]) {
    for (text, wanted, other) in cases {
        assert!(admits(text, &flow(wanted)), "{text} must hold of {wanted}");
        assert!(!admits(text, &flow(other)), "{text} must not hold of {other}");
    }
}

const A: &str = "10.9.0.1:80 10.9.0.2:40000";
const B: &str = "10.9.0.2:40000 10.9.0.1:80";
const C: &str = "192.168.1.7:443 172.16.0.1:50000";
const V6: &str = "fd00::1:80 fd00::2:40000";

#[test]
fn every_primitive_means_what_it_says() {
    tells_apart(&[
        ("host 10.9.0.1", A, C),
        ("host 10.9.0.2", A, C),
        ("src host 10.9.0.1", A, B),
        ("local host 10.9.0.1", A, B),
        ("dst host 10.9.0.1", B, A),
        ("remote host 10.9.0.1", B, A),
        ("src or dst host 10.9.0.1", A, C),
        ("src and dst net 10.9", A, "10.9.0.1:80 10.8.0.2:40000"),
        ("dst and src net 10.9", A, "10.8.0.1:80 10.9.0.2:40000"),
        ("local or remote port 80", B, C),
        ("src 10.9.0.1", A, B),
        ("10.9.0.2", A, C),
        ("10.9.0.0/16", A, C),
        ("dst 172.16.0.0/12", C, A),
        ("port 80", A, C),
        ("src port 80", A, B),
        ("dst port http", B, A),
        ("portrange 400-500", C, A),
        ("src portrange 90-70", A, B),
        ("dst portrange 80-80", B, A),
        ("net 10", A, C),
        ("net 192.168", C, A),
        ("net 192.168.1", C, "192.168.2.7:443 172.16.0.1:50000"),
        ("net 192.168.1.7", C, "192.168.1.8:443 172.16.0.1:50000"),
        ("net 10.9/16", A, C),
        ("net 172.16.0.0 mask 255.240.0.0", C, A),
        ("net 0.0.0.1 mask 0.0.0.255", A, "10.9.0.3:80 10.9.0.2:40000"),
        ("ip", A, V6),
        ("ip6", V6, A),
        ("not ip", V6, A),
        ("host fd00::1", V6, A),
        ("src net fd00::/8", V6, A),
        ("net ::/0", V6, A),
        ("net 0.0.0.0/0", A, V6),
        ("ip host 10.9.0.1", A, V6),
        ("ip6 port 80", V6, A),
        ("tcp port 443", C, A),
        ("tcp and port 443", C, A),
        ("tcp src port 443", C, A),
        ("host ::ffff:10.9.0.1", A, C),
        ("net ::ffff:10.9.0.0/112", A, C),
    ]);
    assert!(!admits("net ::/0", &flow(B)));
}

#[test]
fn not_binds_most_and_the_others_alike_from_the_left() {
    tells_apart(&[
        ("port 443 or port 80 and host 10.9.0.1", A, C),
        ("port 443 or (port 80 and host 10.9.0.1)", C, V6),
        ("not port 443 and host 10.9.0.1", A, C),
        ("not (port 443 or port 80) or host 10.9.0.1", A, C),
        ("not port 22 and not port 443", A, C),
        ("! port 443 && ! port 22 || port 1", A, C),
        ("not not port 80", A, C),
        ("!!!port 80", C, A),
        ("(((port 80)))", A, C),
    ]);
}

#[test]
fn a_value_alone_has_the_qualifiers_before_it() {
    tells_apart(&[
        ("port 22 or 80", A, C),
        ("port 22 or 80 and 40000", A, C),
        ("src port 22 or 80", A, B),
        ("src 10.9.0.3 or 10.9.0.1", A, B),
        ("dst host 10.9.0.3 or 10.9.0.2", A, B),
        ("net 10.8 or 192.168", C, A),
        ("src port (22 or 80)", A, B),
        ("src port (22 or (443 or 80))", A, B),
        ("port not 443", A, C),
        ("port not (443 or 22)", A, C),
        ("port 443 or not 50000", A, "10.9.0.1:50000 10.9.0.2:1"),
        ("host 10.9.0.7 or 10.9.0.2 and not port 443", A, C),
        ("portrange 1-2 or 79-81", A, C),
        ("ip6 port 22 or 80", V6, A),
        ("(src port 22) or 80", A, B),
        // After a protocol alone there is nothing to take over.
        ("src port 22 or ip and 10.9.0.2", A, C),
    ]);
}

#[test]
fn what_can_never_hold_is_refused() {
    for text in ["not tcp", "port 80 and not tcp", "not (tcp or port 80)"] {
        let error = compile(text).unwrap_err();
        assert!(error.what.contains("lets nothing through"), "{text}: {error}");
    }
}

#[test]
fn there_is_room_for_every_option_beside_the_longest_filter() {
    let ports: Vec<u16> = (1..=8).collect();
    let words: Vec<String> = (1..=TYPED).map(|port| format!("src port {port}")).collect();
    let expression = expression(Family::V6, &ports, &ports, &[words.join(" or ")]).unwrap();
    assert_eq!(expression.len(), TYPED + 17);
    let filter = Filter { active: 1, expression, ..Filter::NONE };
    assert!(filter.admits_flow(&flow("fd00::1:8 fd00::2:1")));
    for other in ["10.9.0.1:8 10.9.0.2:1", "fd00::1:9 fd00::2:1", "fd00::1:8 fd00::2:9"] {
        assert!(!filter.admits_flow(&flow(other)), "{other}");
    }
}

#[test]
fn without_conditions_there_is_nothing_to_evaluate() {
    for text in ["tcp", "tcp or port 80", "tcp and tcp", "not (not tcp)"] {
        assert!(compile(text).unwrap().is_empty(), "{text}");
    }
    assert_eq!(expression(Family::Any, &[], &[], &[]), Ok(Expression::NONE));
}

#[test]
fn words_may_come_one_by_one_or_quoted() {
    let words = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        expression(Family::Any, &[], &[], &words)
    };
    let one = words(&["host 10.9.0.1 and not port 22"]);
    assert!(one.is_ok());
    assert_eq!(words(&["host", "10.9.0.1", "and", "not", "port", "22"]), one);
    assert_eq!(words(&["host 10.9.0.1\n\tand", "! port 22"]), one);
}

#[test]
fn a_wrong_filter_is_shown_with_a_caret_and_a_hint() {
    let mut failures = Vec::new();
    for (text, under, what, hint) in [
        ("ether host 1:2:3:4:5:6", "ether", "connections and not frames", "`host`, `net`"),
        ("port 80 and vlan 5", "vlan", "connections and not frames", "`host`, `net`"),
        ("udp port 53", "udp", "TCP alone", "`host`, `net`"),
        ("port 80 or udp", "udp", "TCP alone", "`host`, `net`"),
        ("tcp[13] & 4 != 0", "tcp[13]", "does not look into packets", "--events rst"),
        ("port 80 and tcp[tcpflags] & tcp-rst != 0", "tcp[tcpflags]", "does not look", "--events rst"),
        ("greater 100", "greater", "connections and not packets", "`host`, `net`"),
        ("inbound", "inbound", "no direction", "`host`, `net`"),
        ("port != 22", "!=", "nothing is compared", "not port 22"),
        ("port = 22", "=", "does not look", "--events"),
        ("host 10.9.0.1 port 80", "port", "`port` follows without `and` or `or`", "`and port`"),
        ("port 80 an port 81", "an", "without `and`", "did you mean `and`?"),
        ("port 80)", ")", "`)` closes nothing", "leave it away"),
        ("(port 80", "(", "`(` is never closed", "close it"),
        ("(port 80 port 81)", "port", "without `and`", "and port"),
        ("port 80 and", "", "ends too early", "port 80"),
        ("not", "", "ends too early", "port 80"),
        ("", "", "ends too early", "port 80"),
        ("()", ")", "`)` stands where", "host 10.9.0.1"),
        ("and port 80", "and", "`and` stands where", "host 10.9.0.1"),
        ("port", "", "`port` needs a port", "`port 80`"),
        ("host and port 80", "and", "`host` needs an address and not `and`", "`host 10.9.0.1`"),
        ("src port 80 or dst", "", "`dst` needs an address", "`dst 10.9.0.1`"),
        ("src host or 10.9.0.1", "or", "`host` needs an address and not `or`", "host 10.9.0.1"),
        ("80", "80", "may be a port or a network", "`port 80`, or `net 80`"),
        ("src 80", "80", "may be a port or a network", "`port 80`"),
        ("https", "https", "`https` is not part of a filter", "`port https`"),
        ("hots 10.9.0.1", "hots", "`hots` is not part of a filter", "did you mean `host`?"),
        ("port 80 or hots 10.9.0.1", "hots", "`hots` is not a port", "did you mean `host`?"),
        ("HOST 10.9.0.1", "HOST", "not part of a filter", "did you mean `host`?"),
        ("port 65536", "65536", "`65536` is not a port", "65535"),
        ("port 80,443", "80,443", "is not a port", "`port 80 or 443`"),
        ("port 80-90", "80-90", "is not a port", "`portrange 80-90`"),
        ("port -1", "-1", "is not a port", "portrange"),
        ("port +1", "+1", "is not a port", "65535"),
        ("port gopherd", "gopherd", "is not a port", "`https`"),
        ("portrange 80", "80", "is not a range of ports", "portrange 8000-8099"),
        ("host www.example.org", "www.example.org", "is not an address", "getent ahosts"),
        ("host 10.9", "10.9", "is not an address", "`net 10.9`"),
        ("host 10.9.0.0/16", "10.9.0.0/16", "is not an address", "`net 10.9.0.0/16`"),
        ("host fe80::1%eth0", "fe80::1%eth0", "is not an address", "interface"),
        ("10.9.0.300", "10.9.0.300", "is not an address", "net"),
        ("net 10.9.0.1/16", "10.9.0.1/16", "bits set behind its network", "`net 10.9.0.0/16`"),
        ("net fd00::1/64", "fd00::1/64", "bits set", "`net fd00::/64`"),
        ("net 10.9.0.1 mask 255.0.255.0", "10.9.0.1", "bits set", "`net 10.0.0.0` with this mask"),
        ("net 10.0.0.0/33", "10.0.0.0/33", "from 0 to 32", "for instance"),
        ("net fd00::/129", "fd00::/129", "from 0 to 128", "for instance"),
        ("net 10.0.0.0/", "10.0.0.0/", "from 0 to 32", "for instance"),
        ("net 1.2.3.4.5", "1.2.3.4.5", "is not a network", "for instance"),
        ("net 256", "256", "is not a network", "for instance"),
        ("net 10. ", "10.", "is not a network", "for instance"),
        ("net 10.0.0.0 mask", "mask", "`mask` needs a mask", "255.255.0.0"),
        ("net 10.0.0.0 mask 8", "10.0.0.0", "`8` is not a mask", "255.255.0.0"),
        ("net fd00:: mask 255.0.0.0", "fd00::", "takes no mask", "prefix length"),
        ("ip host fd00::1", "fd00::1", "is IPv6, behind `ip`", "leave `ip` away"),
        ("ip6 net 10", "10", "is IPv4, behind `ip6`", "leave `ip6` away"),
    ] {
        let error = match compile(text) {
            Err(error) => error,
            Ok(_) => panic!("{text} was taken"),
        };
        let lines: Vec<&str> = error.what.lines().collect();
        let [sentence, shown, caret] = lines[..] else { panic!("{error}") };
        let from = caret.find('^').unwrap();
        let marked = shown.get(from..caret.len()).unwrap_or("");
        let fits =
            sentence.contains(what) && error.hint.contains(hint) && shown.trim_start() == text.trim_start();
        if !fits || marked != under {
            failures.push(format!("{text}\n{error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn of_a_long_filter_the_wrong_place_is_shown() {
    let text = format!(
        "{} and prot 443 and {}",
        "port 80 or 81 or 82 ".repeat(5).replace("2 p", "2 or p"),
        "x ".repeat(50)
    );
    let error = compile(&text).unwrap_err();
    let lines: Vec<&str> = error.what.lines().collect();
    let (shown, caret): (Vec<char>, Vec<char>) = (lines[1].chars().collect(), lines[2].chars().collect());
    assert!(shown.len() < 90 && lines[1].trim().starts_with('…') && lines[1].ends_with('…'), "{error}");
    let from = caret.iter().position(|c| *c == '^').unwrap();
    assert_eq!(shown[from..caret.len()].iter().collect::<String>(), "prot", "{error}");
}

#[test]
fn as_many_tests_are_taken_as_fit() {
    let ports = |first: &str, count: usize| {
        let ports: Vec<String> = (1..=count).map(|port| port.to_string()).collect();
        format!("{first} {}", ports.join(" or "))
    };
    assert!(admits(&ports("src port", TYPED), &flow("10.9.0.1:64 10.9.0.2:1000")));
    assert!(admits(&ports("port", TYPED / 2), &flow("10.9.0.1:1000 10.9.0.2:32")));
    assert!(!admits(&ports("port", TYPED / 2), &flow("10.9.0.1:1000 10.9.0.2:33")));
    for text in [ports("src port", TYPED + 1), ports("port", TYPED / 2 + 1), ports("src port", 100_000)] {
        let error = compile(&text).unwrap_err();
        assert!(error.what.starts_with("the filter is too long: 64 tests fit"), "{error}");
        assert!(error.hint.contains("portrange"), "{error}");
    }
}

#[test]
fn nothing_that_is_typed_overflows_the_stack() {
    for text in ["(", "not ", "!", "src port (", "port 80 or (", "tcp or ", "tcp and ("] {
        let long = text.repeat(100_000);
        assert!(compile(&long).is_err(), "{text}");
    }
    let fits = format!("{}port 80{}", "(".repeat(32), ")".repeat(32));
    assert!(compile(&fits).is_ok());
    assert!(compile(&format!("({fits})")).unwrap_err().what.contains("more than 32 parentheses"));
}

#[test]
fn a_command_is_no_filter() {
    for (word, what, hint) in [
        ("doctor", "the command `doctor`", "`tcpwatch doctor …`"),
        ("docter", "neither a command nor a filter", "did you mean `doctor`?"),
        ("xyzzy", "neither a command nor a filter", "tcpwatch --help"),
    ] {
        let error = compile(word).unwrap_err();
        assert!(error.what.contains(what) && error.hint.contains(hint), "{error}");
    }
}
