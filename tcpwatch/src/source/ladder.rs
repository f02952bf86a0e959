//! The attach ladder: each hook by the first of its ways that holds, several hooks at once.
//!
//! What takes time is the kernel's: verifying a program, and waiting for all CPUs before it is at work. Hooks do not depend on each
//! other, so that on two CPUs the programs are there in half the time.

use super::attach::{Attached, Programs, attach, debug, short, verifier_log};
use crate::kernel::hooks::{HOOKS, Hook, Plan};
use aya::{Btf, Ebpf};
use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, available_parallelism, scope};
use tcpwatch_common::hook;

/// Threads at most: a host in trouble has other things to do with its CPUs.
const THREADS: usize = 4;

/// The hooks whose programs keep the verifier longest, longest first. Those that begin last should not be those that take longest.
const LONGEST: [u8; 4] =
    [hook::INET_SOCK_SET_STATE, hook::TCP_SEND_RESET, hook::KFREE_SKB, hook::TCP_RECEIVE_RESET];

/// What became of a hook.
pub(super) struct Outcome {
    pub hook: &'static Hook,
    /// The name of the way that holds, and what holds it.
    pub attached: Option<(&'static str, Vec<Attached>)>,
    /// The ways before that, and what was wrong with each.
    pub tried: Vec<(String, String)>,
}

/// Tries one way of a hook after the other.
fn climb(hook: &'static Hook, plan: &Plan<'_>, programs: &mut Programs<'_>, types: Option<&Btf>) -> Outcome {
    let mut tried = Vec::new();
    for way in plan.ways(hook) {
        match attach(programs, way, hook.name(), types) {
            Ok(attached) => return Outcome { hook, attached: Some((way.rung.name(), attached)), tried },
            Err(error) => {
                if let Some(log) = verifier_log(&error).filter(|_| debug()) {
                    eprintln!("{} as {}: {log}", hook.name(), way.rung.name());
                }
                tried.push((way.rung.name().to_owned(), short(&error)));
            }
        }
    }
    Outcome { hook, attached: None, tried }
}

/// Attaches every hook that is wanted; `None` if it was asked to stop meanwhile. In the order of [`HOOKS`].
pub(super) fn climb_all(
    ebpf: &mut Ebpf,
    plan: &Plan<'_>,
    types: Option<&Btf>,
    stop: &AtomicBool,
) -> Option<Vec<Outcome>> {
    let mut programs: Programs<'_> = ebpf.programs_mut().collect();
    let mut jobs: VecDeque<_> = HOOKS
        .iter()
        .enumerate()
        .filter(|(_, hook)| plan.wants(hook))
        .map(|(row, hook)| {
            let names = hook.ways.iter().flat_map(|way| way.parts).map(|(_, name)| *name);
            let own: Programs<'_> = names.filter_map(|name| programs.remove_entry(name)).collect();
            (row, hook, own)
        })
        .collect();
    let place = |hook: &Hook| LONGEST.iter().position(|id| *id == hook.id).unwrap_or(LONGEST.len());
    jobs.make_contiguous().sort_by_key(|(_, hook, _)| place(hook));
    // What is said of several programs at once nobody can read.
    let most = if debug() { 1 } else { THREADS };
    let threads = available_parallelism().map_or(1, NonZero::get).min(most);

    let jobs = Mutex::new(jobs);
    let done = Mutex::new(Vec::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some((row, hook, mut own)) = lock(&jobs).pop_front() else { return };
            let outcome = climb(hook, plan, &mut own, types);
            lock(&done).push((row, outcome));
        }
    };
    scope(|threads_of| {
        for _ in 1..threads {
            // Where no more threads are allowed this one does it alone.
            if Builder::new().name("attach".to_owned()).spawn_scoped(threads_of, work).is_err() {
                break;
            }
        }
        work();
    });
    if stop.load(Ordering::Relaxed) {
        return None;
    }
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(row, _)| *row);
    Some(done.into_iter().map(|(_, outcome)| outcome).collect())
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held.
    what.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
