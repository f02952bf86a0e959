//! Who speaks: this host and this agent, in the words of the conventions.

use super::values::Attributes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::collections::BTreeMap;
use std::fs;

/// The version of the conventions that the names are of.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// What is known, and what was said about it.
pub(super) fn resource(said: &BTreeMap<String, String>) -> Resource {
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let known = [
        ("service.name", Some("tcpwatch".to_owned())),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        // Another one with each start: two agents of one host, or one before and after a restart, are not the same series.
        ("service.instance.id", read("/proc/sys/kernel/random/uuid")),
        ("host.name", Some(uname.nodename().to_string_lossy().into_owned())),
        ("host.id", read("/etc/machine-id").filter(|id| !id.is_empty())),
        ("host.arch", Some(arch(&uname.machine().to_string_lossy()).to_owned())),
        ("os.type", Some("linux".to_owned())),
        ("os.version", Some(uname.release().to_string_lossy().into_owned())),
    ];
    let mut all: BTreeMap<&str, &str> =
        known.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
    all.extend(said.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let mut attributes = Attributes::default();
    for (key, value) in all {
        attributes.add(key, value);
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// The convention's word for what `uname -m` says.
fn arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The part of the agent that speaks: there is one.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "tcpwatch".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::find;
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    #[test]
    fn what_was_said_wins() {
        let said = BTreeMap::from([
            ("service.name".to_owned(), "edge".to_owned()),
            ("k8s.node.name".to_owned(), "n1".to_owned()),
        ]);
        let all = resource(&said).attributes;
        let is = |key, value: &str| assert_eq!(find(&all, key), Some(&Value::StringValue(value.to_owned())));
        is("service.name", "edge");
        is("k8s.node.name", "n1");
        is("os.type", "linux");
        let Some(Value::StringValue(instance)) = find(&all, "service.instance.id") else {
            panic!("no instance")
        };
        assert_eq!(instance.len(), 36);
        assert!(find(&all, "host.name").is_some());
    }
}
