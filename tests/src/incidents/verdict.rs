//! What `tcpwatch diagnose` has to say about an incident, as JSON for programs and as text for whoever is on call.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::scene::Seen;
use super::truth::range;

/// The first verdict of a diagnosis.
pub(super) struct Verdict {
    /// Any of these; where two verdicts about one illness are joined, either may lead.
    causes: Vec<&'static str>,
    pids: Vec<i32>,
    comm: String,
    /// The kernel's counter that the verdict's figure has to agree with, and what comes on top of that.
    counter: &'static str,
    more: RangeInclusive<u64>,
    certainty: &'static str,
    port: u16,
    /// The text has to say each of these to somebody who knows nothing else; of alternatives one is enough.
    words: Vec<Vec<String>>,
}

impl Verdict {
    /// As many times as this counter of the kernel grew.
    pub(super) fn new(causes: &[&'static str], counter: &'static str) -> Self {
        let (causes, pids, comm) = (causes.to_vec(), Vec::new(), String::new());
        Self { causes, pids, comm, counter, more: 0..=0, certainty: "certain", port: 0, words: Vec::new() }
    }

    /// And so many more, which the kernel does not count.
    pub(super) fn more(mut self, more: RangeInclusive<u64>) -> Self {
        self.more = more;
        self
    }

    /// What a process means by what it does not do can only be inferred.
    pub(super) fn likely(mut self) -> Self {
        self.certainty = "likely";
        self
    }

    /// Who did it: one of these processes comes first.
    pub(super) fn by(mut self, pids: &[i32], comm: &str) -> Self {
        (self.pids, self.comm) = (pids.to_vec(), comm.to_owned());
        self
    }

    /// The port of the service that it is about.
    pub(super) fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub(super) fn says(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| vec![(*word).to_owned()]));
        self
    }

    pub(super) fn says_one(mut self, words: &[&str]) -> Self {
        self.words.push(words.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// How full the accept queue was. The kernel tells it full at one more than its limit, and on two CPUs at once one more gets in.
    pub(super) fn overfull(self, limit: u64) -> Self {
        self.says_one(&[
            &format!("up to {} of {limit}", limit + 1),
            &format!("up to {} of {limit}", limit + 2),
        ])
    }

    /// Everything that is wrong with the diagnosis.
    pub(super) fn judge(&self, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        match seen.diagnosis["verdicts"].get(0) {
            Some(first) => self.judge_first(first, &seen.grown(self.counter), &mut wrong),
            None => wrong.push("diagnose gives no verdict".to_owned()),
        }
        self.judge_text(&seen.text, &mut wrong);
        wrong
    }

    fn judge_first(&self, first: &Value, counted: &RangeInclusive<u64>, wrong: &mut Vec<String>) {
        let cause = first["cause"].as_str().unwrap_or_default();
        if !self.causes.contains(&cause) {
            wrong.push(format!(
                "the first verdict is {cause}, not {}: {}",
                self.causes.join(" or "),
                first["title"]
            ));
            return;
        }
        if first["certainty"] != self.certainty {
            wrong.push(format!("the verdict {cause} is {}, not {}", first["certainty"], self.certainty));
        }
        let due = counted.start() + self.more.start()..=counted.end() + self.more.end();
        if !first["count"].as_u64().is_some_and(|count| due.contains(&count)) {
            wrong.push(format!("the verdict {cause} counts {}, not {}", first["count"], range(&due)));
        }
        let who = &first["who"][0];
        let is_pid =
            who["pid"].as_i64().is_some_and(|pid| self.pids.iter().any(|one| i64::from(*one) == pid));
        if !is_pid || who["comm"] != self.comm.as_str() {
            wrong.push(format!("the verdict {cause} names {who}, not {} {:?}", self.comm, self.pids));
        }
        let end = format!(":{}", self.port);
        let mut services = first["services"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if !services.any(|service| service.ends_with(&end)) {
            wrong.push(format!(
                "the verdict {cause} is about {}, not about port {}",
                first["services"], self.port
            ));
        }
        for part in ["why", "evidence", "fix"] {
            if first[part].as_array().is_none_or(Vec::is_empty) {
                wrong.push(format!("the verdict {cause} has no `{part}`"));
            }
        }
    }

    fn judge_text(&self, text: &str, wrong: &mut Vec<String>) {
        // Lines are wrapped anywhere.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let names: Vec<String> = self.pids.iter().map(|pid| format!("{}[{pid}]", self.comm)).collect();
        for one_of in self.words.iter().chain([&names]) {
            if !one_of.iter().any(|word| text.contains(word.as_str())) {
                wrong.push(format!("the text does not say `{}`", one_of.join("` or `")));
            }
        }
    }
}

/// The rows of this namespace: what the kernel counted, and how much of it is explained. `whole`: nothing may be left over.
pub(super) fn books(seen: &Seen, whole: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in crate::judge::BOOKS {
        let rows = seen.diagnosis["reconciliation"].as_array().into_iter().flatten();
        let row = rows
            .filter(|row| row["netns"] == seen.netns && ends_with(&row["counter"], name))
            .collect::<Vec<_>>();
        let grown = seen.grown(name);
        let [row] = row.as_slice() else {
            // A counter that did not grow needs no row.
            if *grown.start() > 0 {
                let grown = range(&grown);
                wrong.push(format!("diagnose has {} rows for {name}, which grew by {grown}", row.len()));
            }
            continue;
        };
        let (kernel, explained) = (row["kernel"].as_u64(), row["explained"].as_u64().unwrap_or(0));
        let Some(kernel) = kernel.filter(|kernel| grown.contains(kernel)) else {
            let grown = range(&grown);
            wrong.push(format!("diagnose says that {name} grew by {kernel:?}, it grew by {grown}"));
            continue;
        };
        if explained > kernel || whole && explained < kernel {
            wrong.push(format!("{name} grew by {kernel}, diagnose explained {explained}"));
        }
    }
    wrong
}

/// Where hooks are missing: what the kernel counted and nobody explained has to be said, as a verdict with its figure.
pub(super) fn honest(seen: &Seen) -> Vec<String> {
    let rows = seen.diagnosis["reconciliation"].as_array().into_iter().flatten();
    let unseen = rows.filter(|row| row["netns"] == seen.netns).filter_map(|row| {
        let unseen = row["kernel"].as_u64()?.checked_sub(row["explained"].as_u64()?)?;
        (unseen > 0).then_some((row["counter"].as_str()?, unseen))
    });
    let verdicts = || seen.diagnosis["verdicts"].as_array().into_iter().flatten();
    let told =
        |unseen: u64| verdicts().any(|verdict| verdict["cause"] == "unknown" && verdict["count"] == unseen);
    unseen
        .filter(|(_, unseen)| !told(*unseen))
        .map(|(name, unseen)| format!("diagnose has no verdict about {unseen} of {name} that it did not see"))
        .collect()
}

fn ends_with(value: &Value, name: &str) -> bool {
    value.as_str().is_some_and(|text| text.ends_with(name))
}
