//! The terminal: a thread that takes what happened, reads the keys, and draws.

use super::model::Model;
use super::ui::{Do, Look, Ui};
use super::view;
use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::sink::{Shown, Sink, text, time};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self as keys, KeyEventKind};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What may wait for the screen: some megabytes of events. It takes far more than that in a second.
const WAITING: usize = 16_384;
/// Between two drawings, while something happens.
const PACE: Duration = Duration::from_millis(100);
/// While nothing does: the clock and the bars move on.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks at the host's listeners.
const LOOK: Duration = Duration::from_secs(2);
/// Events taken before the keys are looked at again.
const BATCH: usize = 4_096;

/// What happened.
enum News {
    Start(Box<Start>, String),
    Event(Arc<Event>),
    Standing(Vec<Standing>),
    Lost(Lost),
}

/// What the run has to know of the screen.
#[derive(Debug, Default)]
struct Shared {
    /// The user has seen enough.
    over: AtomicBool,
    /// Thousandths of the speed at which a capture is played.
    speed: AtomicU64,
    /// The capture has come to its end.
    ended: AtomicBool,
    failed: Mutex<Option<io::Error>>,
}

/// The screen's end that the run holds: it goes back to what it was when this is dropped.
#[derive(Debug)]
pub struct Screen {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// The end that events go into.
pub struct TopSink {
    news: SyncSender<News>,
    shared: Arc<Shared>,
    host: String,
    plays: bool,
    summary: Arc<Mutex<Option<Summary>>>,
}

impl Screen {
    /// Takes the terminal. `host` is the name of where it happens.
    ///
    /// # Errors
    /// Standard output is no terminal.
    pub fn take(look: Look, host: String) -> io::Result<(Self, TopSink)> {
        let terminal = ratatui::try_init()?;
        let (news, taken) = sync_channel(WAITING);
        let shared = Arc::new(Shared { speed: AtomicU64::new(1_000), ..Shared::default() });
        let told = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let mut terminal = terminal;
            if let Err(error) = show(&mut terminal, look, &taken, &told) {
                *told.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            told.over.store(true, Ordering::Relaxed);
        });
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                ratatui::restore();
                return Err(error);
            }
        };
        let summary = Arc::default();
        let sink = TopSink { news, shared: Arc::clone(&shared), host, plays: look.plays, summary };
        Ok((Self { thread, shared }, sink))
    }

    /// Gives the terminal back, and what the run came to.
    ///
    /// # Errors
    /// The terminal could not be drawn on.
    pub fn give_back(mut self) -> io::Result<()> {
        self.end();
        let failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it does, the terminal has to be put right all the same.
            drop(thread.join());
            ratatui::restore();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's work, until the user or the run has enough.
fn show(
    terminal: &mut DefaultTerminal,
    look: Look,
    news: &Receiver<News>,
    shared: &Shared,
) -> io::Result<()> {
    let mut model = Model::default();
    let mut ui = Ui::new(look);
    let mut held: Vec<Arc<Event>> = Vec::new();
    let (mut drawn, mut dirty) = (Instant::now(), true);
    terminal.draw(|frame| view::draw(frame, &model, &ui))?;
    while !shared.over.load(Ordering::Relaxed) {
        let wait = if dirty { PACE.saturating_sub(drawn.elapsed()) } else { PACE };
        // The keys first: they are what somebody waits for.
        if keys::poll(wait)? {
            let done = match keys::read()? {
                keys::Event::Key(key) if key.kind != KeyEventKind::Release => ui.key(key, &mut model),
                keys::Event::Resize(..) => Do::Draw,
                _ => Do::Nothing,
            };
            match done {
                Do::Quit => return Ok(()),
                Do::Draw => {
                    shared.speed.store((ui.speed * 1_000.0) as u64, Ordering::Relaxed);
                    if !ui.paused {
                        held.drain(..).for_each(|event| model.event(&event));
                        ui.waiting = 0;
                    }
                    terminal.draw(|frame| view::draw(frame, &model, &ui))?;
                    (drawn, dirty) = (Instant::now(), false);
                }
                Do::Nothing => {}
            }
        }
        for _ in 0..BATCH {
            let Ok(one) = news.try_recv() else { break };
            dirty = true;
            match one {
                News::Start(start, host) => model.start(*start, host),
                // As much as is looked at later; of what is more, the latest.
                News::Event(event) if ui.paused => {
                    ui.waiting += event.count;
                    held.push(event);
                }
                News::Event(event) => model.event(&event),
                News::Standing(all) => model.standing(&all),
                News::Lost(lost) => model.lost(&lost),
            }
        }
        let ended = shared.ended.load(Ordering::Relaxed);
        dirty |= ended != ui.ended;
        ui.ended = ended;
        if !look.plays {
            model.tick(time::now_ns());
        }
        let since = drawn.elapsed();
        if dirty && since >= PACE || since >= IDLE {
            terminal.draw(|frame| view::draw(frame, &model, &ui))?;
            (drawn, dirty) = (Instant::now(), false);
        }
    }
    Ok(())
}

impl TopSink {
    fn send(&self, news: News) -> Shown {
        match self.news.try_send(news) {
            Err(TrySendError::Full(_)) => Shown::No,
            // Who is gone has seen enough.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Shown::Yes,
        }
    }

    /// Where the books of the run are put, for when the screen is given back.
    pub fn books(&self) -> Arc<Mutex<Option<Summary>>> {
        Arc::clone(&self.summary)
    }
}

/// The books as text.
pub fn books(summary: &Summary) -> String {
    let mut page = Vec::new();
    // Into memory: it cannot fail.
    drop(text::books::write(&mut page, summary));
    String::from_utf8_lossy(&page).into_owned()
}

impl Sink for TopSink {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.send(News::Start(Box::new(start.clone()), self.host.clone()));
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        Ok(self.send(News::Event(Arc::new(event.clone()))))
    }

    fn judges(&self) -> bool {
        true
    }

    fn looks_again(&self) -> Option<Duration> {
        (!self.plays).then_some(LOOK)
    }

    fn over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    fn plays_at(&self) -> Option<f64> {
        self.plays.then(|| self.shared.speed.load(Ordering::Relaxed) as f64 / 1_000.0)
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.send(News::Standing(all.to_vec()));
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        Ok(self.send(News::Lost(lost.clone())))
    }

    fn closing(&mut self) {}

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary.clone());
        self.shared.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
