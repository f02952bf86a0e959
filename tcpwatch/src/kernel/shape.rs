//! The shape of the running kernel: everything that tcpwatch takes from its BTF, in one value. A recording carries it, so
//! that nothing after the source asks a kernel.

use super::btf::{self, Btf, Bytes, Keep};
use super::names::ReasonNames;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::Path;
use tcpwatch_common::hook;
use tcpwatch_common::offsets::{ABSENT, Field, Offsets};

/// Where every kernel with `CONFIG_DEBUG_INFO_BTF` shows its types.
pub const SYSTEM_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The enums whose names are asked for.
const ENUMS: [&str; 2] = ["sk_rst_reason", "skb_drop_reason"];

/// The helper that hands out the task on the CPU as what the verifier knows it for, since 5.11.
pub const CURRENT_TASK: &str = "bpf_get_current_task_btf";

/// The functions that are asked for: those of hooks, and a helper.
fn functions() -> impl Iterator<Item = &'static str> {
    hook::ALL.iter().map(|(_, name)| *name).chain([CURRENT_TASK])
}

/// A kernel's types, with those findable that a shape is made of.
pub fn types(data: impl Into<Bytes>) -> Result<Btf> {
    let tracepoint_types: Vec<String> =
        hook::ALL.iter().map(|(_, name)| btf::tracepoint_type(name)).collect();
    let mut wanted: Vec<&str> = Offsets::FIELDS.iter().map(|field| field.structure).collect();
    wanted.extend(functions().map(|name| -> &str { name }));
    wanted.extend(tracepoint_types.iter().map(String::as_str));
    wanted.extend(ENUMS);
    Btf::parse(data, &wanted)
}

/// A copy of a kernel's types with nothing but what a shape is made of: a few kilobytes instead of megabytes.
pub fn reduce(data: impl Into<Bytes>) -> Result<Vec<u8>> {
    let fields: Vec<_> = Offsets::FIELDS.iter().map(|field| (field.structure, field.path)).collect();
    let hooks: Vec<_> = hook::ALL.iter().map(|(_, name)| *name).collect();
    let functions: Vec<_> = functions().collect();
    types(data)?.reduce(&Keep { fields: &fields, enums: &ENUMS, functions: &functions, tracepoints: &hooks })
}

/// The types of the running kernel, or those in a file that the user says are its types.
fn read(path: &Path) -> Result<Bytes> {
    let bytes = if path == Path::new(SYSTEM_BTF) {
        Bytes::of_kernel(path)
    } else {
        std::fs::read(path).map(Bytes::from)
    };
    bytes.with_context(|| {
        format!(
            "cannot read the kernel's types from `{}`\nhint: the kernel must be built with CONFIG_DEBUG_INFO_BTF=y; or give its types with --btf FILE",
            path.display()
        )
    })
}

fn unusable(path: &Path) -> String {
    format!(
        "the kernel types in `{}` cannot be used\nhint: give the BTF of exactly this kernel with --btf FILE, as pahole or the BTF hub make it",
        path.display()
    )
}

/// The names of a kernel's reasons alone: for this its structures need not suit tcpwatch.
pub fn reasons(path: Option<&Path>) -> Result<ReasonNames> {
    let path = path.unwrap_or(Path::new(SYSTEM_BTF));
    let btf = Btf::parse(read(path)?, &ENUMS).with_context(|| unusable(path))?;
    Ok(names(&btf))
}

fn names(btf: &Btf) -> ReasonNames {
    ReasonNames::new(btf.enum_values(ENUMS[0]), btf.enum_values(ENUMS[1]))
}

fn numbers(btf: &Btf) -> Numbers {
    let of = |number: &dyn Fn(&str) -> Option<u32>| {
        hook::ALL.iter().filter_map(|(_, name)| Some((*name, number(name)?))).collect()
    };
    Numbers { functions: of(&|name| btf.function_id(name)), tracepoints: of(&|name| btf.tracepoint_id(name)) }
}

/// By which numbers hooks are found in the types that the kernel itself shows.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Of the hooked functions, for trampolines.
    pub functions: Vec<(&'static str, u32)>,
    /// Of the hooked tracepoints, for programs that know the types of their arguments.
    pub tracepoints: Vec<(&'static str, u32)>,
}

/// What the programs and the names need to know.
pub struct Shape {
    pub offsets: Offsets,
    /// Argument counts of the functions that are asked for and that the kernel's types know.
    pub functions: HashMap<&'static str, u32>,
    pub numbers: Numbers,
    /// Argument counts of the hooked tracepoints.
    pub tracepoints: HashMap<&'static str, u32>,
    /// `enum sk_rst_reason` (since 6.10) and `enum skb_drop_reason` (since 5.17).
    pub reasons: ReasonNames,
    /// Optional fields that this kernel lacks.
    pub missing: Vec<&'static Field>,
}

impl Shape {
    /// Reads the types of the running kernel, or those in a file that the user says are its types.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let system = Path::new(SYSTEM_BTF);
        let Some(path) = path else { return Self::parse(read(system)?).with_context(|| unusable(system)) };
        let mut shape = Self::parse(read(path)?).with_context(|| unusable(path))?;
        // A file may number them otherwise. Where the kernel shows nothing it attaches nothing by numbers either.
        shape.numbers = match Bytes::of_kernel(system) {
            Ok(data) => numbers(&types(data).with_context(|| unusable(system))?),
            Err(_) => Numbers::default(),
        };
        Ok(shape)
    }

    pub fn parse(data: impl Into<Bytes>) -> Result<Self> {
        let btf = types(data)?;

        let mut offsets = Offsets::ABSENT;
        let mut missing = Vec::new();
        let mut required = Vec::new();
        for (row, field) in Offsets::FIELDS.iter().enumerate() {
            match btf.offset_of(field.structure, field.path) {
                Some(offset) => offsets.set(row, offset),
                None if field.required => required.push(format!("{}.{}", field.structure, field.path)),
                None => missing.push(field),
            }
        }
        if !required.is_empty() {
            bail!("they lack {}, without which nothing can be told", required.join(", "));
        }
        let tracepoints = hook::ALL.iter().filter_map(|(_, name)| Some((*name, btf.tracepoint_args(name)?)));
        Ok(Self {
            offsets,
            functions: functions().filter_map(|name| Some((name, btf.function_args(name)?))).collect(),
            numbers: numbers(&btf),
            tracepoints: tracepoints.collect(),
            reasons: names(&btf),
            missing,
        })
    }

    /// Arguments of a function, 0 where it is not known.
    pub fn args(&self, function: &str) -> u32 {
        self.functions.get(function).copied().unwrap_or(0)
    }

    /// The tracepoint `tcp_send_reset` carries a reason and fires without a socket too.
    pub fn reset_tracepoint_complete(&self) -> bool {
        self.tracepoints.get("tcp_send_reset").is_some_and(|args| *args >= 3)
    }

    /// Whether an optional field is there.
    pub fn has(&self, name: &str) -> bool {
        Offsets::FIELDS
            .iter()
            .position(|field| field.name == name)
            .is_some_and(|row| self.offsets.get(row) != ABSENT)
    }
}
