//! Bytes as compilers write them, and bytes that only look like it.

use super::*;

const BASE: u64 = 0xffff_ffff_8100_0000;
/// The target, far behind the code.
const TARGET: u64 = BASE + 0x10_0000;
/// Where its named padding begins.
const PADDING: u64 = TARGET - 16;

fn entries() -> Entries {
    let mut entries = Entries::default();
    entries.add(7, TARGET, Some(PADDING));
    entries
}

/// A function: some instructions, one in question at the end.
fn function(instruction: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xf3, 0x0f, 0x1e, 0xfa]; // endbr64
    bytes.extend([0x0f, 0x1f, 0x44, 0x00, 0x00]); // nop, where ftrace is called
    bytes.extend([0x55, 0x48, 0x89, 0xe5]); // push %rbp; mov %rsp,%rbp
    bytes.extend(instruction);
    bytes.extend([0xcc; 16]);
    bytes
}

/// An opcode with the distance to an address, for the end of `function`.
fn relative(opcode: &[u8], to: u64) -> Vec<u8> {
    let end = BASE + 13 + opcode.len() as u64 + 4;
    [opcode, &(to.wrapping_sub(end) as u32).to_le_bytes()].concat()
}

/// What one function is found to do: each candidate, decoded.
fn found(bytes: &[u8], entries: &Entries) -> Vec<Found> {
    let mut all = candidates(BASE, bytes, entries);
    all.extend(short_candidates(BASE, bytes, entries));
    all.into_iter().map(|candidate| confirm(BASE, bytes, candidate, entries)).collect()
}

#[test]
fn calls_and_jumps_lead_to_a_target() {
    for opcode in [&[0xe8][..], &[0xe9], &[0x0f, 0x84], &[0x0f, 0x8f], &[0x2e, 0xe8]] {
        let bytes = function(&relative(opcode, TARGET));
        assert_eq!(found(&bytes, &entries()), [Found::Leads(7, How::Call)], "{opcode:x?}");
    }
}

#[test]
fn a_target_is_entered_at_its_start_behind_its_endbr_and_through_its_padding() {
    let at = |address| found(&function(&relative(&[0xe8], address)), &entries());
    for address in [TARGET, TARGET + 4, PADDING, PADDING + 10] {
        assert_eq!(at(address), [Found::Leads(7, How::Call)], "{address:#x}");
    }
    // Behind its first instructions: that is how trampolines of BPF call what they are attached to.
    for address in [PADDING - 1, TARGET + 1, TARGET + 5, TARGET + 9] {
        assert_eq!(at(address), [], "{address:#x}");
    }
}

#[test]
fn padding_without_a_name_belongs_to_the_function_before() {
    let mut entries = Entries::default();
    entries.add(0, TARGET, None);
    assert_eq!(found(&function(&relative(&[0x0f, 0x84], TARGET - 8)), &entries), []);
}

#[test]
fn instructions_that_hold_the_address_are_pointers() {
    let absolute = (TARGET as u32).to_le_bytes();
    let mov = [&[0x48, 0xc7, 0xc7][..], &absolute].concat();
    let cmp = [&[0x48, 0x3d][..], &absolute].concat();
    let push = [&[0x68][..], &absolute].concat();
    let store = [&[0x48, 0xc7, 0x43, 0x28][..], &absolute].concat();
    let movabs = [&[0x48, 0xb8][..], &TARGET.to_le_bytes()].concat();
    let lea = relative(&[0x48, 0x8d, 0x3d], TARGET);
    for instruction in [mov, cmp, push, store, movabs, lea] {
        let found = found(&function(&instruction), &entries());
        assert_eq!(found, [Found::Leads(7, How::Pointer)], "{instruction:x?}");
    }
}

#[test]
fn numbers_inside_of_other_instructions_are_nothing() {
    // The distance of a call, as the tail of a longer constant: mov $…,%rax with e8 in the middle.
    let call = relative(&[0x48, 0xb8, 0x11, 0x22, 0x33, 0xe8], TARGET);
    let bytes = function(&call);
    assert_eq!(candidates(BASE, &bytes, &entries()).len(), 1, "it looks like a call");
    assert_eq!(found(&bytes, &entries()), [Found::Nothing]);
    // A load from the target's own text is no pointer to it.
    let load = relative(&[0x48, 0x8b, 0x05], TARGET);
    assert_eq!(found(&function(&load), &entries()), [Found::Nothing]);
}

#[test]
fn behind_bytes_that_are_no_instructions_a_look_alike_counts() {
    // 0x06 is no instruction of 64-bit mode; what follows swallows the opcode of the call.
    let bytes = function(&relative(&[0x06, 0x48, 0xb8, 0x11, 0x22, 0x33, 0xe8], TARGET));
    assert_eq!(found(&bytes, &entries()), [Found::Unclear(7)]);
    // In step again, the call itself is in sight.
    let bytes = function(&relative(&[&[0x06][..], &[0x90; 15], &[0xe8]].concat(), TARGET));
    assert_eq!(found(&bytes, &entries()), [Found::Leads(7, How::Call)]);
}

#[test]
fn a_neighbour_may_jump_with_two_bytes() {
    let mut entries = Entries::default();
    let target = BASE + 64;
    entries.add(3, target, None);
    for (opcode, leads) in [(0xeb, true), (0x74, true), (0xb0, false)] {
        let bytes = function(&[opcode, (target - (BASE + 15)) as u8]);
        let expected = if leads { vec![Found::Leads(3, How::Call)] } else { Vec::new() };
        assert_eq!(found(&bytes, &entries), expected, "{opcode:x}");
    }
    let near = entries.neighbourhoods().next().unwrap();
    assert!(near.contains(&(target - 129)) && near.contains(&(target + 4 + 129)));
}

#[test]
fn jumps_that_go_back_are_found_too() {
    let mut entries = Entries::default();
    entries.add(1, BASE - 0x40, None);
    assert_eq!(found(&function(&relative(&[0xe8], BASE - 0x40)), &entries), [Found::Leads(1, How::Call)]);
    let short = function(&[0xeb, (BASE - 0x40).wrapping_sub(BASE + 15) as u8]);
    assert_eq!(found(&short, &entries), [Found::Leads(1, How::Call)]);
}

#[test]
fn a_field_that_is_cut_off_is_left_to_the_next_piece() {
    let bytes = function(&relative(&[0xe8], TARGET));
    let cut = 13 + 3;
    assert!(candidates(BASE, &bytes[..cut], &entries()).is_empty());
    assert_eq!(candidates(BASE + 8, &bytes[8..], &entries()), [BASE + 14]);
}

#[test]
fn pointers_in_variables_are_whole_and_aligned() {
    let mut bytes = vec![0; 40];
    bytes[8..16].copy_from_slice(&TARGET.to_le_bytes());
    bytes[28..36].copy_from_slice(&TARGET.to_le_bytes());
    assert_eq!(pointers(BASE, &bytes, &entries()), [(BASE + 8, 7)]);
    bytes[8..16].copy_from_slice(&(TARGET + 4).to_le_bytes());
    assert_eq!(pointers(BASE, &bytes, &entries()), []);
}
