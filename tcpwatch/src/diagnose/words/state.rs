//! The states of a TCP socket, as `ss`, `netstat` and the kernel spell them.

use super::{Word, words};

pub const WORDS: &[Word] = words! {
    "ESTABLISHED" also: ["ESTAB"] "both directions are open"
        "The normal state of a connection. It also waits here without end for a peer that vanished, unless something is to be \
         sent or keepalive is on. A client may be ESTABLISHED while the server is not: its last ACK met a full accept queue."
        look: ["`ss -tnpo state established`: queues, timers, processes"]
        see: ["EstabResets", "CurrEstab"];
    "SYN_SENT" "connect() waits for the server's answer"
        "Who has to act is the server, or whatever drops SYNs on the way. Without an answer the kernel tries \
         net.ipv4.tcp_syn_retries times (6: about two minutes) and connect() fails with ETIMEDOUT."
        look: ["`ss -tnp state syn-sent`: many to one server are a server that drops SYNs, or a firewall that does", "at the server: `nstat -az TcpExtListenDrops`"]
        see: ["TCPSynRetrans", "AttemptFails"];
    "SYN_RECV" "a handshake waits for the client's last ACK"
        "`ss` shows half-open requests under this name; the kernel calls them NEW_SYN_RECV, and has full sockets in SYN_RECV \
         only for TCP fast open, for both sides connecting at once, and for a moment in every accept. The client has to act; \
         the SYN-ACK is sent net.ipv4.tcp_synack_retries times (5: about a minute)."
        look: ["`ss -tn state syn-recv`: many clients with one each are a flood, or lost SYN-ACKs; few with many are a full accept queue"]
        see: ["NEW_SYN_RECV", "TCPReqQFullDrop", "SyncookiesSent"];
    "FIN_WAIT1" also: ["FIN-WAIT-1"] "this side closed; the peer has not acknowledged that yet"
        "The FIN waits behind data that the peer has not taken, or was lost. The peer, or the path, has to act. If the process \
         closed the socket it is an orphan, and net.ipv4.tcp_orphan_retries and tcp_max_orphans bound it."
        look: ["`ss -tnoe state fin-wait-1`: Send-Q is what the peer does not take", "/proc/net/sockstat: orphan"]
        see: ["FIN_WAIT2", "TCPAbortOnMemory"];
    "FIN_WAIT2" also: ["FIN-WAIT-2"] "this side closed and the peer knows; the peer has not closed"
        "The peer's application has to act: at the peer the same connection is in CLOSE_WAIT. If the process here only shut it \
         down, it may wait for ever; if it closed it, the kernel waits net.ipv4.tcp_fin_timeout (60 s) and forgets it. Most \
         FIN_WAIT2 that `ss` shows are small sockets without a process, which the kernel counts as TIME_WAIT."
        look: ["`ss -tnpe state fin-wait-2`: with a process it was shutdown(), without it was close()", "the peer: `ss -tnp state close-wait` there"]
        see: ["CLOSE_WAIT", "TIME_WAIT", "TCP_TIMEWAIT_SOCKET"];
    "TIME_WAIT" "this side closed first, all is done; the ports rest for 60 seconds"
        "Nobody has to act. It catches late segments, so that they do not hurt the next connection on the same ports. Its cost \
         is small; its limit is net.ipv4.tcp_max_tw_buckets, and beyond that a connection ends without TIME_WAIT and its \
         late segments draw RSTs. Many of them mean many short connections that this side closes first."
        look: ["/proc/net/sockstat: `tw` against `sysctl net.ipv4.tcp_max_tw_buckets`", "why connections are so short: a pool that does not keep them, HTTP without keep-alive", "clients without free ports: net.ipv4.ip_local_port_range, net.ipv4.tcp_tw_reuse"]
        see: ["TCPTimeWaitOverflow", "TW", "FIN_WAIT2"];
    "CLOSE" also: ["CLOSED", "UNCONN"] "no connection: a new socket, or one that has ended"
        "`ss` shows it as UNCONN. In tcpwatch's events `state` is what the socket was in before: inside close() the kernel has set CLOSE \
         already when it sends the RST."
        see: ["TCP_CLOSE"];
    "CLOSE_WAIT" "the peer closed; the process here has not closed in turn"
        "The process has to act. Unless the peer resets it, or keepalive finds the peer gone, nothing else ever ends it; no sysctl helps. It has read, or could read, end \
         of file and has not called close(). Many of them are a process that hangs, or one that leaks descriptors. At the peer \
         the same connection is in FIN_WAIT2."
        look: ["`ss -tnp state close-wait`: which process, how many, and Recv-Q: data that it has not read", "what that process waits for: its threads' stacks, its connection pool, its limit of descriptors", "its listener: if it has stopped accepting, the accept queue fills next"]
        see: ["FIN_WAIT2", "ListenOverflows", "LAST_ACK"];
    "LAST_ACK" "both sides closed; the peer has not acknowledged this side's close"
        "The peer, or the path, has to act; the FIN is sent again until it does. Short, unless the peer is gone or does not take \
         the data before the FIN."
        look: ["`ss -tno state last-ack`: Send-Q and timer"]
        see: ["CLOSE_WAIT", "FIN_WAIT1"];
    "LISTEN" "a server waits for connections"
        "The process has to call accept(). For a listener `ss -ltn` shows in Recv-Q how many connections wait for that, and in \
         Send-Q the limit: the smaller of listen()'s backlog and net.core.somaxconn. One more than the limit fits."
        look: ["`ss -ltnp`, and `nstat -az TcpExtListenOverflows TcpExtListenDrops`"]
        see: ["ListenOverflows", "ListenDrops", "TCP_FLAGS"];
    "CLOSING" "both sides closed at the same time; the peer has not acknowledged it"
        "The peer, or the path, has to act. Rare and short."
        see: ["FIN_WAIT1", "TIME_WAIT"];
    "NEW_SYN_RECV" "a half-open request at a listener"
        "The kernel's own name for what `ss` shows as SYN-RECV: the SYN-ACK is out, the last ACK has not come. It is no full \
         socket and has no process; it belongs to the listener."
        see: ["SYN_RECV"];
    "BOUND_INACTIVE" "bound to a port, neither listening nor connected"
        "Only sock_diag shows it (`ss --bound-inactive`), since 6.8. The process has to call listen() or connect(); until then \
         it keeps the port from others."
        see: ["CLOSE"];
};
