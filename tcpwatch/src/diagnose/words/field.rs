//! Values of fields of tcpwatch's own events that a reader may stumble over: `event` and `owner.how`.

use super::{Word, words};

pub const EVENTS: &[Word] = words! {
    "rst_sent" also: ["RST-OUT"] "this host sent an RST"
        "On its own decision, in answer to a segment, or by its firewall. `local` is the sender."
        see: ["OutRsts"];
    "rst_received" also: ["RST-IN"] "an RST arrived, obeyed or not"
        "What became of the connection is in the cause. Why the peer sent it is known at the peer only."
        see: ["EstabResets"];
    "listen_drop" also: ["LISTEN"] "a listener turned a connection away"
        "A SYN or a last ACK, and `listen` has the queue, its length and its limit. A SYN cookie sent is shown here, too: it is \
         the sign of a full queue."
        see: ["ListenDrops"];
    "tw_overflow" also: ["TW-FULL"] "a socket was refused its TIME_WAIT slot"
        "The moment itself. The RSTs that late segments draw because of it follow as `rst_sent` with the same cause."
        see: ["TCPTimeWaitOverflow"];
    "close_wait_leak" also: ["CW-LEAK"] "a process holds a socket that the peer closed long ago"
        "It stands for all such sockets of a process; `local` and `remote` are the oldest one's."
        see: ["CLOSE_WAIT"];
    "drop" "the kernel threw a TCP segment away"
        "`reason` is the kernel's drop reason, since 5.17. There is no cause: the reason's page tells where to look."
        see: ["TCP_LISTEN_OVERFLOW"];
    "state" "a socket changed its state"
        "From `old_state` to `new_state`, after `for_us` in the old one."
        see: ["ESTABLISHED"];
    "retransmit" also: ["RETRANS"] "a segment was sent again"
        "There is no cause: that lies on the path, or at the peer."
        see: ["RetransSegs"];
};

pub const OWNERS: &[Word] = words! {
    "connect" "it called connect()"
        "Seen by tcpwatch.";
    "accept" "it called accept()"
        "Seen by tcpwatch.";
    "listen" "it called listen()"
        "Seen by tcpwatch; the socket is a listener.";
    "listener" "it owns the listener in whose queue the socket waits"
        "Inherited: nobody has accepted the connection yet. In text the pid has a `?`.";
    "io" "it used or closed the socket, and somebody else had made it"
        "A worker that got the descriptor by fork() or over a Unix socket, or one that tcpwatch had not seen before.";
    "proc" "it held the socket when tcpwatch started"
        "Found in /proc/<pid>/fd.";
    "dead" "it had the socket until it was closed"
        "In text the pid has a `*`.";
};
