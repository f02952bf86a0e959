//! A capture from anybody: `-r FILE` and everything that is made of one.
//!
//! Whatever the bytes are, they are read to their end or refused with a sentence and a hint. What was read is shown in every way there
//! is: JSON is JSON, and no text of the file reaches a terminal as an order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpwatch::capture::{Reader, Said};
use tcpwatch::report::ReportSink;
use tcpwatch::sink::Sink;
use tcpwatch::sink::json::JsonSink;
use tcpwatch::sink::text::{TextOptions, TextSink};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(broken) => return assert!(broken.to_string().contains("\nhint: "), "{broken}"),
    };
    let (mut json, mut text, mut page) = (Vec::new(), Vec::new(), Vec::new());
    {
        let mut json = JsonSink::new(&mut json);
        let mut text = TextSink::new(&mut text, TextOptions { color: true });
        let mut report = ReportSink::new(&mut page, "a.pcapng".to_owned(), reader.host().clone());
        let mut sinks: [&mut dyn Sink; 3] = [&mut json, &mut text, &mut report];
        loop {
            let said = match reader.advance() {
                Ok(Some(said)) => said,
                Ok(None) => break,
                Err(broken) => {
                    assert!(broken.to_string().contains("\nhint: "), "{broken}");
                    break;
                }
            };
            for sink in &mut sinks {
                let shown = match &said {
                    Said::Start(start) => sink.start(start),
                    Said::Event(event) => sink.event(event).map(drop),
                    Said::Standing(all) => sink.standing(all),
                    Said::Lost(lost) => sink.lost(lost).map(drop),
                    Said::Summary(summary) => sink.summary(summary),
                };
                shown.expect("a vector takes everything");
            }
        }
    }
    for line in json.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<serde_json::Value>(line).expect("each line is JSON");
    }
    std::str::from_utf8(&text).expect("text is UTF-8");
    // What a terminal would take for an order comes from tcpwatch alone: colours.
    let orders = text.split(|byte| *byte == 0x1b).skip(1);
    assert!(orders.into_iter().all(|order| order.first() == Some(&b'[')), "an escape sequence from the file");
});
