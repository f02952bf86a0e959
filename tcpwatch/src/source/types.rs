//! The kernel's types as the loader wants them: with nothing but the numbers of some functions.
//!
//! A trampoline is attached by the number that the kernel's types give its function. Who asks for that number wants a whole set
//! of types, of which a kernel has more than 100,000: here all but the functions are empty. Put together, because to have aya
//! parse as many takes it a third of the start.

use aya::Btf;
use aya_obj::btf::{BtfType, Func, FuncLinkage};

/// Types in which each function has its number; `None` without functions.
pub(super) fn numbered(functions: &[(&str, u32)]) -> Option<Btf> {
    let mut functions = functions.to_vec();
    functions.sort_unstable_by_key(|(_, number)| *number);
    let mut types = Btf::new();
    // The number 0 is taken.
    let mut next = 1;
    for (name, number) in &functions {
        while next < *number {
            next = types.add_type(BtfType::Unknown) + 1;
        }
        let name = types.add_string(name);
        next = types.add_type(BtfType::Func(Func::new(name, 0, FuncLinkage::Static))) + 1;
    }
    (!functions.is_empty()).then_some(types)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::btf::BtfKind;

    #[test]
    fn each_function_keeps_its_number() {
        let functions = [("tcp_reset", 70_000), ("tcp_v4_rcv", 3), ("first", 1), ("inet_csk_accept", 69_999)];
        let types = numbered(&functions).unwrap();
        for (name, number) in functions {
            assert_eq!(types.id_by_type_name_kind(name, BtfKind::Func).unwrap(), number, "{name}");
        }
        assert!(types.id_by_type_name_kind("tcp_v6_rcv", BtfKind::Func).is_err());
    }

    #[test]
    fn without_functions_there_are_none() {
        assert!(numbered(&[]).is_none());
    }
}
