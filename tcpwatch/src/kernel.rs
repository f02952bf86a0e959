//! What the running kernel is: its types, its hooks, its names.

pub mod btf;
pub mod census;
pub mod hooks;
pub mod names;
pub mod shape;
pub mod symbols;

/// The kernel's release, as `uname -r` says it.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The first two numbers of a release, `None` if it has none.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_numbers() {
        let is_since = |release, since| version(release) >= Some(since);
        assert!(
            is_since("6.13.0-rc4", (6, 13))
                && is_since("6.18.44-fc-v669", (6, 13))
                && is_since("7.2", (6, 13))
        );
        assert!(
            !is_since("6.9.1", (6, 13)) && !is_since("5.14.0-503.el9", (6, 13)) && !is_since("6.x", (6, 13))
        );
        assert!(!is_since("", (0, 0)));
    }
}
