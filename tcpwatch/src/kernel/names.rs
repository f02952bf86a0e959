//! Reset and drop reasons by number, as the running kernel's BTF names them. The numbers move between versions, so no
//! table of them exists here.

use std::collections::HashMap;

/// The names of `enum sk_rst_reason` and `enum skb_drop_reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonNames {
    reset: HashMap<u32, String>,
    drop: HashMap<u32, String>,
}

impl ReasonNames {
    /// From the values of both enums; empty lists for a kernel without them. Names may carry their enum's prefix.
    pub fn new(reset: Vec<(u32, String)>, drop: Vec<(u32, String)>) -> Self {
        Self { reset: bare(reset, "SK_RST_REASON_"), drop: bare(drop, "SKB_DROP_REASON_") }
    }

    /// The reset reason, without prefix.
    pub fn reset(&self, number: u32) -> Option<&str> {
        self.reset.get(&number).map(String::as_str)
    }

    /// The drop reason, without prefix.
    pub fn drop_reason(&self, number: u32) -> Option<&str> {
        self.drop.get(&number).map(String::as_str)
    }

    /// The number of a drop reason, by its name without prefix.
    pub fn drop_number(&self, name: &str) -> Option<u32> {
        number(&self.drop, name)
    }

    /// The number of a reset reason, likewise.
    pub fn reset_number(&self, name: &str) -> Option<u32> {
        number(&self.reset, name)
    }

    /// Every reset reason, by number.
    pub fn resets(&self) -> Vec<(u32, &str)> {
        listed(&self.reset)
    }

    /// Every drop reason, by number.
    pub fn drops(&self) -> Vec<(u32, &str)> {
        listed(&self.drop)
    }
}

fn bare(values: Vec<(u32, String)>, prefix: &str) -> HashMap<u32, String> {
    let strip = |name: String| name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name);
    values.into_iter().map(|(number, name)| (number, strip(name))).collect()
}

fn number(names: &HashMap<u32, String>, wanted: &str) -> Option<u32> {
    names.iter().find(|(_, name)| *name == wanted).map(|(number, _)| *number)
}

fn listed(names: &HashMap<u32, String>) -> Vec<(u32, &str)> {
    let mut all: Vec<_> = names.iter().map(|(number, name)| (*number, name.as_str())).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_unknown_numbers_stay_unknown() {
        let reset = vec![(1, "SK_RST_REASON_NO_SOCKET".to_owned())];
        let drop = vec![(0, "SKB_NOT_DROPPED_YET".to_owned()), (3, "SKB_DROP_REASON_NO_SOCKET".to_owned())];
        let names = ReasonNames::new(reset, drop);
        assert_eq!(names.reset(1), Some("NO_SOCKET"));
        assert_eq!(names.reset(2), None);
        assert_eq!(names.drops(), vec![(0, "SKB_NOT_DROPPED_YET"), (3, "NO_SOCKET")]);
    }
}
