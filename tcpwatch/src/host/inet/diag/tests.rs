//! Answers of a 6.18 kernel, whole and spoilt.

use super::*;
use std::collections::VecDeque;
use tcpwatch_common::state;

/// A listener on 127.0.0.1:8080 with backlog 3 and one connection in its queue.
const LISTENER: &str = "7c000000140002000100000040040000020a00001f9000007f00000100000000000000000000000000000000000000\
    000000000000000000000000004c0000000000000000000000010000000300000000000000dada5700050008000000000008000f00000000000c00\
    150001000000000000000600160052000000";
const DONE: &str = "1400000003000200010000004004000000000000";
/// A listener on [::]:8081 with backlog 5, and its child for 127.0.0.1: five bytes and the FIN were not read.
const MAPPED: &str = "840000001400020001000000400400000a0a00001f910000000000000000000000000000000000000000000000000000\
    0000000000000000000000004d0000000000000000000000000000000500000000000000dbda5700050008000000000005000b00000000000800\
    0f00000000000c001500010000000000000006001600120000007c0000001400020001000000400400000a0800001f91b7140000000000000000\
    0000ffff7f00000100000000000000000000ffff7f000001000000004e0000000000000000000000060000000000000000000000deda57000500\
    08000100000008000f00000000000c00150001000000000000000600160012000000";
/// Two half-open requests of a listener on [::]:8081, from ::1 and from 127.0.0.1.
const REQUESTS: &str = "600000001400020001000000884100000a0301001f919f5a000000000000000000000000000000010000000000000000\
    000000000000000100000000fd10000000000000e80300000000000000000000000000000000000008000f00000000006000000014000200\
    01000000884100000a0301001f91b4a800000000000000000000ffff7f00000100000000000000000000ffff7f00000100000000fe1000000000\
    0000e80300000000000000000000000000000000000008000f0000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// What comes of an answer in these pieces. After the last one nothing comes any more.
fn read(pieces: &[Vec<u8>]) -> (Result<End, Failure>, Vec<Row>) {
    let mut pieces: VecDeque<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let receive = |buffer: &mut [u8]| {
        let piece = pieces.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let fits = piece.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&piece[..fits]);
        Ok(piece.len())
    };
    let mut rows = Vec::new();
    let mut take = |row| {
        rows.push(row);
        true
    };
    (answer(receive, &mut [0; 1024], 1, &mut take), rows)
}

fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { addr: address.ip(), port: address.port() }
}

#[test]
fn a_listener_shows_its_queue_and_its_limit() {
    let (end, rows) = read(&[bytes(LISTENER), bytes(DONE)]);
    assert_eq!(end.unwrap(), End::Whole);
    let listener = Row {
        state: state::LISTEN,
        local: endpoint("127.0.0.1:8080"),
        remote: endpoint("0.0.0.0:0"),
        inode: 0x57_dada,
        uid: 0,
        receive: 1,
        send: Some(3),
        quiet_ms: None,
    };
    assert_eq!(rows, [listener]);
}

#[test]
fn several_messages_may_share_a_piece_and_mapped_addresses_are_plain() {
    let (end, rows) = read(&[[bytes(MAPPED), bytes(DONE)].concat()]);
    assert_eq!(end.unwrap(), End::Whole);
    let seen: Vec<_> = rows.iter().map(|row| (row.state, row.local, row.receive)).collect();
    let expected =
        [(state::LISTEN, endpoint("[::]:8081"), 0), (state::CLOSE_WAIT, endpoint("127.0.0.1:8081"), 6)];
    assert_eq!(seen, expected);
    assert_eq!(rows[1].remote, endpoint("127.0.0.1:46868"));
}

#[test]
fn half_open_requests_have_the_port_of_their_listener() {
    let (end, rows) = read(&[bytes(REQUESTS), bytes(DONE)]);
    assert_eq!(end.unwrap(), End::Whole);
    let seen: Vec<_> = rows.iter().map(|row| (row.state, row.local, row.remote, row.inode)).collect();
    let request = |local, remote| (state::SYN_RECV, endpoint(local), endpoint(remote), 0);
    let expected = [request("[::1]:8081", "[::1]:40794"), request("127.0.0.1:8081", "127.0.0.1:46248")];
    assert_eq!(seen, expected);
}

#[test]
fn a_listing_that_changed_meanwhile_says_so() {
    let mut changed = bytes(LISTENER);
    changed[6] |= u8::try_from(NLM_F_DUMP_INTR).unwrap();
    assert_eq!(read(&[changed, bytes(DONE)]).0.unwrap(), End::Interrupted);
}

#[test]
fn the_reader_may_have_enough() {
    let mut answers = vec![bytes(LISTENER), bytes(LISTENER)].into_iter();
    let receive = |buffer: &mut [u8]| {
        let piece = answers.next().unwrap();
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    };
    assert_eq!(answer(receive, &mut [0; 1024], 1, &mut |_| false).unwrap(), End::Enough);
    assert_eq!(answers.len(), 1, "the rest was not read");
}

#[test]
fn answers_to_others_are_skipped() {
    let mut other = bytes(LISTENER);
    other[8] = 7;
    let (end, rows) = read(&[other, bytes(DONE)]);
    assert_eq!((end.unwrap(), rows.len()), (End::Whole, 0));
}

#[test]
fn a_kernel_without_the_module_is_told_from_other_refusals() {
    let error = |code: i32| {
        let mut message = bytes("24000000020000000100000040040000");
        message.extend(code.to_ne_bytes());
        message.extend([0; 16]);
        read(&[message]).0.unwrap_err().to_string()
    };
    assert_eq!(error(-libc::ENOENT), "the kernel has no module tcp_diag");
    assert!(error(-libc::EPERM).contains("Operation not permitted"), "{}", error(-libc::EPERM));
    let mut done = bytes(DONE);
    done[16..].copy_from_slice(&(-libc::EINVAL).to_ne_bytes());
    let failed = read(&[bytes(LISTENER), done]).0.unwrap_err().to_string();
    assert!(failed.contains("Invalid argument"), "{failed}");
}

#[test]
fn every_cut_is_refused() {
    let whole = bytes(LISTENER);
    for length in 0..whole.len() {
        let (end, rows) = read(&[whole[..length].to_vec(), bytes(DONE)]);
        assert!(matches!(end, Err(Failure::Malformed(_))), "{length} bytes: {end:?}");
        assert!(rows.is_empty(), "{length} bytes");
    }
    // It just stops.
    assert!(matches!(read(&[whole]).0, Err(Failure::Kernel(_))));
}

#[test]
fn a_piece_beyond_the_buffer_is_refused() {
    let end = read(&[vec![0; 1025]]).0;
    assert!(matches!(end, Err(Failure::Cut { length: 1025 })), "{end:?}");
}

#[test]
fn lengths_that_lie_are_refused() {
    for lie in [0_u32, 1, 4, 15, 16, 20, 87, 125, 4096, u32::MAX] {
        let mut message = bytes(LISTENER);
        message[..4].copy_from_slice(&lie.to_ne_bytes());
        let (end, rows) = read(&[message, bytes(DONE)]);
        assert!(end.is_err(), "length {lie}: {end:?}");
        assert!(rows.is_empty(), "length {lie}");
    }
}

#[test]
fn attributes_of_any_length_neither_panic_nor_hang() {
    const FIRST: usize = 16 + 72;
    for length in (0..=48_u16).chain([u16::MAX]) {
        let mut message = bytes(LISTENER);
        message[FIRST..FIRST + 2].copy_from_slice(&length.to_ne_bytes());
        let (end, _) = read(&[message, bytes(DONE)]);
        assert!(length >= 4 || end.is_err(), "an attribute of {length} bytes: {end:?}");
    }
}

#[test]
fn no_flipped_byte_panics() {
    let whole = [bytes(MAPPED), bytes(DONE)].concat();
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut spoilt = whole.clone();
            spoilt[at] = value;
            let (_, rows) = read(&[spoilt]);
            assert!(rows.len() <= 2);
        }
    }
}

#[test]
fn a_request_names_the_states_and_not_the_expensive_ones() {
    let request = request(AF_INET, NOTEWORTHY, 1);
    assert_eq!(request.len(), 72);
    let states = u32::from_ne_bytes(request[20..24].try_into().unwrap());
    for wanted in [state::LISTEN, state::SYN_RECV, state::CLOSE_WAIT, state::LAST_ACK] {
        assert_ne!(states & (1 << wanted), 0, "{:?}", state::name(wanted));
    }
    for unwanted in [state::ESTABLISHED, state::TIME_WAIT, state::FIN_WAIT2] {
        assert_eq!(states & (1 << unwanted), 0, "{:?}", state::name(unwanted));
    }
}
