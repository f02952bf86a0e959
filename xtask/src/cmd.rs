//! Running other programs: each failure names the program, its arguments and what it said.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The command as one would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(text, "{}={} ", name.display(), quote(&value.to_string_lossy()));
        }
    }
    text.push_str(&quote(&command.get_program().to_string_lossy()));
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&quote(&arg.to_string_lossy()));
    }
    text
}

/// One word for a shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs it with our own output; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    check(command, status, "")
}

/// Runs it in silence; what it said is shown only if it failed.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Its standard output as text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// Its standard output as it is.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    check(command, done.status, &String::from_utf8_lossy(&done.stderr))?;
    Ok(done.stdout)
}

/// Runs it and passes its standard output on, each line after `mark`. Hands the text back without the marks, and the status.
/// Standard error stays ours.
pub(crate) fn tee(command: &mut Command, mark: &str) -> Result<(String, ExitStatus)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    let pipe = child.stdout.take().context("a child without standard output")?;
    let mut text = String::new();
    let mut reader = BufReader::new(pipe);
    let mut raw = Vec::new();
    while reader.read_until(b'\n', &mut raw)? > 0 {
        let part = String::from_utf8_lossy(&raw);
        print!("{mark}{part}");
        let _ = std::io::stdout().flush();
        text.push_str(&part);
        raw.clear();
    }
    Ok((text, child.wait()?))
}

/// Its standard output, whatever its status: for reports that exit with a verdict.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if said.is_empty() {
        check(command, done.status, &String::from_utf8_lossy(&done.stderr))?;
    }
    Ok(said)
}

fn check(command: &Command, status: ExitStatus, said: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let said = said.trim_end();
    let said = if said.is_empty() { String::new() } else { format!("\n{said}") };
    bail!("`{}` failed ({status}){said}", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "two words", "it's", "", "$HOME", "a;b"] {
            let said =
                output(Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word)))).unwrap();
            assert_eq!(said, word);
        }
    }

    #[test]
    fn failure_names_the_command_and_what_it_said() {
        let error =
            quiet(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit status: 3") && error.contains("broken"),
            "{error}"
        );
    }
}
