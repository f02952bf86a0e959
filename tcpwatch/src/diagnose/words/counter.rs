//! The kernel's counters for what tcpwatch explains, as `nstat` names them behind `Tcp` or `TcpExt`.

use super::{Word, words};

/// Those of `/proc/net/snmp`; the others are in `/proc/net/netstat`.
const SNMP: [&str; 9] = [
    "OutRsts",
    "EstabResets",
    "AttemptFails",
    "ActiveOpens",
    "PassiveOpens",
    "CurrEstab",
    "RetransSegs",
    "InErrs",
    "InCsumErrors",
];

/// The name for `nstat`.
pub fn nstat(name: &str) -> String {
    let group = if SNMP.contains(&name) { "Tcp" } else { "TcpExt" };
    format!("{group}{name}")
}

pub const WORDS: &[Word] = words! {
    "OutRsts" "RSTs that this host's TCP sent"
        "Every attempt counts: those of closed ports, of close(), of timers. What a firewall rejects is not in it, nor what an XDP \
         program or a raw socket sends. tcpwatch holds its own count against this one at the end of a run."
        look: ["`tcpwatch trace --events rst`: every one of them with its cause"]
        see: ["EstabResets", "NO_SOCKET", "TCP_STATE"];
    "EstabResets" "connections that ended from ESTABLISHED or CLOSE_WAIT in one step"
        "By an RST sent, by an RST received, or by a timer that gave up in silence. On loopback one RST counts twice: both ends are here."
        see: ["OutRsts", "ESTABLISHED"];
    "AttemptFails" "handshakes that failed, in either direction"
        "A connect() that was refused or ran out of time, and half-open requests that a client reset."
        see: ["EmbryonicRsts", "SYN_SENT"];
    "EmbryonicRsts" "half-open requests that an RST ended, sent or received"
        "Mostly clients that go away in the middle of the handshake: port scans, health checks, short timeouts."
        see: ["NEW_SYN_RECV", "INVALID_SYN"];
    "ActiveOpens" "connect() calls that sent a SYN"
        "The first SYN of each counts, not its repetitions."
        see: ["AttemptFails", "SYN_SENT"];
    "PassiveOpens" "handshakes that clients completed here"
        "Connections that came to be at a listener."
        see: ["ListenDrops", "LISTEN"];
    "CurrEstab" "connections in ESTABLISHED now"
        "A gauge, not a count. Newer kernels also count CLOSE_WAIT."
        see: ["ESTABLISHED", "CLOSE_WAIT"];
    "RetransSegs" "segments sent again"
        "Loss on the path, or a peer that is gone."
        look: ["`nstat -az TcpRetransSegs TcpOutSegs`: below one in a hundred is usual", "`tcpwatch trace --events retransmit`: which connections"]
        see: ["TCPTimeouts", "TCPSynRetrans"];
    "InErrs" "segments that came in broken"
        "Too short, or with a wrong checksum."
        see: ["InCsumErrors"];
    "InCsumErrors" "segments with a wrong checksum"
        "Part of InErrs."
        see: ["TCP_CSUM"];

    "ListenOverflows" "the accept queue of a listener was full"
        "Counted when a SYN comes and when a last ACK comes, and again for every repetition: one waiting client makes several. \
         Each also counts in ListenDrops. A process that accepts too slowly, or has stopped."
        look: ["`ss -ltnp`: Recv-Q above Send-Q names the listener, but only at that moment", "backlog of listen() and `sysctl net.core.somaxconn`: the smaller one counts", "CLOSE_WAIT of the same process: then it hangs, and no backlog is large enough"]
        see: ["ListenDrops", "LISTEN", "CLOSE_WAIT", "TCP_LISTEN_OVERFLOW"];
    "ListenDrops" "a listener turned a SYN or a last ACK away, for whatever reason"
        "ListenOverflows are part of it. The rest: a full queue of half-open requests, no memory, no route, an LSM, an ICMP error. \
         No drop reason tells of a SYN, only this counter does. tcpwatch holds its own count against this one."
        look: ["how much of it is ListenOverflows and TCPReqQFullDrop"]
        see: ["ListenOverflows", "TCPReqQFullDrop", "LISTEN"];
    "TCPReqQFullDrop" "SYNs dropped because the queue of half-open requests was full"
        "Only with net.ipv4.tcp_syncookies=0; otherwise cookies go out and TCPReqQFullDoCookies counts."
        look: ["`sysctl net.ipv4.tcp_syncookies net.ipv4.tcp_max_syn_backlog net.core.somaxconn`"]
        see: ["TCPReqQFullDoCookies", "SYN_RECV"];
    "TCPReqQFullDoCookies" "SYNs that met a full queue of half-open requests while cookies are on"
        "A cookie is sent unless the accept queue is full, too: then the SYN is dropped and counts here all the same. A flood, \
         or a backlog that is too small for the normal load."
        look: ["whether SyncookiesRecv follows SyncookiesSent: then they are genuine clients", "`dmesg`: \"Possible SYN flooding on port\""]
        see: ["SyncookiesSent", "TCPReqQFullDrop"];
    "SyncookiesSent" "SYN-ACKs with a cookie instead of a remembered request"
        "The queue of half-open requests was full. The connection loses options like window scaling if the client sends no \
         timestamps."
        see: ["SyncookiesRecv", "SyncookiesFailed"];
    "SyncookiesRecv" "cookies that came back valid"
        "Genuine clients, that got in because of cookies. Far fewer than SyncookiesSent are a flood."
        see: ["SyncookiesSent"];
    "SyncookiesFailed" "ACKs that carried no valid cookie, soon after cookies were sent"
        "A forged ACK, a cookie older than two minutes, or a late segment of an old connection. An RST with TCP_FLAGS answers it."
        see: ["SyncookiesSent", "TCP_FLAGS"];
    "TCPDeferAcceptDrop" "last ACKs without data, at a listener with TCP_DEFER_ACCEPT"
        "Not an error: the listener asked to be woken only when data comes."
        see: ["NEW_SYN_RECV"];
    "TCPMigrateReqSuccess" "connections of a closing listener that moved to another one"
        "With net.ipv4.tcp_migrate_req=1 and SO_REUSEPORT, since 5.14."
        see: ["TCPMigrateReqFailure"];
    "TCPMigrateReqFailure" "connections of a closing listener that could not move"
        "They are reset."
        see: ["TCPMigrateReqSuccess"];
    "TCPFastOpenListenOverflow" "SYNs with data whose listener has too many fast-open requests"
        "They are handled as usual SYNs, without fast open."
        see: ["TCPFastOpenPassiveFail"];
    "TCPFastOpenPassiveFail" "SYNs with data that could not be taken"
        "A cookie that is not valid, or no room; they are handled as usual SYNs."
        see: ["TCPFastOpenListenOverflow"];

    "TCPTimeWaitOverflow" "connections that were refused their TIME_WAIT slot"
        "As many sockets were in TIME_WAIT as net.ipv4.tcp_max_tw_buckets allows, or there was no memory for one more. The \
         connection ends at once, and the peer's next segment draws an RST with NO_SOCKET or TCP_FLAGS. No kernel from 5.10 on \
         prints a line in its log about it. tcpwatch holds its own count against this one."
        look: ["/proc/net/sockstat: `tw` against `sysctl net.ipv4.tcp_max_tw_buckets`; both per network namespace", "which process closes so many short connections, and why it does not keep them open"]
        see: ["TIME_WAIT", "NO_SOCKET", "TCP_FLAGS"];
    "TW" "sockets whose TIME_WAIT ran its full time"
        "The normal end."
        see: ["TIME_WAIT", "TWKilled"];
    "TWKilled" "small sockets that lived for 4 seconds or less"
        "With a short net.ipv4.tcp_fin_timeout: FIN_WAIT2 of closed sockets that ran out."
        see: ["TW", "FIN_WAIT2"];
    "TWRecycled" "TIME_WAIT sockets whose ports a new connect() took over"
        "This is net.ipv4.tcp_tw_reuse at work. Harmless."
        see: ["TIME_WAIT"];

    "TCPAbortOnClose" "close() with unread data"
        "The process closed, or ended, and received data lay unread. MPTCP does the same without counting."
        see: ["TCP_ABORT_ON_CLOSE"];
    "TCPAbortOnData" "SO_LINGER 0, or data for a socket that nobody reads"
        "Two acts in one counter, and the reset reasons are not what its name suggests: close() with SO_LINGER 0 carries \
         TCP_STATE, late data carries TCP_ABORT_ON_DATA. Data that meets the small socket of an orphan \
         counts in OutRsts only."
        see: ["TCP_STATE", "TCP_ABORT_ON_DATA"];
    "TCPAbortOnLinger" "TCP_LINGER2 is negative: reset instead of FIN_WAIT2"
        "Not SO_LINGER: that counts in TCPAbortOnData."
        see: ["TCP_ABORT_ON_LINGER", "TCPAbortOnData"];
    "TCPAbortOnMemory" "orphans that were given up: too many, or no memory"
        "One of net.ipv4.tcp_max_orphans and net.ipv4.tcp_mem is reached. Some of them are given up without an RST."
        look: ["/proc/net/sockstat: orphan, mem", "`dmesg`: \"too many orphaned sockets\", \"out of memory\""]
        see: ["TCP_ABORT_ON_MEMORY", "FIN_WAIT1", "TCPMemoryPressures"];
    "TCPAbortOnTimeout" "connections that the kernel gave up: the peer did not answer"
        "Retransmissions, window probes, TCP_USER_TIMEOUT or keepalive ran out; a connect() without an answer counts, too. \
         Only keepalive sends an RST. The others go in silence, and a peer that comes back draws one later."
        look: ["loss between the hosts, peers that vanish; `ss -tno`: timer", "`sysctl net.ipv4.tcp_retries2`"]
        see: ["TCP_KEEPALIVE_TIMEOUT", "TCPTimeouts"];
    "TCPAbortFailed" "an RST that could not be made for lack of memory"
        "OutRsts has counted it, and it was not sent."
        see: ["OutRsts", "NOMEM"];
    "TCPMemoryPressures" "how often TCP came close to its memory limit"
        "Beyond the second figure of net.ipv4.tcp_mem buffers shrink; beyond the third, data is dropped and orphans are reset."
        look: ["/proc/net/sockstat: mem, in pages; `sysctl net.ipv4.tcp_mem`", "`ss -tnm`: who holds it"]
        see: ["TCPAbortOnMemory", "PROTO_MEM"];

    "TCPChallengeACK" "challenge ACKs sent (RFC 5961)"
        "An RST, a SYN or an ACK was in the window, or nearly, but not exact. The peer is asked to prove that it means it."
        look: ["a few are lost state at a peer; many are forged segments"]
        see: ["TCP_RESET", "TCPSYNChallenge"];
    "TCPSYNChallenge" "challenge ACKs for a SYN in the middle of a connection"
        "A client that restarted and took the same port again, or several behind one NAT address."
        see: ["TCPChallengeACK", "TCP_INVALID_SYN"];
    "PAWSActive" "answers to a SYN with a wrong timestamp"
        "Each draws an RST."
        see: ["TCP_RFC7323_PAWS"];
    "PAWSEstab" "segments of connections with an old timestamp"
        "Dropped as old duplicates."
        see: ["TCP_RFC7323_PAWS"];
    "PAWSOldAck" "old ACKs without data, by their timestamp"
        "Reordering. Harmless."
        see: ["TCP_RFC7323_PAWS_ACK"];
    "PAWSTimewait" "segments for TIME_WAIT with an old timestamp"
        "Old duplicates, or SYNs on the same ports that are turned away by it."
        see: ["TCP_RFC7323_TW_PAWS"];
    "TSEcrRejected" "last ACKs of a handshake with a wrong echoed timestamp"
        "Dropped; the request waits on."
        see: ["TCP_RFC7323_TSECR"];
    "BeyondWindow" "segments that end beyond the window"
        "Dropped; the peer sent more than it was allowed."
        see: ["TCP_INVALID_END_SEQUENCE"];
    "TCPKeepAlive" "keepalive probes sent"
        "Connections that were idle for TCP_KEEPIDLE (two hours, unless the application says otherwise)."
        see: ["TCP_KEEPALIVE_TIMEOUT"];
    "TCPTimeouts" "retransmission timers that ran out"
        "Loss that no ACK told of. Each slows the connection down to one segment."
        see: ["RetransSegs", "TCPAbortOnTimeout"];
    "TCPSynRetrans" "SYNs and SYN-ACKs sent again"
        "Servers, or clients, that do not answer: at a client compare ListenDrops of the server."
        see: ["SYN_SENT", "ListenDrops"];

    "TCPBacklogDrop" "segments for a locked socket whose backlog was full"
        "The process works on the socket while more comes than it may buffer."
        see: ["SOCKET_BACKLOG"];
    "TCPRcvQDrop" "data in order that found no memory"
        "The peer sends it again."
        see: ["PROTO_MEM"];
    "TCPZeroWindowDrop" "data that came although the window was closed"
        "The process here does not read."
        see: ["TCP_ZEROWINDOW"];
    "TCPToZeroWindowAdv" "how often this host told a peer to stop sending"
        "A process does not read as fast as data comes."
        look: ["`ss -tnp`: Recv-Q"]
        see: ["TCP_ZEROWINDOW"];
    "OfoPruned" "out-of-order queues thrown away for lack of room"
        "The peer sends it again."
        see: ["TCP_OFO_QUEUE_PRUNE"];
    "TCPOFODrop" "out-of-order segments that found no room"
        "The peer sends them again."
        see: ["TCP_OFO_DROP"];
    "TCPMinTTLDrop" "segments below the TTL that the socket demands"
        "IP_MINTTL, which BGP uses."
        see: ["TCP_MINTTL"];
    "PFMemallocDrop" "segments that were received with memory reserved for swapping"
        "The host is out of memory."
        see: ["PFMEMALLOC"];
    "IPReversePathFilter" "packets that rp_filter dropped"
        "Their source address does not belong to the interface that they came in by."
        see: ["IP_RPFILTER"];
    "TCPMD5NotFound" "segments without the MD5 signature that the socket expects"
        "A key is missing at the peer."
        see: ["TCP_MD5NOTFOUND"];
    "TCPMD5Unexpected" "segments with an MD5 signature that the socket does not expect"
        "A key is missing here."
        see: ["TCP_MD5UNEXPECTED"];
    "TCPMD5Failure" "segments with a wrong MD5 signature"
        "The keys differ, or something rewrites the segments."
        see: ["TCP_MD5FAILURE"];
};
