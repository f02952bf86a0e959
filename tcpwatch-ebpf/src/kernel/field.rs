//! One field of a kernel structure.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use core::arch::asm;
use core::mem::MaybeUninit;
use tcpwatch_common::offsets::ABSENT;

/// Reads `T` at an address; zero where that cannot be read.
///
/// `bpf_probe_read_kernel` survives any address, so a stale or wrong pointer costs an answer, never the host. The helper
/// zeroes the destination when it fails, so there is nothing to decide here: a branch per field would double the states
/// that the verifier has to walk.
#[inline(always)]
pub fn at<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is large enough, and the helper writes all of it. `T` is an integer or an array of them, valid
    // for any bytes.
    unsafe {
        let _ = bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// A kernel structure whose fields can be read.
pub trait Structure: Copy {
    /// Each reading is a call, so that one of much costs less than several of little.
    const CALLS: bool;

    /// Its address as a plain number, 0 for none.
    fn address(self) -> u64;

    /// Whether it is there.
    fn exists(self) -> bool;

    /// Reads the field at `offset`; zero where the kernel lacks it or it cannot be read.
    fn read<T: Copy + Default>(self, offset: u32) -> T;

    /// [`Self::read`] for an array of words that is there in every kernel.
    fn words<const N: usize>(self, offset: u32) -> [u32; N];

    /// The whole `struct tcp_sock` of a `struct sock`. `None` where it is known that it is none; a full socket of TCP always is one.
    fn tcp(self) -> Option<Self>;
}

/// By its address, with a helper: from every kind of program, and whatever lies there.
impl Structure for u64 {
    const CALLS: bool = true;

    #[inline(always)]
    fn address(self) -> u64 {
        self
    }

    #[inline(always)]
    fn exists(self) -> bool {
        self != 0
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        at(self + u64::from(offset))
    }

    #[inline(always)]
    fn words<const N: usize>(self, offset: u32) -> [u32; N] {
        at(self + u64::from(offset))
    }

    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        Some(self)
    }
}

/// By a pointer of which the verifier knows what it points to: a plain load, which costs a tenth of a call where functions return
/// slowly (`spec_rstack_overflow`).
///
/// The verifier holds each load against the kernel's types: only fields of the structure that it takes the pointer for, in one piece,
/// at an offset that it knows. Where the pointer came from a helper the kernel answers zero if nothing can be read. Not so an argument of
/// a tracepoint: since 6.2 it is taken for sound, and read without a net. So whoever hooks one has to know that its socket is there.
///
/// Numbers only. For each pointer among the fields the verifier looks through all the types that the kernel has, several times, which
/// takes milliseconds of the start: those are read by the socket's address.
#[derive(Clone, Copy)]
pub struct Typed {
    /// To Rust a number. No arithmetic but the addition of a constant is allowed with it.
    pointer: u64,
    /// The same as a number that may be reckoned with.
    address: u64,
}

/// A pointer as a number. What has been negated is no pointer to the verifier any more; who has the right to load these programs may
/// know addresses.
#[inline(always)]
fn number(pointer: u64) -> u64 {
    let mut number = pointer;
    // SAFETY: negates a register twice. In assembler, or the compiler would leave it out.
    unsafe { asm!("{0} = -{0}", "{0} = -{0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

impl Typed {
    /// # Safety
    /// To the verifier `pointer` must be a pointer to a kernel structure; and it must be sound, or known to it as one that may be NULL.
    #[inline(always)]
    pub unsafe fn new(pointer: u64) -> Self {
        Self { pointer, address: number(pointer) }
    }
}

impl Structure for Typed {
    const CALLS: bool = false;

    #[inline(always)]
    fn address(self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn exists(self) -> bool {
        // The pointer, not the number: the verifier is to learn it.
        self.pointer != 0
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        const { assert!(size_of::<T>() <= 8) };
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the verifier refuses what is not a field; of the rest see `new`. Volatile, or several loads would become one that
        // spans fields.
        unsafe { ((self.pointer + u64::from(offset)) as *const T).read_volatile() }
    }

    #[inline(always)]
    fn words<const N: usize>(self, offset: u32) -> [u32; N] {
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            words[i] = self.read(offset + 4 * i as u32);
            i += 1;
        }
        words
    }

    #[inline(always)]
    fn tcp(self) -> Option<Self> {
        // SAFETY: the helper takes any socket, also none, and says NULL to one that is not TCP's or not full.
        let pointer = unsafe { bpf_skc_to_tcp_sock(self.pointer as *mut _) } as u64;
        (pointer != 0).then_some(Self { pointer, address: self.address })
    }
}

/// Reads the field that the named offset stands for.
macro_rules! field {
    ($base:expr, $offset:ident) => {
        $crate::kernel::field::Structure::read($base, $crate::kernel::config::config!(offsets.$offset))
    };
}
pub(crate) use field;

/// Whether this kernel has the field: a constant for the verifier.
macro_rules! has_field {
    ($offset:ident) => {
        $crate::kernel::config::config!(offsets.$offset) != tcpwatch_common::offsets::ABSENT
    };
}
pub(crate) use has_field;
