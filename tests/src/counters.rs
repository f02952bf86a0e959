//! The kernel's own books: counters of a namespace and its table of TCP sockets.

use std::collections::BTreeMap;

/// Counters by the names that `nstat` gives them, without the prefix. Names do not repeat between the tables
/// that are kept here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

const TABLES: [&str; 3] = ["Tcp", "TcpExt", "MPTcpExt"];

impl Counters {
    /// Reads `/proc/net/snmp` and `netstat`: a line of names, then a line of values for each table.
    pub fn parse(texts: &[String]) -> Self {
        let mut all = BTreeMap::new();
        for text in texts {
            let lines: Vec<&str> = text.lines().collect();
            for two in lines.chunks_exact(2) {
                let (Some((table, names)), Some((_, values))) =
                    (two[0].split_once(':'), two[1].split_once(':'))
                else {
                    continue;
                };
                if TABLES.contains(&table) {
                    let values = values.split_whitespace().map(|value| value.parse().unwrap_or(0));
                    all.extend(names.split_whitespace().map(str::to_owned).zip(values));
                }
            }
        }
        Self(all)
    }

    /// 0 for a counter that this kernel does not have.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.get(name).saturating_sub(before.get(name))
    }

    /// All counters that grew, for messages.
    pub fn grown(&self, before: &Self) -> String {
        let grown = self.growth(before).into_iter().map(|(name, more)| format!("{name}+{more}"));
        grown.collect::<Vec<_>>().join(" ")
    }

    /// The same by name.
    pub fn growth(&self, before: &Self) -> BTreeMap<String, u64> {
        let grown = self.0.keys().map(|name| (name.clone(), self.since(before, name)));
        grown.filter(|(_, more)| *more > 0).collect()
    }
}

/// State names by the kernel's numbers.
const STATES: [&str; 14] = [
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
    "BOUND",
];

/// State of the socket with these ports in the text of `/proc/net/tcp` or `tcp6`. A TIME_WAIT entry that stands
/// for FIN_WAIT2 is listed as FIN_WAIT2 and a half-open request as SYN_RECV.
pub fn socket_state(table: &str, local: u16, remote: u16) -> Option<&'static str> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (one, two, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = |text: &str| u16::from_str_radix(text.rsplit(':').next()?, 16).ok();
        if port(one)? != local || port(two)? != remote {
            return None;
        }
        STATES.get(usize::from_str_radix(state, 16).ok()?).copied()
    })
}

/// How many sockets with this local port, or this remote one, are in a state, in the same table.
pub fn sockets_in(table: &str, local: Option<u16>, remote: Option<u16>, state: &str) -> usize {
    let Some(state) = STATES.iter().position(|name| *name == state) else { return 0 };
    let is = |end: &str, port: Option<u16>| port.is_none_or(|port| end.ends_with(&format!(":{port:04X}")));
    let fits = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(one), Some(two), Some(now)) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        is(one, local) && is(two, remote) && usize::from_str_radix(now, 16) == Ok(state)
    };
    table.lines().skip(1).filter(fits).count()
}

/// How many connections wait to be accepted on this port, in the same table: a listener has nothing else to receive.
pub fn accept_queue(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if state != LISTEN || !local.ends_with(&port) {
            return None;
        }
        u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_pair_names_with_values() {
        let text = "Ip: Forwarding InReceives\nIp: 1 20\nTcp: MaxConn OutRsts\nTcp: -1 7\n".to_owned();
        let more = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 3 4\n".to_owned();
        let counters = Counters::parse(&[text, more]);
        assert_eq!(counters.get("OutRsts"), 7);
        assert_eq!(counters.get("ListenDrops"), 4);
        assert!(!counters.has("InReceives"), "tables of other protocols are left out");
        assert_eq!(counters.grown(&Counters::default()), "ListenDrops+4 OutRsts+7 SyncookiesSent+3");
    }

    #[test]
    fn socket_table_is_searched_by_ports() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100090A:1F90 0200090A:9C41 05 00000000:00000000\n";
        assert_eq!(socket_state(table, 8080, 40001), Some("FIN_WAIT2"));
        assert_eq!(socket_state(table, 8080, 40002), None);
        assert_eq!(sockets_in(table, Some(8080), None, "FIN_WAIT2"), 1);
        assert_eq!(sockets_in(table, None, Some(40001), "FIN_WAIT2"), 1);
        let listener = "header\n   0: 00000000:0050 00000000:0000 0A 00000000:0000000B 00:00000000\n";
        assert_eq!((accept_queue(listener, 80), accept_queue(listener, 81)), (Some(11), None));
        assert_eq!(sockets_in(table, Some(8080), None, "CLOSE_WAIT"), 0);
    }
}
