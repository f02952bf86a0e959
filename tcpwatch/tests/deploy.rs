//! What `deploy` has for a cluster, held against the agent and against each other: capabilities, ports, probes, the configuration.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to say where")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The objects of the plain manifests, by their kinds.
fn object(kind: &str) -> Value {
    let all: Vec<Value> = serde_saphyr::from_multiple(&read("kubernetes/tcpwatch.yaml")).unwrap();
    let mut found = all.into_iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "several of {kind}");
    object
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn container() -> Value {
    object("DaemonSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn check(config: &str, more: &[&str]) -> Output {
    let name = format!("tcpwatch-deploy-{}-{:x}", std::process::id(), config.len());
    let file = std::env::temp_dir().join(name);
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    let output = command.args(["agent", "--check", "--config"]).arg(&file).args(more).output().unwrap();
    fs::remove_file(&file).unwrap();
    output
}

/// What `tcpwatch agent --check` says of a configuration that makes sense.
fn checked(config: &str, more: &[&str]) -> String {
    let output = check(config, more);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{config}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn check_says_what_file_and_flags_come_to() {
    let config = "listen = \"[::]:9000\"\njournal = true\n[ring]\npath = \"/ring\"\nmax = \"10M\"\n\
                  [otlp]\nendpoint = \"http://collector:4317\"\nheaders = { authorization = \"Bearer hidden\" }\n";
    let said = checked(config, &[]);
    for words in
        ["http://[::]:9000/metrics", "each event", "/ring: the last 60 minutes, 10 MiB", "collector:4317"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("hidden"), "{said}");
    assert!(checked("", &["--listen", "off"]).contains("figures        off"));
    assert!(checked(&read("agent.toml"), &[]).contains("http://127.0.0.1:9853/metrics"));
    for (config, words) in
        [("colour = 5\n", "line 1"), ("events = \"rts\"\n", "unknown event"), ("[ring]\n", "path")]
    {
        let output = check(config, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("\nhint: ") && output.stdout.is_empty(), "{said}");
    }
}

#[test]
fn the_agent_takes_what_the_cluster_gives_it() {
    let container = container();
    let config = object("ConfigMap")["data"]["agent.toml"].as_str().unwrap().to_owned();
    let command = words(&container["command"]);
    assert!(command.contains("agent"), "{command:?}");
    let args = words(&container["args"]);
    // The file lies elsewhere here.
    let (config_flag, flags): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with("--config="));
    assert_eq!(config_flag, ["--config=/etc/tcpwatch/agent.toml"]);
    let flags: Vec<&str> = flags.into_iter().map(String::as_str).collect();
    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    let said = checked(&config, &flags);
    assert!(said.contains(&format!("http://0.0.0.0:{port}/metrics")), "{said}");
    let values = yaml(&read("helm/tcpwatch/values.yaml"));
    assert_eq!(values["config"].as_str().unwrap().trim(), config.trim());
    assert_eq!(values["port"], port);
}

#[test]
fn probes_scrapes_and_policy_ask_at_the_same_place() {
    let (daemons, container) = (object("DaemonSet"), container());
    let port = &container["ports"][0];
    assert_eq!(port["name"], "metrics");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{probe}");
        assert_eq!(container[probe]["httpGet"]["path"], "/healthz", "{probe}");
    }
    let annotations = &daemons["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], port["containerPort"].to_string());
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
    assert_eq!(object("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"], "metrics");
    let labels = &daemons["spec"]["template"]["metadata"]["labels"];
    for selector in [&daemons["spec"]["selector"], &object("NetworkPolicy")["spec"]["podSelector"]] {
        for (name, value) in selector["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[name], value, "{name}");
        }
    }
}

/// What the systemd unit grants, by the names that Kubernetes has for capabilities. What is commented out is what it leaves to a drop-in.
fn unit_capabilities() -> BTreeSet<String> {
    let unit = read("systemd/tcpwatch-agent.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    line.split_whitespace().map(|name| name.strip_prefix("CAP_").unwrap().to_owned()).collect()
}

#[test]
fn a_pod_may_do_what_the_unit_may_and_no_more() {
    let container = container();
    let security = &container["securityContext"];
    assert_eq!(words(&security["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
    let mut unit = unit_capabilities();
    // A pod has no one who opens /proc/kallsyms for it, and on a cluster what is of interest lies in the namespaces of pods.
    unit.extend(["SYSLOG".to_owned(), "SYS_ADMIN".to_owned()]);
    assert_eq!(words(&security["capabilities"]["add"]), unit);
    for (key, value) in
        [("privileged", false), ("allowPrivilegeEscalation", false), ("readOnlyRootFilesystem", true)]
    {
        assert_eq!(security[key], value, "{key}");
    }
    let pod = &object("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(pod["automountServiceAccountToken"], false);
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert_eq!(mount["readOnly"], true, "{mount}");
    }
    // Without the label a cluster that enforces a stricter level by default takes no such pod.
    assert_eq!(object("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
}

#[test]
fn the_chart_is_of_this_version_and_brings_the_files_along() {
    let chart = yaml(&read("helm/tcpwatch/Chart.yaml"));
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
    assert_eq!(container()["image"], format!("tcpwatch:{}", env!("CARGO_PKG_VERSION")));
    for (inside, of) in
        [("tcpwatch.rules.yml", "prometheus/tcpwatch.rules.yml"), ("tcpwatch.json", "grafana/tcpwatch.json")]
    {
        let inside = format!("helm/tcpwatch/files/{inside}");
        assert!(fs::symlink_metadata(deploy(&inside)).unwrap().is_symlink(), "{inside} is a copy");
        assert_eq!(read(&inside), read(of));
    }
}

/// Each value is in the schema, and each of the schema is a value: a name that is mistyped is an error for who installs it.
#[test]
fn values_and_their_schema_have_the_same_names() {
    let values = yaml(&read("helm/tcpwatch/values.yaml"));
    let schema: Value = serde_json::from_str(&read("helm/tcpwatch/values.schema.json")).unwrap();
    fn compare(values: &Value, schema: &Value, at: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let Some(values) = values.as_object() else { return };
        let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        let mut known = names(properties);
        // Helm itself may hand it in.
        known.remove("global");
        let own = names(values);
        if schema["additionalProperties"] == false {
            assert_eq!(own, known, "{at}");
        }
        for (name, schema) in properties {
            compare(&values.get(name).cloned().unwrap_or_default(), schema, &format!("{at}.{name}"));
        }
    }
    assert_eq!(schema["additionalProperties"], false);
    compare(&values, &schema, "values");
    let text =
        ["daemonset", "configmap", "networkpolicy", "podmonitor", "prometheusrule", "dashboard", "namespace"]
            .map(|name| read(&format!("helm/tcpwatch/templates/{name}.yaml")))
            .concat()
            + &read("helm/tcpwatch/templates/serviceaccount.yaml")
            + &read("helm/tcpwatch/templates/_helpers.tpl");
    for name in values.as_object().unwrap().keys() {
        assert!(text.contains(&format!(".Values.{name}")), "no template uses {name}");
    }
    for used in text.split(".Values.").skip(1) {
        let name: String = used.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(values.get(&name).is_some(), "a template uses {name}, which is no value");
    }
}

/// Every component of a pipeline of the collector is defined, and every one that is defined is of use.
#[test]
fn the_collectors_pipelines_are_made_of_what_there_is() {
    let config = yaml(&read("otel-collector/config.yaml"));
    let pipelines = config["service"]["pipelines"].as_object().unwrap();
    assert!(pipelines.contains_key("logs") && pipelines.contains_key("metrics"));
    for kind in ["receivers", "processors", "exporters"] {
        let defined: BTreeSet<String> = config[kind].as_object().unwrap().keys().cloned().collect();
        let used = pipelines.values().flat_map(|pipeline| words(&pipeline[kind])).collect::<BTreeSet<_>>();
        assert_eq!(used, defined, "{kind}");
    }
    let extensions: BTreeSet<String> = config["extensions"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(words(&config["service"]["extensions"]), extensions);
    for (name, pipeline) in pipelines {
        let order: Vec<_> =
            pipeline["processors"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        // Refuses first; what belongs to a pod is gathered before the pod is asked for; in batches last.
        assert_eq!(order.first(), Some(&"memory_limiter"), "{name}");
        assert_eq!(order.last(), Some(&"batch"), "{name}");
        let at = |part: &str| order.iter().position(|name| *name == part).unwrap();
        assert!(at("groupbyattrs") < at("k8sattributes"), "{name}");
    }
    // The names by which the agent tells of containers and pods.
    let record = include_str!("../src/agent/otlp/record.rs");
    for key in words(&config["processors"]["groupbyattrs"]["keys"]) {
        assert!(record.contains(&format!("\"{key}\"")), "the agent says nothing of {key}");
    }
}
