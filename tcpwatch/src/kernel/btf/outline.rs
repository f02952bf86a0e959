//! Types with nothing but the numbers of some functions in them.
//!
//! A trampoline is attached by the number that the kernel's types give its function. Who asks for that number wants a whole set
//! of types, of which a kernel has 100,000: here all but the functions are empty.

use super::{KIND_FUNC, KIND_FWD, MAGIC, TYPE_BYTES};

/// Bytes of `struct btf_header`.
const HEADER: u32 = 24;

/// Raw BTF in which each function has its number, and every number below the largest is taken.
pub fn outline(functions: &[(&str, u32)]) -> Vec<u8> {
    let mut functions = functions.to_vec();
    functions.sort_unstable_by_key(|(_, id)| *id);
    let last = functions.last().map_or(0, |(_, id)| *id);
    let types = last * TYPE_BYTES as u32;
    let mut strings = vec![0];
    let mut bytes = Vec::with_capacity((HEADER + types) as usize + 64 * functions.len());
    bytes.extend(MAGIC.to_le_bytes());
    // Version and flags.
    bytes.extend([1, 0]);
    let lengths_at = bytes.len() + 4 * 4;
    for word in [HEADER, 0, types, types, 0] {
        bytes.extend(word.to_le_bytes());
    }
    let mut next = functions.iter().peekable();
    for id in 1..=last {
        let (name, kind) = match next.next_if(|(_, of)| *of == id) {
            Some((name, _)) => {
                let at = strings.len() as u32;
                strings.extend(name.bytes().chain([0]));
                (at, KIND_FUNC)
            }
            None => (0, KIND_FWD),
        };
        for word in [name, kind << 24, 0] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes[lengths_at..lengths_at + 4].copy_from_slice(&(strings.len() as u32).to_le_bytes());
    bytes.extend(strings);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::Btf;
    use super::*;

    #[test]
    fn each_function_keeps_its_number() {
        let functions = [("tcp_reset", 70_000), ("tcp_v4_rcv", 3), ("inet_csk_accept", 69_999)];
        let bytes = outline(&functions);
        let names = functions.map(|(name, _)| name);
        let btf = Btf::parse(bytes.clone(), &names).unwrap();
        for (name, id) in functions {
            assert_eq!(btf.function_id(name), Some(id), "{name}");
        }
        let theirs = aya::Btf::parse(&bytes, aya::Endianness::default()).unwrap();
        for (name, id) in functions {
            assert_eq!(theirs.id_by_type_name_kind(name, aya_obj::btf::BtfKind::Func).unwrap(), id, "{name}");
        }
    }

    #[test]
    fn without_functions_it_is_empty() {
        assert_eq!(Btf::parse(outline(&[]), &["tcp_reset"]).unwrap().function_id("tcp_reset"), None);
    }
}
