//! The command: parses, runs, turns errors into words and an exit status.

use std::process::ExitCode;
use tcpwatch::cli::{self, Exit, Parsed};
use tcpwatch::host::Host;

fn main() -> ExitCode {
    tcpwatch::memory::give_back();
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
