//! The command: parses, runs, turns errors into words and an exit status.

use std::process::ExitCode;
use tcpwatch::cli::{self, Exit, Parsed};
use tcpwatch::host::Host;

fn main() -> ExitCode {
    give_back();
    let host = Host::live();
    let command = match cli::parse(std::env::args_os(), &host) {
        Ok(Parsed::Run(command)) => command,
        Ok(Parsed::Print(text)) => return finish(tcpwatch::write_out(&text).map(|()| Exit::Ok)),
        Err(error) => {
            eprintln!("tcpwatch: {error}");
            return error.exit.into();
        }
    };
    finish(tcpwatch::run(command, &host))
}

/// Has large blocks of memory go back to the system when they are freed. By itself glibc keeps what was needed once, and a start
/// needs megabytes that a run does not.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread is there yet, and the value is one that this setting may have.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

fn finish(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("tcpwatch: {}", cli::sentence(&error));
            // What was typed may turn out to make no sense only when it is looked up.
            error.downcast_ref::<cli::Error>().map_or(Exit::Failed, |error| error.exit).into()
        }
    }
}
