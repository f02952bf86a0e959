//! Random filters over random flows: what was compiled against an evaluation that knows neither tests nor jumps.

use super::*;
use fastrand::Rng;

const FILTERS: usize = 5_000;
const FLOWS: usize = 24;

/// Few values, so that filters and flows meet.
const HOSTS: [&str; 7] =
    ["10.9.0.1", "10.9.0.2", "10.8.0.1", "192.168.1.7", "fd00::1", "fd00:0:0:1::2", "2001:db8::1"];
const NETS: [(&str, &str, u8); 8] = [
    ("10", "10.0.0.0", 8),
    ("10.9/16", "10.9.0.0", 16),
    ("192.168.0.0/23", "192.168.0.0", 23),
    ("10.9.0.2/31", "10.9.0.2", 31),
    ("0.0.0.0/0", "0.0.0.0", 0),
    ("fd00::/8", "fd00::", 8),
    ("fd00::/48", "fd00::", 48),
    ("::/0", "::", 0),
];
const PORTS: [u16; 6] = [22, 80, 443, 8080, 40000, 65535];
const RANGES: [(u16, u16); 4] = [(0, 65535), (80, 443), (8000, 9000), (22, 22)];

#[derive(Clone, Copy, Debug)]
enum Sides {
    Either,
    Local,
    Remote,
    Both,
}

/// What holds of one end, by text and by number.
#[derive(Clone, Copy, Debug)]
enum Value {
    Host(&'static str),
    Net(usize),
    Port(u16),
    Range(u16, u16),
}

#[derive(Clone, Debug)]
enum Random {
    Family(bool),
    Tcp,
    Value(Sides, Value),
    Not(Box<Random>),
    /// The first operand, and what is joined to it from the left: true for `and`.
    Chain(Box<Random>, Vec<(bool, Random)>),
}

fn ends(flow: &Flow) -> [(IpAddr, u16); 2] {
    [(flow.local.ip(), flow.local_port), (flow.remote.ip(), flow.remote_port)]
}

fn in_net(ip: IpAddr, network: IpAddr, length: u8) -> bool {
    let prefix = |bytes: &[u8]| {
        (0..length).map(|bit| bytes[usize::from(bit / 8)] >> (7 - bit % 8) & 1).collect::<Vec<_>>()
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => prefix(&ip.octets()) == prefix(&network.octets()),
        (IpAddr::V6(ip), IpAddr::V6(network)) => prefix(&ip.octets()) == prefix(&network.octets()),
        _ => false,
    }
}

impl Value {
    fn random(random: &mut Rng) -> Self {
        match random.u8(..4) {
            0 => Self::Host(HOSTS[random.usize(..HOSTS.len())]),
            1 => Self::Net(random.usize(..NETS.len())),
            2 => Self::Port(PORTS[random.usize(..PORTS.len())]),
            _ => {
                let (first, last) = RANGES[random.usize(..RANGES.len())];
                Self::Range(first, last)
            }
        }
    }

    fn holds(self, (ip, port): (IpAddr, u16)) -> bool {
        match self {
            Self::Host(host) => ip == host.parse::<IpAddr>().unwrap(),
            Self::Net(at) => in_net(ip, NETS[at].1.parse().unwrap(), NETS[at].2),
            Self::Port(wanted) => port == wanted,
            Self::Range(first, last) => (first..=last).contains(&port),
        }
    }

    fn words(self) -> (&'static str, String) {
        match self {
            Self::Host(host) => ("host", host.to_owned()),
            Self::Net(at) => ("net", NETS[at].0.to_owned()),
            Self::Port(port) => ("port", port.to_string()),
            Self::Range(first, last) => ("portrange", format!("{first}-{last}")),
        }
    }
}

impl Random {
    fn new(random: &mut Rng, depth: u8) -> Self {
        match random.u8(..if depth == 0 { 6 } else { 10 }) {
            0 => match random.u8(..3) {
                0 => Self::Tcp,
                one => Self::Family(one == 1),
            },
            1..6 => {
                let sides = [Sides::Either, Sides::Local, Sides::Remote, Sides::Both];
                Self::Value(sides[random.usize(..4)], Value::random(random))
            }
            6 => Self::Not(Box::new(Self::new(random, depth - 1))),
            _ => {
                let more = (0..random.u8(1..4)).map(|_| (random.bool(), Self::new(random, depth - 1)));
                let more = more.collect();
                Self::Chain(Box::new(Self::new(random, depth - 1)), more)
            }
        }
    }

    fn holds(&self, flow: &Flow) -> bool {
        let [local, remote] = ends(flow);
        match self {
            Self::Tcp => true,
            Self::Family(v4) => local.0.is_ipv4() == *v4,
            Self::Value(Sides::Either, value) => value.holds(local) || value.holds(remote),
            Self::Value(Sides::Both, value) => value.holds(local) && value.holds(remote),
            Self::Value(Sides::Local, value) => value.holds(local),
            Self::Value(Sides::Remote, value) => value.holds(remote),
            Self::Not(inner) => !inner.holds(flow),
            Self::Chain(first, more) => more.iter().fold(first.holds(flow), |so_far, (and, next)| {
                if *and { so_far && next.holds(flow) } else { so_far || next.holds(flow) }
            }),
        }
    }

    /// As somebody would type it; `last` are the qualifiers that a value alone would have.
    fn text(&self, random: &mut Rng, last: &mut String) -> String {
        let mut pick = |words: &[&str]| words[random.usize(..words.len())].to_owned();
        match self {
            Self::Tcp => {
                last.clear();
                "tcp".to_owned()
            }
            Self::Family(v4) => {
                last.clear();
                if *v4 { "ip" } else { "ip6" }.to_owned()
            }
            Self::Value(sides, value) => {
                let side = match sides {
                    Sides::Either => pick(&["", "", "src or dst ", "dst or src ", "remote or local "]),
                    Sides::Both => pick(&["src and dst ", "dst and src ", "local && remote "]),
                    Sides::Local => pick(&["src ", "local "]),
                    Sides::Remote => pick(&["dst ", "remote "]),
                };
                let (kind, text) = value.words();
                // What is meant, and not how it is spelt, is what a value takes over.
                let qualifiers = format!("{sides:?} {kind}");
                if *last == qualifiers && random.bool() {
                    return text;
                }
                *last = qualifiers;
                format!("{side}{kind} {text}")
            }
            Self::Not(inner) => {
                let not = pick(&["not ", "! ", "!"]);
                let inner_text = inner.text(random, last);
                if matches!(**inner, Self::Chain(..)) {
                    format!("{not}({inner_text})")
                } else {
                    format!("{not}{inner_text}")
                }
            }
            Self::Chain(first, more) => {
                let mut text = first.text(random, last);
                for (and, next) in more {
                    let words: &[&str] =
                        if *and { &[" and ", " && ", "&&"] } else { &[" or ", " || ", "||"] };
                    text += words[random.usize(..words.len())];
                    let next_text = next.text(random, last);
                    // Only the first of a chain may be a chain without parentheses: it is joined from the left.
                    text +=
                        &if matches!(next, Self::Chain(..)) { format!("({next_text})") } else { next_text };
                }
                text
            }
        }
    }
}

fn random_flow(random: &mut Rng) -> Flow {
    let v4 = random.bool();
    let mut end = || loop {
        let ip: IpAddr = HOSTS[random.usize(..HOSTS.len())].parse().unwrap();
        if ip.is_ipv4() == v4 {
            let port = if random.u8(..8) == 0 { random.u16(..) } else { PORTS[random.usize(..PORTS.len())] };
            return (Addr::from_ip(ip), port);
        }
    };
    let ((local, local_port), (remote, remote_port)) = (end(), end());
    Flow { local, remote, local_port, remote_port, netns: 1 }
}

#[test]
fn the_compiled_filter_holds_of_what_the_naive_one_holds_of() {
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let (mut judged, mut admitted, mut longest) = (0, 0, 0);
    for _ in 0..FILTERS {
        let tree = Random::new(&mut random, 4);
        let text = tree.text(&mut random, &mut String::new());
        let expression = match compile(&text) {
            Ok(expression) => expression,
            Err(wrong) if wrong.what.contains("too long") => continue,
            Err(wrong) if wrong.what.contains("lets nothing through") => {
                let flow = random_flow(&mut random);
                assert!(!tree.holds(&flow), "seed {seed}: {text} of {flow:?}");
                continue;
            }
            Err(wrong) => panic!("seed {seed}: {text}: {wrong}"),
        };
        longest = longest.max(expression.len());
        let filter = Filter { active: 1, expression, ..Filter::NONE };
        for _ in 0..FLOWS {
            let flow = random_flow(&mut random);
            let holds = tree.holds(&flow);
            assert_eq!(filter.admits_flow(&flow), holds, "seed {seed}: {text} of {flow:?}");
            judged += 1;
            admitted += usize::from(holds);
        }
    }
    // Enough of both, or it proved nothing.
    assert!(judged > FILTERS * FLOWS / 2, "seed {seed}: {judged} judged");
    assert!((judged / 4..judged * 3 / 4).contains(&admitted), "seed {seed}: {admitted} of {judged} admitted");
    assert!(longest > TYPED / 2, "seed {seed}: the longest took {longest} tests");
}
