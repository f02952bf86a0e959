//! What packages carry must fit what tcpwatch takes: the file of the agent's configuration.

use tcpwatch::agent::config::File;

const CONFIG: &str = include_str!("../../deploy/agent.toml");

/// The lines that somebody would take the `#` from.
fn uncommented() -> String {
    let lines = CONFIG.lines().filter_map(|line| line.strip_prefix('#'));
    lines.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase() || first == '[')).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

#[test]
fn the_packaged_configuration_says_nothing_and_shows_every_key() {
    let as_it_is: File = toml::from_str(CONFIG).unwrap();
    assert_eq!(as_it_is, File::default());
    let text = uncommented();
    let whole: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    // `Debug` names each key and its value.
    assert!(!format!("{whole:?}").contains("None"), "a key is not in deploy/agent.toml: {whole:?}");
}
