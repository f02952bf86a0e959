//! What is said between a scenario and its actors: one JSON object each way for every act.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One act. Sockets are descriptor numbers of the actor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Op {
    Socket {
        v6: bool,
        mptcp: bool,
    },
    SetInt {
        fd: i32,
        level: i32,
        name: i32,
        value: i32,
    },
    Linger {
        fd: i32,
        seconds: i32,
    },
    Bind {
        fd: i32,
        addr: SocketAddr,
    },
    Listen {
        fd: i32,
        backlog: i32,
    },
    /// With `wait` the answer comes when the handshake ended, else as soon as the SYN is out.
    Connect {
        fd: i32,
        addr: SocketAddr,
        wait: bool,
    },
    Accept {
        fd: i32,
        millis: u64,
    },
    Send {
        fd: i32,
        len: usize,
    },
    Recv {
        fd: i32,
        len: usize,
    },
    Shutdown {
        fd: i32,
        how: i32,
    },
    Close {
        fd: i32,
    },
    /// `connect()` to nobody.
    Disconnect {
        fd: i32,
    },
    Names {
        fd: i32,
    },
    Unread {
        fd: i32,
    },
    AcceptQueue {
        fd: i32,
    },
    /// Waits until the socket has an error or is at its end, and gives the error.
    Error {
        fd: i32,
    },
    /// The channel of the child comes along with the message.
    Fork {
        comm: String,
    },
    /// Another name, as a server takes that renames its workers.
    Rename {
        comm: String,
    },
    Inbox {
        name: String,
    },
    PostFd {
        fd: i32,
        inbox: String,
    },
    TakeFd {
        inbox: i32,
    },
}

/// What came of it. `errno` is 0 when the act succeeded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    pub errno: i32,
    pub value: i64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
}

/// No message is longer than this.
pub const MESSAGE: usize = 4096;
