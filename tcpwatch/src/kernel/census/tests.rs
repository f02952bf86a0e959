//! A kernel of a few pages: its symbols, its bytes, and what the census makes of it.

use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_ffff_8200_0000;
const MODULE: u64 = 0xffff_ffff_c000_0000;

/// A kernel in the making.
struct Kernel {
    symbols: String,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Memory for Kernel {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        for (start, part) in &self.parts {
            for (at, byte) in part.iter().enumerate() {
                let place =
                    (start + at as u64).checked_sub(address).and_then(|place| usize::try_from(place).ok());
                if let Some(place) = place.and_then(|place| bytes.get_mut(place)) {
                    *place = *byte;
                }
            }
        }
        Ok(())
    }
}

impl Kernel {
    /// Every target that must be there, each with one known caller; all functions are 0x100 bytes apart.
    fn sound() -> Self {
        let mut kernel = Self { symbols: String::new(), parts: vec![(TEXT, vec![0xcc; 0x3000])] };
        for (name, address) in [
            ("_stext", TEXT),
            ("_etext", TEXT + 0x3000),
            ("__start_rodata", DATA),
            ("__end_rodata", DATA + 0x1000),
            ("_sdata", DATA + 0x1000),
            ("_edata", DATA + 0x2000),
        ] {
            kernel.symbol(address, 'T', name, "");
        }
        let calls = [
            ("tcp_v4_rcv", "tcp_v4_send_reset"),
            ("__tcp_close", "tcp_send_active_reset"),
            ("tcp_v4_send_ack", "ip_send_unicast_reply"),
            ("tcp_validate_incoming", "tcp_reset"),
            ("tcp_fin", "tcp_time_wait"),
            ("dccp_time_wait", "inet_twsk_alloc"),
        ];
        for (at, (caller, target)) in calls.into_iter().enumerate() {
            let place = TEXT + 0x200 * (at as u64 + 1);
            kernel.symbol(place, 't', target, "");
            kernel.function(place + 0x100, caller, "", target);
        }
        kernel
    }

    fn symbol(&mut self, address: u64, kind: char, name: &str, module: &str) {
        let module = if module.is_empty() { String::new() } else { format!("\t[{module}]") };
        self.symbols += &format!("{address:016x} {kind} {name}{module}\n");
    }

    fn address(&self, name: &str) -> u64 {
        let line = self.symbols.lines().find(|line| line.split_ascii_whitespace().nth(2) == Some(name));
        u64::from_str_radix(&line.unwrap()[..16], 16).unwrap()
    }

    /// A function of one call.
    fn function(&mut self, address: u64, name: &str, module: &str, callee: &str) {
        self.symbol(address, 't', name, module);
        let distance = self.address(callee).wrapping_sub(address + 5) as u32;
        self.parts.push((address, [&[0xe8][..], &distance.to_le_bytes()].concat()));
    }

    fn census(&self) -> Census {
        count(&Map::parse(&self.symbols), self).unwrap()
    }
}

fn callers(census: &Census, target: &str) -> Vec<(String, usize, bool)> {
    let row = census.rows.iter().find(|row| row.target.name == target).unwrap();
    row.callers.iter().map(|caller| (caller.full_name(), caller.places, caller.known.is_some())).collect()
}

#[test]
fn a_kernel_of_known_callers_is_complete() {
    let census = Kernel::sound().census();
    assert_eq!(census.problems, Vec::<String>::new());
    assert!(census.is_complete());
    assert_eq!(callers(&census, "tcp_v4_send_reset"), [("tcp_v4_rcv".to_owned(), 1, true)]);
    assert_eq!(callers(&census, "nf_send_reset"), []);
    assert_eq!(census.searched, Searched { text_bytes: 0x3000, module_bytes: 0, data_bytes: 0x2000 });
}

#[test]
fn an_unknown_caller_is_named_with_its_module() {
    let mut kernel = Kernel::sound();
    kernel.function(MODULE, "toe_abort", "toe", "tcp_send_active_reset");
    kernel.function(TEXT + 0x2000, "tcp_new_idea", "", "tcp_v4_send_reset");
    let census = kernel.census();
    let said = "toe_abort [toe] calls tcp_send_active_reset, and the catalogue does not know it";
    assert!(census.problems.iter().any(|problem| problem == said), "{:?}", census.problems);
    assert_eq!(census.problems.len(), 2);
    assert!(callers(&census, "tcp_v4_send_reset").contains(&("tcp_new_idea".to_owned(), 1, false)));
}

#[test]
fn clones_and_halves_count_for_their_function() {
    let mut kernel = Kernel::sound();
    kernel.function(TEXT + 0x2000, "tcp_v4_rcv.cold", "", "tcp_v4_send_reset");
    kernel.symbol(TEXT + 0x2100, 't', "tcp_reset.part.0", "");
    kernel.function(TEXT + 0x2200, "tcp_rcv_state_process.constprop.0", "", "tcp_reset.part.0");
    // A half is entered from its own function, and a function may begin anew.
    kernel.function(TEXT + 0x2300, "tcp_v4_send_reset.cold", "", "tcp_v4_send_reset");
    let census = kernel.census();
    assert!(census.is_complete(), "{:?}", census.problems);
    assert_eq!(callers(&census, "tcp_v4_send_reset"), [("tcp_v4_rcv".to_owned(), 2, true)]);
    assert!(callers(&census, "tcp_reset").contains(&("tcp_rcv_state_process".to_owned(), 1, true)));
}

#[test]
fn of_several_names_the_known_one_counts() {
    let mut kernel = Kernel::sound();
    kernel.symbol(TEXT + 0x2000, 't', "alias", "");
    kernel.function(TEXT + 0x2000, "tcp_v4_do_rcv", "", "tcp_v4_send_reset");
    assert!(kernel.census().is_complete());
}

#[test]
fn a_call_over_the_end_of_a_piece_is_found_once() {
    let mut kernel = Kernel::sound();
    kernel.symbols = kernel.symbols.replace(
        &format!("{:016x} T _etext", TEXT + 0x3000),
        &format!("{:016x} T _etext", TEXT + PIECE + 0x100),
    );
    kernel.function(TEXT + PIECE - 3, "tcp_v4_do_rcv", "", "tcp_v4_send_reset");
    let census = kernel.census();
    assert!(callers(&census, "tcp_v4_send_reset").contains(&("tcp_v4_do_rcv".to_owned(), 1, true)));
}

#[test]
fn variables_that_hold_pointers_are_held_against_the_table_too() {
    let mut kernel = Kernel::sound();
    let pointer = kernel.address("tcp_v4_send_reset").to_le_bytes().to_vec();
    kernel.symbol(DATA + 0x100, 'd', "tcp_request_sock_ops", "");
    kernel.symbol(TEXT + 0x2000, 't', "tcp_check_req", "");
    kernel.parts.push((DATA + 0x128, pointer.clone()));
    let census = kernel.census();
    assert!(census.is_complete(), "{:?}", census.problems);
    let row = census.rows.iter().find(|row| row.target.name == "tcp_v4_send_reset").unwrap();
    assert_eq!(row.callers[1].how, How::Pointer);
    // The other function that calls through it is not in this kernel.
    assert_eq!(row.callers[1].through, ["tcp_check_req"]);

    kernel.symbol(MODULE + 0x1000, 'd', "my_ops", "mine");
    kernel.parts.push((MODULE + 0x1010, pointer.clone()));
    // A module's tables of functions call nobody.
    kernel.symbol(MODULE + 0x2000, 'd', "__this_module", "mine");
    kernel.parts.push((MODULE + 0x2800, pointer.clone()));
    kernel.symbol(MODULE + 0x3000, 'r', "__ksymtab_mine", "mine");
    kernel.parts.push((MODULE + 0x3018, pointer));
    let said = "my_ops [mine] holds a pointer to tcp_v4_send_reset, and the catalogue does not know it";
    assert_eq!(kernel.census().problems, [said]);
}

#[test]
fn a_kernel_that_cannot_be_judged_is_not_complete() {
    let lacks = |name: &str| {
        let mut kernel = Kernel::sound();
        kernel.symbols = kernel.symbols.replace(&format!(" {name}\n"), " something_else\n");
        kernel.census().problems
    };
    assert_eq!(
        lacks("tcp_reset"),
        ["tcp_reset is not in this kernel, inlined or renamed: who calls it cannot be told"]
    );
    let said = lacks("tcp_v4_rcv");
    assert_eq!(said, ["something_else calls tcp_v4_send_reset, and the catalogue does not know it"]);

    // With IPv6 there must be its sender.
    let mut kernel = Kernel::sound();
    kernel.symbol(TEXT + 0x2000, 't', "tcp_v6_rcv", "");
    assert_eq!(kernel.census().problems.len(), 2, "{:?}", kernel.census().problems);

    // A scan that finds nothing has not understood.
    let mut kernel = Kernel::sound();
    kernel.parts.truncate(1);
    let problems = kernel.census().problems;
    assert_eq!(problems[0], "no call of tcp_v4_send_reset was found, and there must be some");
    assert_eq!(problems.len(), 6);

    // A module whose text is hidden.
    let mut kernel = Kernel::sound();
    kernel.symbol(MODULE, 't', "secret", "blob");
    assert_eq!(kernel.census().problems, ["the text of module blob reads as zeros, so it was not searched"]);

    let mut kernel = Kernel::sound();
    kernel.symbols = kernel.symbols.replace("rodata", "x").replace("data\n", "x\n");
    assert_eq!(kernel.census().problems.len(), 1, "{:?}", kernel.census().problems);
}

#[test]
fn what_the_kernel_generates_is_no_caller() {
    let mut kernel = Kernel::sound();
    kernel.function(MODULE, "bpf_prog_1f2e", "bpf", "tcp_v4_send_reset");
    kernel.function(MODULE + 0x1000, "ftrace_trampoline", "__builtin__ftrace", "tcp_v4_send_reset");
    assert!(kernel.census().is_complete());
}

#[test]
fn without_the_limits_of_text_there_is_no_census() {
    let kernel = Kernel::sound();
    let symbols = kernel.symbols.replace("_stext", "x");
    assert!(count(&Map::parse(&symbols), &kernel).unwrap_err().why.contains("_stext"));
    assert!(Map::parse("0000000000000000 T _stext\n").is_empty());
}

#[test]
fn memory_that_cannot_be_read_is_said() {
    struct Closed;
    impl Memory for Closed {
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(1))
        }
    }
    let kernel = Kernel::sound();
    let error = count(&Map::parse(&kernel.symbols), &Closed).unwrap_err();
    assert!(error.why.contains("0xffffffff81000000") && !error.hint.is_empty());
}
