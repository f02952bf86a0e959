//! `cargo xtask protos`: compares the prototypes above the hooks with those that recorded kernels have.
//!
//! In a hook's file, `//! kernel: vX.Y..  FILE  PROTOTYPE` (the prototype between backticks, the file for functions only) says
//! from which version on the function or tracepoint looks like that; `...` stands for further arguments that do not matter.
//! The kernels are those of `tcpwatch/tests/kernels/`, each described in its `shape.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::repo;

const HOOKS: &str = "tcpwatch-ebpf/src/hooks";
const KERNELS: &str = "tcpwatch/tests/kernels";
const MARK: &str = "//! kernel: ";

type Version = (u32, u32);

/// `cargo xtask protos`.
pub(crate) fn main() -> Result<()> {
    let wrong = wrong()?;
    if wrong.is_empty() {
        println!("every hook says what the recorded kernels have");
        return Ok(());
    }
    for sentence in &wrong {
        println!("{sentence}");
    }
    bail!("{} prototypes are not right", wrong.len())
}

/// What is wrong with the prototypes, one sentence each.
pub(crate) fn wrong() -> Result<Vec<String>> {
    let root = repo::root();
    let mut kernels = Vec::new();
    for (release, _) in list(&root.join(KERNELS))? {
        let file = root.join(KERNELS).join(&release).join("shape.txt");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let version =
            version(&release).with_context(|| format!("{KERNELS}/{release} is not named after a release"))?;
        kernels.push(Kernel { release, version, text });
    }
    let mut wrong = Vec::new();
    for (name, path) in list(&root.join(HOOKS))? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        check(&format!("{HOOKS}/{name}"), &text, &kernels, &mut wrong);
    }
    Ok(wrong)
}

fn list(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    all.sort();
    Ok(all)
}

struct Kernel {
    release: String,
    version: Version,
    /// Its `shape.txt`.
    text: String,
}

impl Kernel {
    /// What the kernel has: `Err` with what the file says instead of a prototype.
    fn prototype(&self, name: &str) -> Result<&str, &str> {
        // Name, count of arguments, prototype; a name stands in one of both sections, and again in the plan.
        let sections = self
            .text
            .split("\n[")
            .filter(|section| section.starts_with("functions]") || section.starts_with("tracepoints]"));
        for line in sections.flat_map(str::lines) {
            let Some((first, rest)) = line.split_once(' ') else { continue };
            if first == name {
                let (count, says) = rest.trim_start().split_once("  ").unwrap_or((rest, ""));
                return if count == "-" { Err(says) } else { Ok(says) };
            }
        }
        Err("not mentioned")
    }
}

/// One line above a hook.
#[derive(Debug)]
struct Line<'a> {
    since: Version,
    prototype: &'a str,
}

impl Line<'_> {
    /// The function; a tracepoint's prototype has no name.
    fn name(&self) -> &str {
        let before = self.prototype.split('(').next().unwrap_or_default();
        before.rsplit([' ', '*']).next().unwrap_or_default()
    }

    fn matches(&self, kernel: &str) -> bool {
        let (Some(ours), Some(theirs)) = (parts(self.prototype), parts(kernel)) else { return false };
        let open = ours.1.last().is_some_and(|last| last == "...");
        let fixed = ours.1.len() - usize::from(open);
        ours.0 == theirs.0
            && (ours.1.len() == theirs.1.len() || open && fixed <= theirs.1.len())
            && ours.1[..fixed].iter().zip(&theirs.1).all(|(ours, theirs)| ours == theirs)
    }
}

/// Result with name, and arguments. Those of a tracepoint lose their names, which BTF does not know.
fn parts(prototype: &str) -> Option<(&str, Vec<String>)> {
    let (head, tail) = prototype.split_once('(')?;
    let arguments = tail.strip_suffix(')')?.split(',').map(str::trim).filter(|argument| !argument.is_empty());
    let arguments =
        arguments.map(|argument| if head.is_empty() { nameless(argument) } else { argument.into() });
    Some((head.strip_prefix("static ").unwrap_or(head), arguments.collect()))
}

/// An argument without its name, if it has one: `const struct sock *sk` is `const struct sock *`.
fn nameless(argument: &str) -> String {
    if let Some((kind, _)) = argument.rsplit_once('*') {
        return format!("{kind}*");
    }
    let mut words: Vec<&str> = argument.split_whitespace().collect();
    let prefixes =
        words.iter().filter(|word| matches!(**word, "const" | "struct" | "enum" | "union" | "unsigned"));
    // Behind what may stand before it a type is one word; a second one is the name.
    if words.len() > prefixes.count() + 1 {
        words.pop();
    }
    words.join(" ")
}

fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a file hooks, by the names of its programs.
fn hooked(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let functions = words.filter_map(|word| {
        ["_fentry", "_fexit", "_kprobe", "_kretprobe"].iter().find_map(|end| word.strip_suffix(end))
    });
    let tracepoints = text
        .lines()
        .filter_map(|line| line.strip_prefix("tracepoint!(")?.strip_suffix(");")?.split(", ").nth(1));
    functions.chain(tracepoints).filter(|name| !name.is_empty()).collect()
}

fn check(file: &str, text: &str, kernels: &[Kernel], wrong: &mut Vec<String>) {
    let mut lines = Vec::new();
    for (at, rest) in text.lines().enumerate().filter_map(|(at, line)| Some((at, line.strip_prefix(MARK)?))) {
        let since = rest.strip_prefix('v').and_then(version);
        match (since, rest.split('`').nth(1).filter(|prototype| prototype.contains('('))) {
            (Some(since), Some(prototype)) => lines.push(Line { since, prototype }),
            _ => wrong.push(format!("{file}:{}: is not `kernel: vX.Y..  FILE  PROTOTYPE`", at + 1)),
        }
    }
    for name in hooked(text) {
        let mut about: Vec<&Line> =
            lines.iter().filter(|line| line.name() == name || line.name().is_empty()).collect();
        about.sort_by_key(|line| line.since);
        if about.is_empty() {
            wrong.push(format!("{file}: no `kernel:` line says what {name} looks like"));
        }
        for kernel in kernels.iter().filter(|_| !about.is_empty()) {
            let in_force = about.iter().rposition(|line| line.since <= kernel.version);
            match kernel.prototype(name) {
                // Stable releases take changes over from newer kernels, never from older ones.
                Ok(has) if about[in_force.unwrap_or(0)..].iter().any(|line| line.matches(has)) => {}
                Ok(has) => wrong.push(format!("{file}: {} has `{has}`", kernel.release)),
                Err(says) if in_force.is_some() && !says.contains("module") => {
                    wrong.push(format!("{file}: {} has no {name}: {says}", kernel.release));
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = "\
[offsets]
a 0  b.a

[functions]
tcp_reset      2  void tcp_reset(struct sock *sk, struct sk_buff *skb)
nf_send_reset  -  in module nf_reject_ipv4
tcp_gone       -  absent

[tracepoints]
kfree_skb      3  (struct sk_buff *, void *, enum skb_drop_reason)

[plan]
tcp_reset      fentry
";

    fn found(text: &str) -> Vec<String> {
        let kernel = Kernel { release: "6.1.5".into(), version: (6, 1), text: SHAPE.into() };
        let mut wrong = Vec::new();
        check("a.rs", text, &[kernel], &mut wrong);
        wrong
    }

    #[test]
    fn what_the_kernel_has_passes() {
        let tcp_reset = "entry!(handle, tcp_reset_fentry, tcp_reset_kprobe);\n";
        for line in [
            "//! kernel: v5.13..  net/x.c  `void tcp_reset(struct sock *sk, struct sk_buff *skb)`, words\n",
            "//! kernel: v5.10..  net/x.c  `static void tcp_reset(struct sock *sk, ...)`\n",
            "//! kernel: v5.10..  `void tcp_reset(...)`\n",
            "//! kernel: v5.10..  `void tcp_reset(u8 a)`\n//! kernel: v6.2..  `void tcp_reset(...)`\n",
        ] {
            assert!(found(&format!("{line}{tcp_reset}")).is_empty(), "{line}");
        }
        let kfree_skb = "tracepoint!(handle, kfree_skb);\n";
        let line = "`(struct sk_buff *skb, void *location, enum skb_drop_reason reason)`";
        assert!(found(&format!("//! kernel: v5.17..  {line}\n{kfree_skb}")).is_empty());
        let module = "//! kernel: v5.10..  `void nf_send_reset(...)`\nentry!(h, nf_send_reset_fentry, x);\n";
        assert!(found(module).is_empty());
        let later = "//! kernel: v6.3..  `void tcp_gone(...)`\nentry!(h, tcp_gone_fentry, x);\n";
        assert!(found(later).is_empty());
    }

    #[test]
    fn what_it_has_not_is_named() {
        let hook = |line: &str, name: &str| format!("//! kernel: {line}\nentry!(h, {name}_fentry, x);\n");
        for (text, says) in [
            (hook("v5.10..  `void tcp_reset(struct sock *sk)`", "tcp_reset"), "6.1.5 has `void tcp_reset"),
            (hook("v5.10..  `int tcp_reset(...)`", "tcp_reset"), "6.1.5 has `void tcp_reset"),
            (hook("v5.10..  `void tcp_gone(...)`", "tcp_gone"), "6.1.5 has no tcp_gone: absent"),
            (hook("v5.10..  the same", "tcp_reset"), "a.rs:1: is not"),
            (hook("v5.10..  `void tcp_gone(...)`", "tcp_reset"), "says what tcp_reset looks like"),
            (
                "//! kernel: v5.10..  `(struct sk_buff *skb)`\ntracepoint!(h, kfree_skb);\n".into(),
                "6.1.5 has `(struct sk_buff *, void *,",
            ),
        ] {
            let wrong = found(&text);
            assert!(wrong.iter().any(|sentence| sentence.contains(says)), "{text}: {wrong:?}");
        }
        // An older shape than the one in force is none that a stable release can have.
        let old = "//! kernel: v5.10..  `void tcp_reset(struct sock *sk, struct sk_buff *skb)`\n\
                   //! kernel: v6.0..  `void tcp_reset(u8 new)`\nentry!(h, tcp_reset_fentry, x);\n";
        assert_eq!(found(old).len(), 1);
    }

    #[test]
    fn names_go_and_types_stay() {
        for (argument, kind) in [
            ("const struct sock *sk", "const struct sock *"),
            ("const struct sock *", "const struct sock *"),
            ("const enum sk_rst_reason reason", "const enum sk_rst_reason"),
            ("enum skb_drop_reason", "enum skb_drop_reason"),
            ("const int oldstate", "const int"),
            ("const int", "const int"),
            ("int ret", "int"),
            ("void *location", "void *"),
        ] {
            assert_eq!(nameless(argument), kind);
        }
    }
}
