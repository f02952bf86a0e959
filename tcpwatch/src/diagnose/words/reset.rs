//! `enum sk_rst_reason`: what the kernel says of an RST that it sends.

use super::{Word, words};

pub const WORDS: &[Word] = words! {
    "NOT_SPECIFIED" "the kernel gives no reason"
        "The sender of the RST had a reason that has no name among the reset reasons, or none at all. What remains is the \
         place in the kernel (`site`) and the state of the socket."
        see: ["ERROR"];
    "NO_SOCKET" "a segment found neither a connection nor a listener"
        "The kernel looked the addresses and ports up and found nothing. The word is the same whether nothing was ever there, \
         or a connection was there until a moment ago and left without a trace. Only the second is a defect of this host. \
         Where a listener still holds the port, the same late segments draw TCP_FLAGS instead."
        look: [
            "`ss -ltnp` in the right network namespace: does anybody listen on this port and this address",
            "the flags of the segment: a SYN is a new connection, anything else belongs to an old one",
            "`nstat -az TcpExtTCPTimeWaitOverflow TcpExtTCPAbortOnTimeout`: connections that went without a trace",
        ]
        see: ["TCP_FLAGS", "TCPTimeWaitOverflow", "TIME_WAIT"];
    "TCP_INVALID_ACK_SEQUENCE" "the answer to a SYN acknowledges something else than the SYN"
        "This host waits in SYN_SENT, and the segment that came acknowledges what was never sent, or what an earlier \
         connection on the same ports sent. The connect() goes on; the RST is for the other side."
        look: [
            "the peer may still hold an old connection on this port pair: `ss -tan` there",
            "a firewall or load balancer that changes sequence numbers, or answers for a host that it thinks down",
        ]
        see: ["SYN_SENT"];
    "TCP_RFC7323_PAWS" "the answer to a SYN echoes a timestamp that was never sent"
        "This host waits in SYN_SENT, and the SYN-ACK echoes a timestamp from outside the time in which the SYN was sent. In \
         an established connection the same test makes a drop, never an RST."
        look: ["a middlebox that changes or replays TCP timestamps", "`nstat -az TcpExtPAWSActive`"]
        see: ["PAWSActive"];
    "TCP_TOO_OLD_ACK" "the end of a handshake acknowledges far too little"
        "A full socket in SYN_RECV (TCP fast open, or both sides connecting at once) met an ACK older than everything that it \
         sent."
        see: ["TCP_OLD_ACK", "SYN_RECV"];
    "TCP_ACK_UNSENT_DATA" "the end of a handshake acknowledges what was never sent"
        "A full socket in SYN_RECV (TCP fast open, both sides connecting at once, or a connection just accepted) met an ACK \
         beyond what it sent. In an established connection this draws a challenge ACK, never an RST."
        look: ["a middlebox that changes sequence numbers in one direction only"]
        see: ["SYN_RECV", "TCPChallengeACK"];
    "TCP_FLAGS" "a segment with ACK reached a listener and belongs to no handshake"
        "The flags are in order; the word misleads. A listener was found for the port but no connection and no half-open \
         request for the segment's addresses. So this is NO_SOCKET for a port that has a listener: on a server, every late \
         segment of a connection that left without a trace ends here."
        look: [
            "`nstat -az TcpExtTCPTimeWaitOverflow TcpExtTCPAbortOnTimeout TcpExtSyncookiesFailed`: which of them grows along",
            "not at the addresses in the tracepoint's record: they are the listener's, and its remote is 0.0.0.0:0",
        ]
        see: ["NO_SOCKET", "TCPTimeWaitOverflow", "SyncookiesFailed"];
    "TCP_OLD_ACK" "the end of a handshake acknowledges nothing new"
        "A full socket in SYN_RECV (TCP fast open, or both sides connecting at once) met an ACK that does not acknowledge its \
         SYN."
        see: ["TCP_TOO_OLD_ACK", "SYN_RECV"];
    "TCP_ABORT_ON_DATA" "the peer sent data that nobody will read any more"
        "The process closed the socket, or shut it down for reading, and the peer sent on: the data is lost, and the RST says \
         so. With the default tcp_fin_timeout a closed socket shrinks to a small one at once, and the reason is \
         TCP_TIMEWAIT_SOCKET instead. The kernel calls its tcp_reset() on the way, so tcp_receive_reset fires although no RST \
         came."
        look: ["who closes first, and whether the protocol allows it: the closer must read until end of file"]
        see: ["TCP_TIMEWAIT_SOCKET", "TCPAbortOnData", "FIN_WAIT2"];
    "TCP_TIMEWAIT_SOCKET" "data, or a SYN, met the rest of a socket that was closed"
        "The process closed and waits in FIN_WAIT2 without a socket of its own: the kernel keeps a small one. New data finds no \
         reader. Despite the name this is never TIME_WAIT proper, which does not answer with an RST."
        look: ["who closes first: the peer had more to say, or does not know that this side is done"]
        see: ["FIN_WAIT2", "TIME_WAIT", "TCP_ABORT_ON_DATA"];
    "INVALID_SYN" "a half-open connection was reset: a full accept queue, or another SYN"
        "The word misleads. The most frequent bearer is a perfectly good last ACK of a handshake for which the accept queue has \
         no room, on a host with net.ipv4.tcp_abort_on_overflow=1. The other is a second SYN in the middle of a handshake. \
         The flags of the segment tell them apart: ACK or SYN."
        look: [
            "`ss -ltn`: Recv-Q above Send-Q is a full accept queue",
            "`nstat -az TcpExtListenOverflows`",
            "`sysctl net.ipv4.tcp_abort_on_overflow`",
        ]
        see: ["ListenOverflows", "TCP_LISTEN_OVERFLOW", "EmbryonicRsts"];
    "TCP_ABORT_ON_CLOSE" "a process closed, or ended, with received data unread"
        "Bytes that the peer sent lay in the receive queue when the last descriptor was closed. They are lost, and the RST \
         tells the peer. Anything that it was still to read from this side may be lost, too."
        look: ["the process: does it stop reading in the middle of a request, or was it killed"]
        see: ["TCPAbortOnClose", "TCP_ABORT_ON_DATA"];
    "TCP_ABORT_ON_LINGER" "TCP_LINGER2 is negative: no waiting in FIN_WAIT2"
        "Not SO_LINGER, which carries TCP_STATE. The socket option TCP_LINGER2 was set below 0, which tells the kernel to reset \
         instead of waiting for the peer's FIN."
        see: ["TCP_STATE", "TCPAbortOnLinger"];
    "TCP_ABORT_ON_MEMORY" "an orphaned socket was given up for lack of memory, or of orphans"
        "A socket that its process had closed still had data to deliver. The kernel reset it, because there are more orphans \
         than net.ipv4.tcp_max_orphans allows, or because TCP uses more memory than net.ipv4.tcp_mem allows."
        look: [
            "/proc/net/sockstat: `orphan` and `mem`, against net.ipv4.tcp_max_orphans and the third figure of net.ipv4.tcp_mem",
            "`dmesg`: \"too many orphaned sockets\" or \"out of memory -- consider tuning tcp_mem\"",
        ]
        see: ["TCPAbortOnMemory", "FIN_WAIT1"];
    "TCP_STATE" "this host ended the connection on purpose: five acts, one word"
        "The kernel says only that the socket's state asked for an RST. Which act it was is in the deciding function and in the \
         socket's own fields, and tcpwatch reads both."
        look: [
            "`tcpwatch trace -k`: the stack names the act",
            "whether TCPAbortOnData grows along: then it is SO_LINGER 0, the only one of them with a counter",
        ]
        see: ["TCP_ABORT_ON_LINGER", "TCPAbortOnData"];
    "TCP_KEEPALIVE_TIMEOUT" "the peer did not answer keepalive probes"
        "SO_KEEPALIVE is on, the connection was idle, and the probes went unanswered. The process reads ETIMEDOUT. It is the \
         only timer that sends an RST: when retransmissions run out, the socket goes in silence."
        look: [
            "whether the peer is up, and whether a firewall between forgets idle connections sooner than TCP_KEEPIDLE",
        ]
        see: ["TCPAbortOnTimeout", "TCPKeepAlive"];
    "TCP_DISCONNECT_WITH_DATA" "a socket was dissolved with data that was not sent yet"
        "As TCP_STATE, but the socket was in CLOSING or LAST_ACK and had data that was not sent yet."
        see: ["TCP_STATE", "LAST_ACK", "CLOSING"];
    "MPTCP_RST_EUNSPEC" "MPTCP: no special reason (RFC 8684, code 0)"
        "The subflow is no longer available. The connection may live on over others."
        look: ["`ss -M`, `ip mptcp monitor`"];
    "MPTCP_RST_EMPTCP" "MPTCP: an error in its options (RFC 8684, code 1)"
        "A mapping of data was missing or broken, or a join was answered wrongly."
        look: ["a middlebox that strips or changes TCP options", "`nstat -az 'MPTcpExt*'`"]
        see: ["MPTCP_RST_EMIDDLEBOX"];
    "MPTCP_RST_ERESOURCE" "MPTCP: lack of resources (RFC 8684, code 2)"
        "The host that sent the RST cannot support one more subflow."
        look: ["`ip mptcp limits`"];
    "MPTCP_RST_EPROHIBIT" "MPTCP: forbidden by policy (RFC 8684, code 3)"
        "The host that sent the RST does not allow this subflow: a limit, or an endpoint that takes no joins."
        look: ["`ip mptcp limits`, `ip mptcp endpoint`"];
    "MPTCP_RST_EWQ2BIG" "MPTCP: too much data waits on the subflow (RFC 8684, code 4)"
        "Data that other subflows have delivered already waits to be sent here."
        look: ["the path of this subflow: it may have been down"];
    "MPTCP_RST_EBADPERF" "MPTCP: the subflow performs badly (RFC 8684, code 5)"
        "The subflow is much slower than the others, or lost too much."
        look: ["the path of this subflow: `ss -tin`"];
    "MPTCP_RST_EMIDDLEBOX" "MPTCP: a middlebox interferes (RFC 8684, code 6)"
        "Options were stripped or a checksum does not fit, so that the signalling of MPTCP cannot be trusted on this path."
        look: ["a firewall or proxy on the path that normalises TCP"]
        see: ["MPTCP_RST_EMPTCP"];
    "ERROR" "the kernel had an MPTCP reason that it cannot name"
        "A code beyond those of RFC 8684. It is an error in the kernel or in the peer."
        see: ["NOT_SPECIFIED"];
};
