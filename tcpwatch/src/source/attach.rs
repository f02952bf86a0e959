//! Attaching programs: one rung after the other, until one holds.

use super::object;
use super::types::numbered;
use crate::kernel::hooks::{Granted, Part, Rung, Way};
use crate::kernel::shape::Shape;
use crate::kernel::{release, version};
use anyhow::{Context, Result, bail};
use aya::programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, ProgramFd, RawTracePoint};
use aya::{Btf, EbpfLoader};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A function that exists in every kernel with TCP, small and rarely called.
const PROBED: &str = "tcp_reset";
const PROBED_FENTRY: &str = "probe_fentry";
const PROBED_KPROBE: &str = "probe_kprobe";
/// A tracepoint with an argument that may be NULL.
const PROBED_TRACEPOINT: &str = "tcp_send_reset";
const PROBED_NULL: &str = "probe_null";

/// Loaded programs by their names.
pub(super) type Programs<'a> = HashMap<&'a str, &'a mut Program>;

/// A program that is attached as long as this is kept, whatever becomes of the loader's copy of it.
pub(super) struct Attached {
    program: ProgramFd,
    _link: Box<dyn Any + Send>,
}

impl Attached {
    fn new(program: &ProgramFd, link: impl Any + Send) -> Result<Self> {
        let program = program.try_clone().context("cannot keep a program open")?;
        Ok(Self { program, _link: Box::new(link) })
    }
}

/// A loader that has not read the kernel's types.
///
/// `EbpfLoader::new` of aya 0.14 reads and parses all of them, 40 ms and 30 MB, before it can be told that nothing here is relocated
/// by them. Without a descriptor to open them by it goes on without; nobody else opens anything meanwhile.
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), ..limit };
    let lowered = setrlimit(Resource::Nofile, none).is_ok();
    let mut loader = EbpfLoader::new();
    if lowered {
        // Raising it again up to the limit that was there takes no privilege.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    loader.btf(None);
    loader
}

/// Finds out by attaching empty programs what this kernel and these privileges allow, of one rung for functions alone where that is
/// asked for. The reasons come along: they are what the user wants to know when something is missing. And the types by which
/// trampolines and typed tracepoints are attached.
pub(super) fn probe(
    shape: &Shape,
    only: Option<Rung>,
    typed: bool,
) -> (Granted, Vec<(Rung, String)>, Option<Btf>) {
    let mut granted = Granted::default();
    let mut refused = Vec::new();
    let wants = |rung| only.is_none_or(|only| only == rung);
    let mut ebpf = match loader().load(object::PROBE) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            let rungs = [Rung::Fentry, Rung::Kprobe].into_iter().filter(|rung| wants(*rung));
            return (granted, rungs.map(|rung| (rung, why.clone())).collect(), None);
        }
    };
    let mut programs: Programs<'_> = ebpf.programs_mut().collect();
    let trampolines = wants(Rung::Fentry).then(|| refuses_trampolines(&mut programs));
    let functions: &[_] = if matches!(trampolines, Some(None)) { &shape.numbers.functions } else { &[] };
    let tracepoints: &[_] = if typed { &shape.numbers.tracepoints } else { &[] };
    let types = numbered(functions, tracepoints);
    if let Some(refuses) = trampolines {
        let attached = refuses.map_or_else(
            || attach_part(&mut programs, Part::Fentry, PROBED_FENTRY, PROBED, types.as_ref()),
            Err,
        );
        match attached {
            Ok(_) => granted.fentry = true,
            Err(error) => refused.push((Rung::Fentry, short(&error))),
        }
    }
    if wants(Rung::Kprobe) {
        match attach_part(&mut programs, Part::Kprobe, PROBED_KPROBE, PROBED, None) {
            Ok(_) => granted.kprobe = true,
            Err(error) => refused.push((Rung::Kprobe, short(&error))),
        }
    }
    granted.typed = !tracepoints.is_empty();
    // To ask takes 5 ms where the kernel looks through all its types for a tracepoint, so nobody is asked who is known to know, or whose
    // tracepoint has no socket that may be NULL. (6.12 knows in its later stable releases.)
    let knows = version(&release()) >= Some((6, 13));
    granted.null = granted.typed
        && shape.reset_tracepoint_complete()
        && (knows || knows_null(&mut programs, types.as_ref()));
    (granted, refused, types)
}

/// Whether the verifier knows which arguments of a tracepoint may be NULL: then it refuses a program that reads from one without having
/// asked whether it is there, for this reason and no other.
fn knows_null(programs: &mut Programs<'_>, types: Option<&Btf>) -> bool {
    match load(programs, Part::TypedTracepoint, PROBED_NULL, PROBED_TRACEPOINT, types) {
        Ok(_) => false,
        Err(error) => verifier_log(&error).is_some_and(|log| log.contains("or_null")),
    }
}

/// The error, where the kernel refuses a trampoline before it looks which function it is for. To ask costs nothing; the types that
/// give the function its number take a tenth of the start.
fn refuses_trampolines(programs: &mut Programs<'_>) -> Option<anyhow::Error> {
    // Number 1 is a function in no kernel: the first type is an integer.
    let types = numbered(&[(PROBED, 1)], &[]);
    let error = attach_part(programs, Part::Fentry, PROBED_FENTRY, PROBED, types.as_ref()).err()?;
    let is_refusal = error.chain().any(|cause| match cause.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError { io_error, .. }) => io_error.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    });
    is_refusal.then_some(error)
}

/// Runs of programs that the kernel left out because the program was already at work on that CPU: each program is
/// entered once at a time there, and one that was interrupted, or on newer kernels preempted, is still at work.
///
/// From the program's own line in procfs (since 5.12); aya does not offer it.
pub(super) fn missed(programs: &[Attached]) -> u64 {
    let of = |attached: &Attached| -> Option<u64> {
        let fd = attached.program.as_fd().as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
    };
    programs.iter().filter_map(of).sum()
}

/// Attaches all programs of a way. On failure those that held already are taken off again.
pub(super) fn attach(
    programs: &mut Programs<'_>,
    way: &Way,
    function: &str,
    btf: Option<&Btf>,
) -> Result<Vec<Attached>> {
    let mut all = Vec::with_capacity(way.parts.len());
    for (part, program) in way.parts {
        match attach_part(programs, *part, program, function, btf) {
            Ok(attached) => all.push(attached),
            Err(error) => {
                let done = all.len();
                drop(all);
                for (part, program) in &way.parts[..done] {
                    unload(programs, *part, program);
                }
                return Err(error);
            }
        }
    }
    Ok(all)
}

/// Has the kernel verify a program.
fn load<'p>(
    programs: &'p mut Programs<'_>,
    part: Part,
    name: &str,
    function: &str,
    btf: Option<&Btf>,
) -> Result<&'p mut Program> {
    let types = || btf.context("this kernel shows no types of its own");
    let program = programs.get_mut(name).with_context(|| format!("there is no program `{name}`"))?;
    let program = &mut **program;
    match part {
        Part::RawTracepoint => <&mut RawTracePoint>::try_from(&mut *program)?.load()?,
        Part::TypedTracepoint => <&mut BtfTracePoint>::try_from(&mut *program)?.load(function, types()?)?,
        Part::Fentry => <&mut FEntry>::try_from(&mut *program)?.load(function, types()?)?,
        Part::Fexit => <&mut FExit>::try_from(&mut *program)?.load(function, types()?)?,
        Part::Kprobe | Part::Kretprobe => match <&mut KProbe>::try_from(&mut *program)?.load() {
            // Loaded already when a module's function was looked for before and not found.
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => bail!(error),
        },
    }
    Ok(program)
}

fn attach_part(
    programs: &mut Programs<'_>,
    part: Part,
    name: &str,
    function: &str,
    btf: Option<&Btf>,
) -> Result<Attached> {
    let program = load(programs, part, name, function, btf)?;
    if debug() {
        tell_cost(program, name);
    }
    match part {
        Part::TypedTracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            let link = program.attach()?;
            let link = program.take_link(link)?;
            Attached::new(program.fd()?, link)
        }
        Part::RawTracepoint => {
            let program: &mut RawTracePoint = program.try_into()?;
            let link = program.attach(function)?;
            let link = program.take_link(link)?;
            Attached::new(program.fd()?, link)
        }
        Part::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            let link = program.attach()?;
            let link = program.take_link(link)?;
            Attached::new(program.fd()?, link)
        }
        Part::Fexit => {
            let program: &mut FExit = program.try_into()?;
            let link = program.attach()?;
            let link = program.take_link(link)?;
            Attached::new(program.fd()?, link)
        }
        Part::Kprobe | Part::Kretprobe => {
            let program: &mut KProbe = program.try_into()?;
            let link = program.attach(function, 0)?;
            let link = program.take_link(link)?;
            Attached::new(program.fd()?, link)
        }
    }
}

/// The kernel's number of a program, by which it is found from outside, and since 5.16 what the verifier did for it.
fn tell_cost(program: &Program, name: &str) {
    let info = program.info().ok();
    let number = |value: Option<u32>| value.map_or("?".to_owned(), |number| number.to_string());
    eprintln!(
        "{name} (program {}): the verifier walked {} instructions",
        number(info.as_ref().map(|info| info.id())),
        number(info.as_ref().and_then(|info| info.verified_instruction_count()))
    );
}

fn unload(programs: &mut Programs<'_>, part: Part, name: &str) {
    let Some(program) = programs.get_mut(name) else { return };
    let program = &mut **program;
    // A program that cannot be unloaded stays attached until the end, where the kernel takes it off; its partner is
    // missing, so it only costs time.
    let _ = match part {
        Part::RawTracepoint => <&mut RawTracePoint>::try_from(program).and_then(RawTracePoint::unload),
        Part::TypedTracepoint => <&mut BtfTracePoint>::try_from(program).and_then(BtfTracePoint::unload),
        Part::Fentry => <&mut FEntry>::try_from(program).and_then(FEntry::unload),
        Part::Fexit => <&mut FExit>::try_from(program).and_then(FExit::unload),
        Part::Kprobe | Part::Kretprobe => <&mut KProbe>::try_from(program).and_then(KProbe::unload),
    };
}

/// `TCPWATCH_DEBUG` is set: what the verifier says goes to standard error.
pub(super) fn debug() -> bool {
    std::env::var_os("TCPWATCH_DEBUG").is_some()
}

/// An error in one line, without the verifier's pages (which go to the debug output).
pub(super) fn short(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if let Some(ProgramError::LoadError { io_error, .. }) = cause.downcast_ref::<ProgramError>() {
            return format!("the kernel refused to load it: {io_error}");
        }
        let line = cause.to_string();
        let line = line.lines().next().unwrap_or_default();
        // Some errors already end with the words of the one below.
        if text.ends_with(line) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(line);
    }
    text
}

/// The verifier's own words, for a bug report.
pub(super) fn verifier_log(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError { verifier_log, .. }) => Some(verifier_log.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;
    use aya::maps::MapError;
    use std::io;

    #[test]
    fn an_error_says_everything_once() {
        let refused = MapError::CreateError {
            name: "LIVE".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::EPERM),
        };
        let error = anyhow::Error::from(EbpfError::MapError(refused)).context("cannot start");
        assert_eq!(
            short(&error),
            "cannot start: map error: failed to create map `LIVE`: Operation not permitted (os error 1)"
        );
    }
}
