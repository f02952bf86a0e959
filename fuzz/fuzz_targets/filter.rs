//! A filter as it is typed: compiled, or refused with a hint.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpwatch::cli;
use tcpwatch::host::Host;

fuzz_target!(|text: &str| {
    if text.contains('\0') {
        return;
    }
    let host = Host::live();
    let line = ["tcpwatch", "trace", "--"].into_iter().chain(text.split(' '));
    if let Err(error) = cli::parse(line, &host) {
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
});
