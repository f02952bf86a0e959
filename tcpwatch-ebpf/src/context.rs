//! One view on the arguments of every program type, so that a hook is written once and attached in several ways.

use crate::kernel::field::{Structure, Typed, at};
use crate::kernel::sock::Sock;
use crate::maps::CALLS;
use aya_ebpf::EbpfContext;
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use core::ffi::c_void;

/// The arguments of the hooked function or tracepoint.
///
/// An argument that this kernel's function does not have must not be asked for, not even behind a branch that the
/// verifier takes for possible: it refuses the whole program.
pub trait Hooked {
    /// How the sockets among the arguments are read.
    type Structure: Structure;

    /// An argument as a number, whatever it is.
    fn arg(&self, n: usize) -> u64;

    /// An argument that is a number.
    #[inline(always)]
    fn number(&self, n: usize) -> u64 {
        self.arg(n)
    }

    /// An argument that is a `struct sock *`.
    fn sock(&self, n: usize) -> Sock<Self::Structure>;

    fn context(&self) -> *mut c_void;
}

/// An argument as a plain number. Loaded from the context it would be a pointer to the verifier, with which it allows no
/// arithmetic: and the tables find a socket by a hash of its address.
#[inline(always)]
fn number(context: *mut c_void, n: usize) -> u64 {
    at(context as u64 + 8 * n as u64)
}

/// Sockets by their addresses.
macro_rules! by_address {
    () => {
        type Structure = u64;

        #[inline(always)]
        fn sock(&self, n: usize) -> Sock {
            Sock(Hooked::arg(self, n))
        }
    };
}

impl Hooked for FEntryContext {
    by_address!();

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        number(self.as_ptr(), n)
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.as_ptr()
    }
}

impl Hooked for RawTracePointContext {
    by_address!();

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        RawTracePointContext::arg(self, n)
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.as_ptr()
    }
}

/// A tracepoint whose arguments the verifier knows the types of.
pub struct TypedTracepoint(pub BtfTracePointContext);

impl Hooked for TypedTracepoint {
    type Structure = Typed;

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        number(self.0.as_ptr(), n)
    }
    #[inline(always)]
    fn number(&self, n: usize) -> u64 {
        self.raw(n)
    }
    #[inline(always)]
    fn sock(&self, n: usize) -> Sock<Typed> {
        // SAFETY: loaded from the context; whether it is sound the tracepoint's file says.
        Sock(unsafe { Typed::new(self.raw(n)) })
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl TypedTracepoint {
    /// An argument as the verifier knows it.
    #[inline(always)]
    fn raw(&self, n: usize) -> u64 {
        // SAFETY: the arguments of the tracepoint, each a word. The verifier refuses one that it does not have.
        unsafe { self.0.as_ptr().cast::<u64>().add(n).read_volatile() }
    }
}

impl Hooked for ProbeContext {
    by_address!();

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        ProbeContext::arg(self, n).unwrap_or(0)
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.as_ptr()
    }
}

/// The end of a function, with its arguments and what it returned.
pub trait Returned: Hooked {
    fn returned(&self) -> u64;
}

/// fexit: the return value lies behind the last argument, whose number only the kernel's BTF knows. (The helper
/// `bpf_get_func_ret` would know too, but came with 5.17.)
pub struct Exit {
    pub context: FExitContext,
    pub args: u32,
}

impl Hooked for Exit {
    by_address!();

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        number(self.context.as_ptr(), n)
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.as_ptr()
    }
}

impl Returned for Exit {
    #[inline(always)]
    fn returned(&self) -> u64 {
        number(self.context.as_ptr(), self.args as usize)
    }
}

/// kretprobe: the arguments are those that [`stash`] kept at the function's start on this CPU.
pub struct Return {
    pub context: RetProbeContext,
    pub args: [u64; 4],
}

impl Return {
    /// Takes what [`stash`] kept. `None` when the function was entered before the probe was.
    #[inline(always)]
    pub fn new(context: RetProbeContext, hook: u8) -> Option<Self> {
        let slot = CALLS.get_ptr_mut(u32::from(hook))?;
        // SAFETY: a per-CPU slot. Only functions that run with bottom halves off are stashed, so nothing on this CPU
        // writes it between the function's start and its end.
        let args = unsafe { *slot };
        if args[0] == 0 {
            return None;
        }
        // SAFETY: as above.
        unsafe { (*slot)[0] = 0 };
        Some(Self { context, args })
    }
}

impl Hooked for Return {
    by_address!();

    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        match n {
            0 => self.args[0],
            1 => self.args[1],
            2 => self.args[2],
            _ => self.args[3],
        }
    }
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.as_ptr()
    }
}

impl Returned for Return {
    #[inline(always)]
    fn returned(&self) -> u64 {
        self.context.ret()
    }
}

/// Keeps the first four arguments for the kretprobe. Only for functions that run with bottom halves off from start to
/// end: there is one slot per hook and CPU.
#[inline(always)]
pub fn stash(context: &ProbeContext, hook: u8) {
    if let Some(slot) = CALLS.get_ptr_mut(u32::from(hook)) {
        // SAFETY: a per-CPU slot, see `Return::new`.
        unsafe {
            *slot = [context.arg(0), context.arg(1), context.arg(2), context.arg(3)]
                .map(|a: Option<u64>| a.unwrap_or(0))
        };
    }
}
