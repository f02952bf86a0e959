//! A kernel's types from a file, `--btf FILE`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpwatch::kernel::shape::{self, Shape};

fuzz_target!(|bytes: &[u8]| {
    let _ = Shape::parse(bytes.to_vec());
    // Of damaged types not everything can be copied; what could be is read like any other.
    if let Ok(reduced) = shape::reduce(bytes.to_vec()) {
        let _ = Shape::parse(reduced);
    }
});
