//! The kernel's types as the loader wants them: with nothing but the numbers of some functions and tracepoints.
//!
//! A trampoline is attached by the number that the kernel's types give its function, a typed tracepoint by that of its prototype. Who
//! asks for that number wants a whole set of types, of which a kernel has more than 100,000: here all but those are empty. Put
//! together, because to have aya parse as many takes it a third of the start.

use crate::kernel::btf::{KIND_FUNC, KIND_TYPEDEF, assemble, tracepoint_type};
use aya::{Btf, Endianness};

/// A type of no kind.
const EMPTY: [u32; 3] = [0; 3];

/// Types in which each function and tracepoint has its number; `None` without any.
pub(super) fn numbered(functions: &[(&str, u32)], tracepoints: &[(&str, u32)]) -> Option<Btf> {
    let functions = functions.iter().map(|(name, number)| (*number, KIND_FUNC, (*name).to_owned()));
    let tracepoints = tracepoints.iter().map(|(name, number)| (*number, KIND_TYPEDEF, tracepoint_type(name)));
    let mut all: Vec<_> = functions.chain(tracepoints).collect();
    all.sort_unstable();
    let mut strings = vec![0];
    let mut types: Vec<[u32; 3]> = Vec::with_capacity(all.last()?.0 as usize);
    for (number, kind, name) in all {
        // The number 0 is taken.
        types.resize((number as usize).checked_sub(1)?, EMPTY);
        types.push([u32::try_from(strings.len()).ok()?, kind << 24, 0]);
        strings.extend(name.into_bytes());
        strings.push(0);
    }
    let types: Vec<u8> = types.into_iter().flatten().flat_map(u32::to_le_bytes).collect();
    Btf::parse(&assemble(&types, &strings).ok()?, Endianness::Little).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::btf::BtfKind;

    #[test]
    fn functions_and_tracepoints_keep_their_numbers() {
        let functions = [("tcp_reset", 70_000), ("tcp_v4_rcv", 3), ("first", 1), ("inet_csk_accept", 69_999)];
        let tracepoints = [("tcp_send_reset", 7), ("inet_sock_set_state", 70_001)];
        let types = numbered(&functions, &tracepoints).unwrap();
        for (name, number) in functions {
            assert_eq!(types.id_by_type_name_kind(name, BtfKind::Func).unwrap(), number, "{name}");
        }
        for (name, number) in tracepoints {
            let name = format!("btf_trace_{name}");
            assert_eq!(types.id_by_type_name_kind(&name, BtfKind::Typedef).unwrap(), number, "{name}");
        }
        assert!(types.id_by_type_name_kind("tcp_v6_rcv", BtfKind::Func).is_err());
    }

    #[test]
    fn without_any_there_are_no_types() {
        assert!(numbered(&[], &[]).is_none());
    }
}
