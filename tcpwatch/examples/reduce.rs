//! `cargo run --example reduce -- FROM TO`: what tcpwatch asks of a kernel's BTF, as a small file. `cargo xtask fixtures`
//! keeps the kernels of the matrix this way.

use anyhow::{Context, Result, bail};
use tcpwatch::kernel::shape;

fn main() -> Result<()> {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [from, to] = paths.as_slice() else { bail!("two arguments: the BTF to read and the file to write") };
    let data = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let small = shape::reduce(data).with_context(|| format!("cannot reduce {}", from.display()))?;
    std::fs::write(to, small).with_context(|| format!("cannot write {}", to.display()))
}
