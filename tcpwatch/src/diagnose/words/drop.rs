//! `enum skb_drop_reason`: what the kernel says of a segment that it throws away. Those that TCP gives stand first, then
//! those that a TCP segment can meet on its way through the host.

use super::{Word, words};

pub const WORDS: &[Word] = words! {
    "NOT_SPECIFIED" "the kernel gives no reason"
        "The place that dropped the segment does not say why. On kernels before 6.16 a last ACK that a full accept queue \
         refused comes like this, and on every kernel an RST that ended a half-open request or a TIME_WAIT."
        look: ["the function that dropped it (`location` in the tracepoint)"]
        see: ["TCP_LISTEN_OVERFLOW"];
    "NO_SOCKET" "neither a connection nor a listener for the segment"
        "Unless the segment was an RST itself, an RST with the reset reason of the same name answers it. A SYN cookie's ACK \
         that finds the accept queue full is also dropped under this name."
        look: ["the page of the reset reason: what may have been there before"]
        see: ["TCP_CLOSE"];
    "SOCKET_CLOSE" "what waited in a socket when it was closed"
        "Mostly not TCP: packet sockets and the like free their queues under this name."
        see: ["QUEUE_PURGE"];
    "SOCKET_FILTER" "a BPF filter on the socket, or on its cgroup, refused the segment"
        "SO_ATTACH_FILTER on the socket, or a cgroup program for incoming traffic. The peer learns nothing and sends again."
        look: ["`bpftool cgroup tree`; `ss -0 --bpf` for packet sockets; the process's own SO_ATTACH_FILTER"]
        see: ["BPF_CGROUP_EGRESS", "SECURITY_HOOK"];
    "SOCKET_RCVBUFF" "the receive buffer is full"
        "Mostly UDP and packet sockets. TCP says TCP_ZEROWINDOW, PROTO_MEM or TCP_OFO_QUEUE_PRUNE."
        look: ["`ss -nm`: Recv-Q and skmem"]
        see: ["PROTO_MEM", "SOCKET_BACKLOG"];
    "PROTO_MEM" "TCP has used up its memory (net.ipv4.tcp_mem)"
        "The segment was in order, and there was no memory to keep it. The peer sends it again."
        look: ["/proc/net/sockstat: `mem` against the three figures of `sysctl net.ipv4.tcp_mem`, in pages", "`ss -tnm`: who holds it"]
        see: ["TCPMemoryPressures", "TCPAbortOnMemory", "TCPRcvQDrop"];
    "SOCKET_BACKLOG" "the socket is locked and its backlog is full"
        "While a process works on a socket, segments wait in its backlog. It is bounded by the receive and send buffers, and \
         was full. A process that holds the socket long, or a burst."
        look: ["`nstat -az TcpExtTCPBacklogDrop`", "`net.ipv4.tcp_rmem`, SO_RCVBUF; whether the host lacks CPU time"]
        see: ["TCPBacklogDrop"];
    "TCP_CSUM" "the TCP checksum is wrong"
        "The segment was damaged on the way, or an offload of a network card or a virtual switch left the checksum for later \
         and nobody did it."
        look: ["`nstat -az TcpInCsumErrors`", "`ethtool -k`: turn checksum offload off to find out; `ethtool -S` for the link"]
        see: ["InCsumErrors"];
    "TCP_AUTH_HDR" "the MD5 or AO option is malformed, or there are both"
        "The segment is dropped and no RST answers it."
        see: ["TCP_MD5FAILURE", "TCP_AOFAILURE"];
    "TCP_MD5NOTFOUND" "this socket expects an MD5 signature, and the segment has none"
        "Typical for BGP: a key is set for this peer here and not there. No RST answers it."
        look: ["the keys on both sides: `ss -ti` shows md5 keys to root", "`nstat -az TcpExtTCPMD5NotFound`"]
        see: ["TCP_MD5UNEXPECTED", "TCP_MD5FAILURE"];
    "TCP_MD5UNEXPECTED" "the segment has an MD5 signature, and this socket expects none"
        "A key is set for this host at the peer and not here. No RST answers it."
        look: ["the keys on both sides: `ss -ti` shows md5 keys to root", "`nstat -az TcpExtTCPMD5Unexpected`"]
        see: ["TCP_MD5NOTFOUND"];
    "TCP_MD5FAILURE" "the MD5 signature is wrong"
        "The keys differ, or the segment was changed on the way: NAT breaks the signature. No RST answers it."
        look: ["the keys on both sides, and what rewrites addresses between them", "`nstat -az TcpExtTCPMD5Failure`"]
        see: ["TCP_MD5NOTFOUND"];
    "TCP_AONOTFOUND" "this socket expects TCP-AO, and the segment has none"
        "A key is set for this peer here and not there. No RST answers it."
        look: ["`nstat -az TcpExtTCPAORequired`"]
        see: ["TCP_AOKEYNOTFOUND", "TCP_AOFAILURE"];
    "TCP_AOUNEXPECTED" "the segment has TCP-AO, and this socket expects none"
        "A key is set for this host at the peer and not here. No RST answers it."
        look: ["`nstat -az TcpExtTCPAOKeyNotFound`"]
        see: ["TCP_AONOTFOUND"];
    "TCP_AOKEYNOTFOUND" "the segment names a TCP-AO key that is not set here"
        "The key ids of both sides differ, often in the middle of a key change. No RST answers it."
        look: ["`nstat -az TcpExtTCPAOKeyNotFound`"]
        see: ["TCP_AOFAILURE"];
    "TCP_AOFAILURE" "the TCP-AO code of the segment is wrong"
        "The keys differ, or the segment was changed on the way. No RST answers it."
        look: ["`nstat -az TcpExtTCPAOBad`"]
        see: ["TCP_AOKEYNOTFOUND"];
    "TCP_FLAGS" "flags that fit no socket: mostly an ACK that reached a listener"
        "At a listener it mostly means an ACK that belongs to no handshake, and the reset reason of the same name answers it; \
         SYN with FIN is dropped without an answer. In a connection it is a segment without ACK, RST and SYN."
        see: ["NO_SOCKET", "LISTEN"];
    "TCP_ABORT_ON_DATA" "data for a socket that nobody reads any more"
        "The process closed the socket, or shut it for reading. An RST goes back."
        see: ["FIN_WAIT2", "TCPAbortOnData"];
    "TCP_ZEROWINDOW" "data came although the window is closed"
        "The process does not read, the receive buffer is full and the peer was told so. This is a window probe, or a peer \
         that does not care. Nothing is lost: it is sent again."
        look: ["`ss -tnp`: Recv-Q of the process that does not read", "`nstat -az TcpExtTCPZeroWindowDrop`"]
        see: ["TCPZeroWindowDrop", "TCPToZeroWindowAdv"];
    "TCP_OLD_DATA" "data that was received before"
        "A retransmission that was not needed: an ACK was lost or late. Harmless unless there is a lot of it."
        look: ["`ss -ti` at the sender: spurious retransmissions, dsack"]
        see: ["TCP_OFOMERGE", "TCP_OLD_SEQUENCE"];
    "TCP_OVERWINDOW" "data beyond the end of the window"
        "The peer sent more than it was allowed, or the segment is forged or very old."
        look: ["a middlebox that changes sequence numbers or strips the window scale option"]
        see: ["TCP_INVALID_SEQUENCE"];
    "TCP_OFOMERGE" "data that already waits in the out-of-order queue"
        "A retransmission that was not needed. Harmless."
        see: ["TCP_OLD_DATA"];
    "TCP_RFC7323_PAWS" "its timestamp is older than the last one: an old duplicate"
        "The test against wrapped sequence numbers. A few come with reordering. Many come when clients behind one NAT address \
         share a port pair, or a host restarted its timestamps."
        look: ["`nstat -az TcpExtPAWSEstab`", "whether the peers are behind NAT or a load balancer"]
        see: ["PAWSEstab", "TCP_RFC7323_PAWS_ACK", "TCP_RFC7323_TW_PAWS"];
    "TCP_RFC7323_PAWS_ACK" "an old ACK without data, overtaken by a newer one"
        "Reordering on the path. Harmless."
        look: ["`nstat -az TcpExtPAWSOldAck`"]
        see: ["TCP_RFC7323_PAWS"];
    "TCP_RFC7323_TW_PAWS" "a segment for a socket in TIME_WAIT with an older timestamp"
        "An old duplicate, or a new SYN on the same ports whose timestamp is not newer: then the client cannot connect until \
         TIME_WAIT ends."
        look: ["`nstat -az TcpExtPAWSTimewait`", "clients behind one NAT address that reuse its ports"]
        see: ["TIME_WAIT"];
    "TCP_RFC7323_TSECR" "the last ACK of a handshake echoes a timestamp that was never sent"
        "It fits a half-open request by its numbers but not by its timestamp. The request waits on."
        look: ["`nstat -az TcpExtTSEcrRejected`", "a middlebox that rewrites timestamps, or forged ACKs"]
        see: ["SYN_RECV"];
    "TCP_LISTEN_OVERFLOW" "a last ACK got no socket: mostly a full accept queue"
        "The client believes itself connected, this host dropped its ACK. It comes again with the data or the next SYN-ACK. \
         With net.ipv4.tcp_abort_on_overflow=1 an RST with the reason INVALID_SYN follows. A lack of memory or of a route, or \
         an LSM, carries the same name although no queue is full."
        look: ["`ss -ltn`: Recv-Q above Send-Q", "`nstat -az TcpExtListenOverflows TcpExtListenDrops`: both grow, or only the second"]
        see: ["ListenOverflows", "INVALID_SYN"];
    "TCP_OLD_SEQUENCE" "a segment from before the window: a duplicate"
        "It was received before, or belongs to an earlier connection. An ACK goes back. Harmless unless there is a lot of it."
        see: ["TCP_OLD_DATA", "TCP_INVALID_SEQUENCE"];
    "TCP_INVALID_SEQUENCE" "a segment from outside the window"
        "Sequence numbers that this connection does not expect. An RST that comes like this is not obeyed."
        look: ["forged segments, an earlier connection on the same ports, a middlebox that changes sequence numbers"]
        see: ["TCP_INVALID_END_SEQUENCE", "TCP_RESET"];
    "TCP_INVALID_END_SEQUENCE" "a segment that ends beyond the window"
        "As TCP_INVALID_SEQUENCE, told apart since 6.17: it begins inside and ends outside."
        see: ["TCP_INVALID_SEQUENCE", "BeyondWindow"];
    "TCP_INVALID_ACK_SEQUENCE" "in SYN_SENT: it acknowledges something else than the SYN"
        "An RST answers it, unless it is one itself: then it is not obeyed."
        see: ["SYN_SENT"];
    "TCP_RESET" "an RST that is not obeyed"
        "Inside the window but not at the exact number: a challenge ACK goes back (RFC 5961), and a genuine peer resets again, \
         exactly. Also an RST to a listener, and one in SYN_SENT without ACK."
        look: ["`nstat -az TcpExtTCPChallengeACK`; in number they are forged"]
        see: ["TCPChallengeACK", "TCP_INVALID_SEQUENCE"];
    "TCP_INVALID_SYN" "a SYN in the middle of a connection"
        "A challenge ACK goes back. If the client lost its state and connects again from the same port, the ACK makes it reset \
         the old connection, and its next try works."
        look: ["`nstat -az TcpExtTCPSYNChallenge`", "clients that restarted, or several behind one NAT address"]
        see: ["TCPSYNChallenge", "ESTABLISHED"];
    "TCP_CLOSE" "the socket was closed while the segment was on its way to it"
        "The socket is in CLOSE. A race at the end of a connection; harmless."
        see: ["NO_SOCKET"];
    "TCP_FASTOPEN" "dropped by a socket of TCP fast open before its handshake is done"
        "What came was no valid end of the handshake."
        see: ["SYN_RECV", "TCPFastOpenPassiveFail"];
    "TCP_OLD_ACK" "an ACK that acknowledges nothing new, too old to be used"
        "Reordering, mostly. Harmless in a connection; in SYN_RECV an RST answers it."
        see: ["TCP_TOO_OLD_ACK"];
    "TCP_TOO_OLD_ACK" "an ACK from so far back that it may be forged"
        "More than a window behind what is acknowledged already. A challenge ACK goes back."
        see: ["TCPChallengeACK"];
    "TCP_ACK_UNSENT_DATA" "an ACK for what was never sent"
        "The peer believes in other numbers than this side: a forged segment, a middlebox, or state that was lost. A challenge \
         ACK goes back; only in SYN_RECV an RST does."
        look: ["`nstat -az TcpExtTCPChallengeACK`", "a middlebox that changes sequence numbers in one direction"]
        see: ["TCPChallengeACK"];
    "TCP_OFO_QUEUE_PRUNE" "out-of-order data thrown away, because the receive buffer is full"
        "A loss on the path made later data wait, and the buffer cannot hold it. The peer sends it again."
        look: ["`nstat -az TcpExtOfoPruned TcpExtRcvPruned`", "`net.ipv4.tcp_rmem`; whether the process reads"]
        see: ["OfoPruned", "PROTO_MEM"];
    "TCP_OFO_DROP" "out-of-order data that found no room"
        "As TCP_OFO_QUEUE_PRUNE, for the segment that just came."
        look: ["`nstat -az TcpExtTCPOFODrop`", "`net.ipv4.tcp_rmem`"]
        see: ["TCP_OFO_QUEUE_PRUNE"];
    "TCP_MINTTL" "its TTL is below what the socket demands (IP_MINTTL)"
        "A guard that BGP uses: the peer must be near."
        look: ["`nstat -az TcpExtTCPMinTTLDrop`", "how far away the peer is, and its own TTL"]
        see: ["TCPMinTTLDrop"];
    "QUEUE_PURGE" "what waited in a queue when the queue was emptied"
        "The end of a socket, mostly: unread and unsent data goes like this at close(). Not an error by itself, and frequent."
        see: ["TCP_ABORT_ON_CLOSE"];
    "PFMEMALLOC" "the segment was received with memory reserved for swapping"
        "The host is out of memory to the point that only sockets which help to free it may receive."
        look: ["`nstat -az TcpExtPFMemallocDrop`, `dmesg`, /proc/pressure/memory"]
        see: ["PFMemallocDrop", "NOMEM"];
    "PSP_INPUT" "the segment does not meet the socket's PSP encryption"
        "The socket demands PSP, and the segment came without, or with another key."
        see: ["PSP_OUTPUT", "XFRM_POLICY"];
    "PSP_OUTPUT" "the segment could not leave with the socket's PSP encryption"
        "The device through which it was to leave does not do PSP for this socket."
        see: ["PSP_INPUT"];
    "XFRM_POLICY" "an IPsec policy demands otherwise"
        "The segment came in the clear and must be encrypted, or with another transformation."
        look: ["`ip xfrm policy`, `ip xfrm state`, /proc/net/xfrm_stat"]
        see: ["PSP_INPUT"];
    "SECURITY_HOOK" "a security module refused it"
        "SELinux, AppArmor, Smack or a BPF LSM."
        look: ["`ausearch -m avc -ts recent`, `dmesg`, `bpftool prog show`"]
        see: ["SOCKET_FILTER"];

    "NETFILTER_DROP" "a firewall rule of this host dropped it"
        "A rule of nftables or iptables, a verdict of connection tracking, or a queue to user space that nobody reads. The peer runs \
         into a timeout; a rule that rejects instead sends an RST without any reason."
        look: ["`nft list ruleset`, `iptables-save -c`; `nft monitor trace` after `meta nftrace set 1`", "`conntrack -S`: insert_failed, drop; `dmesg`: \"table full\""]
        see: ["firewall-reject"];
    "IP_RPFILTER" "its source address does not belong to the interface that it came in by"
        "The test rp_filter found no way back through that interface: routing is asymmetric, or the address is forged."
        look: ["`sysctl -a | grep rp_filter`, `ip route get <source>`; 2 instead of 1 allows asymmetric routes"]
        see: ["IPReversePathFilter", "listen-refused"];
    "IP_OUTNOROUTES" "no route for a segment that was to leave"
        "The route vanished while the connection lived."
        look: ["`ip route get <remote>`, `ip monitor route`"]
        see: ["IP_INNOROUTES"];
    "IP_INNOROUTES" "no route for a segment that came in"
        "It is not for this host, and there is no way to forward it."
        look: ["`ip route get <destination> from <source> iif <interface>`"]
        see: ["IP_OUTNOROUTES", "IP_INADDRERRORS"];
    "IP_INADDRERRORS" "its addresses are not acceptable"
        "A destination that is unreachable or not allowed here."
        look: ["`nstat -az IpInAddrErrors`, `ip route`"]
        see: ["IP_INNOROUTES"];
    "IP_CSUM" "the checksum of the IP header is wrong"
        "Damaged on the way."
        look: ["`ethtool -S`, the cable and the switch port"]
        see: ["TCP_CSUM"];
    "IP_INHDR" "the IP header is broken"
        "A wrong version, length or hop limit."
        look: ["`nstat -az IpInHdrErrors`"];
    "IP_NOPROTO" "no protocol in this kernel for the packet"
        "Not TCP, by its IP header."
        see: ["UNHANDLED_PROTO"];
    "IP_INVALID_SOURCE" "the source address cannot be one"
        "Multicast, broadcast or zero as the source."
        look: ["a host on the same segment that is misconfigured"]
        see: ["IP_LOCAL_SOURCE"];
    "IP_INVALID_DEST" "the destination address cannot be one"
        "Zero, or a class that is not routed."
        see: ["IP_INVALID_SOURCE"];
    "IP_LOCAL_SOURCE" "it came from outside with an address of this host as its source"
        "Forged, a loop in the network, or two hosts with one address."
        look: ["`ip addr`; `sysctl net.ipv4.conf.all.accept_local`"]
        see: ["IP_RPFILTER"];
    "IP_LOCALNET" "a loopback address came from outside"
        "127.0.0.0/8 on another interface than lo."
        look: ["`sysctl net.ipv4.conf.all.route_localnet`"]
        see: ["IP_LOCAL_SOURCE"];
    "OTHERHOST" "not for this host by its MAC address"
        "The interface takes everything (promiscuous mode: a capture, a bridge). Harmless."
        see: ["UNICAST_IN_L2_MULTICAST"];
    "UNICAST_IN_L2_MULTICAST" "a unicast segment in a multicast or broadcast frame"
        "Somebody between does not know the MAC address of this host."
        see: ["OTHERHOST"];
    "PKT_TOO_SMALL" "shorter than its headers"
        "Cut off or forged."
        see: ["HDR_TRUNC"];
    "PKT_TOO_BIG" "larger than the link takes (MTU)"
        "Path MTU discovery must hear of it: ICMP that a firewall drops makes connections hang after the handshake."
        look: ["`ip link` for MTUs, `tracepath`, `sysctl net.ipv4.tcp_mtu_probing`"];
    "HDR_TRUNC" "the headers could not be read"
        "Cut off, or laid out by a driver in a way that this path cannot take."
        see: ["PKT_TOO_SMALL", "DEV_HDR"];
    "NOMEM" "no memory"
        "An allocation failed on the way of the packet."
        look: ["`dmesg` for failed allocations, `cat /proc/buddyinfo`, /proc/pressure/memory"]
        see: ["PROTO_MEM", "PFMEMALLOC"];
    "CPU_BACKLOG" "the queue between the driver and the stack is full"
        "The CPU that receives cannot keep up, or a flow exceeds the RPS limit."
        look: ["/proc/net/softnet_stat: second column; `sysctl net.core.netdev_max_backlog`", "whether one CPU does all the receiving: /proc/interrupts"]
        see: ["FULL_RING"];
    "QDISC_DROP" "the queue of the outgoing interface is full, or shapes"
        "More was sent than the link or its limit takes. TCP slows down and sends again."
        look: ["`tc -s qdisc`: dropped, overlimits", "the limits of the cloud provider or the container runtime"]
        see: ["TC_EGRESS"];
    "TC_INGRESS" "a tc program or filter dropped it on its way in"
        "Often the network plugin of a container platform, by its policy."
        look: ["`tc filter show dev <interface> ingress`, `bpftool net`"]
        see: ["XDP", "TC_EGRESS"];
    "TC_EGRESS" "a tc program or filter dropped it on its way out"
        "Often the network plugin of a container platform, by its policy."
        look: ["`tc filter show dev <interface> egress`, `bpftool net`"]
        see: ["TC_INGRESS", "QDISC_DROP"];
    "XDP" "an XDP program dropped it"
        "Before the stack saw it: a load balancer, or protection against floods."
        look: ["`ip link` shows xdp, `bpftool net`"]
        see: ["TC_INGRESS"];
    "BPF_CGROUP_EGRESS" "a BPF program on the cgroup refused to let it out"
        "The firewall of systemd (IPAddressDeny=), or of a container platform."
        look: ["`bpftool cgroup tree`, `systemctl show -p IPAddressDeny <unit>`"]
        see: ["SOCKET_FILTER"];
    "IPV6DISABLED" "IPv6 is disabled on the interface"
        "It came over IPv6 to an interface that does none."
        look: ["`sysctl -a | grep disable_ipv6`"];
    "NEIGH_FAILED" "the next hop does not answer ARP or neighbour discovery"
        "The segment waited for the MAC address, and it never came."
        look: ["`ip neigh`: FAILED, INCOMPLETE", "whether the next hop is up, and in this VLAN"]
        see: ["NEIGH_QUEUEFULL"];
    "NEIGH_QUEUEFULL" "too many packets wait for the MAC address of the next hop"
        "The next hop is slow to answer, or down."
        look: ["`ip neigh`; `sysctl net.ipv4.neigh.default.unres_qlen_bytes`"]
        see: ["NEIGH_FAILED"];
    "NEIGH_CREATEFAIL" "no entry could be made for the next hop"
        "The neighbour table is full: a large flat network, or a scan."
        look: ["`dmesg`: \"neighbour table overflow\"; `sysctl net.ipv4.neigh.default.gc_thresh3`; `ip neigh | wc -l`"]
        see: ["NEIGH_FAILED"];
    "NEIGH_DEAD" "the entry of the next hop was being removed"
        "A race. Harmless unless there is a lot of it."
        see: ["NEIGH_FAILED"];
    "NEIGH_HH_FILLFAIL" "the link header of the next hop could not be written"
        "The entry of the next hop is broken, or its interface is going away."
        look: ["`ip neigh`, `ip link`"]
        see: ["NEIGH_DEAD"];
    "FULL_RING" "the ring of a network device is full"
        "Who reads it cannot keep up: for a tun or tap device a VPN, or a virtual machine."
        look: ["`ip -s link`: dropped; the process or guest behind the device"]
        see: ["CPU_BACKLOG"];
    "DEV_HDR" "a header that the driver needs is broken"
        "The offload header of a virtual device does not fit the packet."
        see: ["SKB_GSO_SEG", "HDR_TRUNC"];
    "DEV_READY" "the device is not up"
        "It is being set up or taken down."
        look: ["`ip -d link`"];
    "SKB_CSUM" "the checksum of a packet could not be computed"
        "A packet that was to leave is laid out wrongly."
        see: ["TCP_CSUM", "SKB_GSO_SEG"];
    "SKB_GSO_SEG" "a large packet could not be cut into segments"
        "Its offload description is wrong: a tunnel, or a virtual device."
        look: ["`ethtool -k`: turn segmentation offload off to find out"]
        see: ["SKB_BAD_GSO"];
    "SKB_BAD_GSO" "the offload description of a large packet is wrong"
        "It came from a virtual device or a packet socket with sizes that cannot be."
        see: ["SKB_GSO_SEG"];
    "SKB_UCOPY_FAULT" "data could not be copied from or to user space"
        "The process gave a bad address, or its memory went away (MSG_ZEROCOPY, tun)."
        see: ["NOMEM"];
    "UNHANDLED_PROTO" "nothing in this kernel handles the protocol of the packet"
        "Not TCP."
        see: ["IP_NOPROTO"];
    "RECURSION_LIMIT" "devices are stacked too deep, or in a loop"
        "A packet that goes from tunnel to tunnel is dropped in the end."
        look: ["`ip -d link`: a tunnel that routes through itself"];
    "DUP_FRAG" "a fragment that was there already"
        "TCP does not fragment by itself: a tunnel does, or a router on the path."
        see: ["FRAG_REASM_TIMEOUT"];
    "FRAG_REASM_TIMEOUT" "not all fragments of a packet came"
        "One was lost, or a firewall lets only the first one through."
        look: ["`nstat -az IpReasmFails`, the MTU of tunnels"]
        see: ["FRAG_TOO_FAR"];
    "FRAG_TOO_FAR" "fragments of too many packets of one sender are mixed"
        "Reordering or loss of fragments (net.ipv4.ipfrag_max_dist)."
        see: ["FRAG_REASM_TIMEOUT"];
    "NOT_DROPPED_YET" also: ["SKB_NOT_DROPPED_YET"] "no drop: the value before anything was decided"
        "No tracepoint shows it for a dropped packet."
        see: ["CONSUMED"];
    "CONSUMED" also: ["SKB_CONSUMED"] "no drop: the packet was used up in the normal way"
        "A SYN that a listener turns away is freed like this, too: no drop reason ever tells of it, only the counters do."
        see: ["ListenDrops"];
};
