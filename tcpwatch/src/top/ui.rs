//! What was typed, and what it does to the screen.

use super::model::Model;
use crate::cli::Wanted;
use crate::event::Event;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::sync::Arc;

/// How the screen may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub color: bool,
    /// A capture is played: the speed of time can be changed.
    pub plays: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Causes,
    Listeners,
    Processes,
    Events,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Causes, Self::Listeners, Self::Processes, Self::Events];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Causes => "Causes",
            Self::Listeners => "Listeners",
            Self::Processes => "Processes",
            Self::Events => "Events",
        }
    }
}

/// What lies over the tables.
#[derive(Clone, Debug, Default)]
pub(super) enum Over {
    #[default]
    Nothing,
    Help,
    /// Events for one reason, or of one process or listener: what they are, and which line of them is chosen.
    Some {
        title: String,
        events: Vec<Arc<Event>>,
        line: usize,
    },
    /// One event. Behind it what it was chosen from.
    One {
        event: Arc<Event>,
        scroll: u16,
        behind: Box<Over>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Ui {
    pub(super) look: Look,
    pub(super) tab: Tab,
    /// The chosen line of each tab.
    pub(super) lines: [usize; 4],
    pub(super) over: Over,
    /// What is being typed into the filter box.
    pub(super) typing: Option<String>,
    pub(super) filter: String,
    /// Why the filter is none.
    pub(super) wrong: Option<String>,
    pub(super) paused: bool,
    /// What came while it was paused.
    pub(super) waiting: u64,
    /// Of a capture: how many times as fast as it was.
    pub(super) speed: f64,
    pub(super) ended: bool,
}

/// What the terminal has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Do {
    Nothing,
    Draw,
    Quit,
}

impl Ui {
    pub(super) fn new(look: Look) -> Self {
        Self {
            look,
            tab: Tab::default(),
            lines: [0; 4],
            over: Over::Nothing,
            typing: None,
            filter: String::new(),
            wrong: None,
            paused: false,
            waiting: 0,
            speed: 1.0,
            ended: false,
        }
    }

    fn at(&mut self) -> &mut usize {
        &mut self.lines[self.tab as usize]
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent, model: &mut Model) -> Do {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Do::Quit;
        }
        if self.typing.is_some() {
            return self.type_on(key.code, model);
        }
        match key.code {
            KeyCode::Char('q') => return Do::Quit,
            KeyCode::Char('?' | 'h') => {
                self.over = if matches!(self.over, Over::Help) { Over::Nothing } else { Over::Help };
            }
            KeyCode::Char('/') => {
                self.wrong = None;
                self.typing = Some(self.filter.clone());
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+') if self.look.plays => self.speed = (self.speed * 2.0).min(1024.0),
            KeyCode::Char('-') if self.look.plays => self.speed = (self.speed / 2.0).max(0.125),
            KeyCode::Char(digit @ '1'..='4') => {
                self.over = Over::Nothing;
                self.tab = Tab::ALL[digit as usize - '1' as usize];
            }
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(3),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, model),
            KeyCode::Down | KeyCode::Char('j') => self.step(1, model),
            KeyCode::PageUp => self.step(-10, model),
            KeyCode::PageDown => self.step(10, model),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN, model),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX, model),
            KeyCode::Enter => self.open(model),
            KeyCode::Esc | KeyCode::Backspace => self.back(model),
            _ => return Do::Nothing,
        }
        Do::Draw
    }

    fn turn(&mut self, by: usize) {
        if matches!(self.over, Over::Nothing) {
            self.tab = Tab::ALL[(self.tab as usize + by) % 4];
        }
    }

    fn step(&mut self, by: isize, model: &Model) {
        match &mut self.over {
            Over::Nothing => {
                let rows = self.rows(model);
                let at = self.at();
                *at = at.saturating_add_signed(by).min(rows.saturating_sub(1));
            }
            Over::Some { events, line, .. } => {
                *line = line.saturating_add_signed(by).min(events.len().saturating_sub(1));
            }
            Over::One { scroll, .. } => {
                let by = by.clamp(-1_000, 1_000);
                *scroll =
                    u16::try_from(isize::from(i16::try_from(*scroll).unwrap_or(0)).saturating_add(by).max(0))
                        .unwrap_or(0);
            }
            Over::Help => {}
        }
    }

    /// Lines of the tab.
    fn rows(&self, model: &Model) -> usize {
        match self.tab {
            Tab::Causes => model.causes().len(),
            Tab::Listeners => model.listeners().len(),
            Tab::Processes => model.processes().len(),
            Tab::Events => model.events.len(),
        }
    }

    fn open(&mut self, model: &Model) {
        let line = *self.at();
        let of = |wanted: &dyn Fn(&Event) -> bool| -> Vec<Arc<Event>> {
            model.events.iter().rev().filter(|event| wanted(event)).take(1_000).cloned().collect()
        };
        self.over = match std::mem::take(&mut self.over) {
            Over::Some { title, events, line } => match events.get(line).cloned() {
                Some(event) => {
                    let behind = Box::new(Over::Some { title, events, line });
                    Over::One { event, scroll: 0, behind }
                }
                None => Over::Some { title, events, line },
            },
            Over::Nothing => match self.tab {
                Tab::Causes => model.causes().get(line).map_or(Over::Nothing, |row| Over::Some {
                    title: format!("{} {}", row.kind.name(), row.id),
                    events: of(&|event| {
                        event.kind == row.kind && event.cause.as_ref().is_some_and(|cause| cause.id == row.id)
                    }),
                    line: 0,
                }),
                Tab::Processes => model.processes().get(line).map_or(Over::Nothing, |row| Over::Some {
                    title: format!("{}[{}]", row.comm, row.pid.map_or("?".to_owned(), |pid| pid.to_string())),
                    events: of(&|event| {
                        event
                            .owner
                            .as_ref()
                            .is_some_and(|owner| owner.pid == row.pid && owner.comm == row.comm)
                    }),
                    line: 0,
                }),
                Tab::Listeners => model.listeners().get(line).map_or(Over::Nothing, |row| {
                    let port = row.local.rsplit(':').next().and_then(|port| port.parse().ok());
                    Over::Some {
                        title: format!("listener {}, netns {}", row.local, row.netns),
                        events: of(&|event| {
                            event.netns.unwrap_or(0) == row.netns
                                && event.local.is_some_and(|local| Some(local.port) == port)
                        }),
                        line: 0,
                    }
                }),
                Tab::Events => {
                    let event = model.events.iter().rev().nth(line).cloned();
                    event.map_or(Over::Nothing, |event| {
                        // Or the line would move on under the eye.
                        Over::One { event, scroll: 0, behind: Box::new(Over::Nothing) }
                    })
                }
            },
            Over::Help => Over::Nothing,
            one @ Over::One { .. } => one,
        };
    }

    fn back(&mut self, model: &mut Model) {
        match std::mem::take(&mut self.over) {
            Over::One { behind, .. } => self.over = *behind,
            Over::Nothing if !self.filter.is_empty() => {
                self.filter.clear();
                self.wrong = None;
                model.set_filter(Wanted::default());
            }
            _ => {}
        }
    }

    fn type_on(&mut self, code: KeyCode, model: &mut Model) -> Do {
        let Some(text) = &mut self.typing else { return Do::Nothing };
        match code {
            KeyCode::Char(letter) if text.len() < 200 => text.push(letter),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => match Wanted::parse(text) {
                Ok(wanted) => {
                    self.filter = std::mem::take(text);
                    self.typing = None;
                    self.wrong = None;
                    self.lines = [0; 4];
                    model.set_filter(wanted);
                }
                Err(why) => self.wrong = Some(why.to_string().replace("\nhint: ", ": ")),
            },
            _ => return Do::Nothing,
        }
        Do::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::tests::{LOOK, crowd};

    fn press(ui: &mut Ui, model: &mut Model, code: KeyCode) -> Do {
        ui.key(KeyEvent::new(code, KeyModifiers::NONE), model)
    }

    fn type_in(ui: &mut Ui, model: &mut Model, text: &str) {
        press(ui, model, KeyCode::Char('/'));
        ui.typing = Some(String::new());
        for letter in text.chars() {
            press(ui, model, KeyCode::Char(letter));
        }
        press(ui, model, KeyCode::Enter);
    }

    #[test]
    fn down_to_one_event_and_back() {
        let (mut model, mut ui) = (Model::default(), Ui::new(LOOK));
        crowd(&mut model);
        press(&mut ui, &mut model, KeyCode::Enter);
        let Over::Some { events, .. } = &ui.over else { panic!("{:?}", ui.over) };
        assert!(!events.is_empty());
        press(&mut ui, &mut model, KeyCode::Down);
        press(&mut ui, &mut model, KeyCode::Enter);
        assert!(matches!(ui.over, Over::One { .. }));
        press(&mut ui, &mut model, KeyCode::Esc);
        assert!(matches!(ui.over, Over::Some { .. }));
        press(&mut ui, &mut model, KeyCode::Esc);
        assert!(matches!(ui.over, Over::Nothing));
    }

    #[test]
    fn the_box_takes_an_expression_or_a_word() {
        let (mut model, mut ui) = (Model::default(), Ui::new(LOOK));
        crowd(&mut model);
        let all = model.events.len();
        type_in(&mut ui, &mut model, "port 80");
        assert!(model.events.len() < all, "{}", model.events.len());
        assert!(ui.typing.is_none() && ui.wrong.is_none());
        press(&mut ui, &mut model, KeyCode::Esc);
        assert_eq!(model.events.len(), all);
        type_in(&mut ui, &mut model, "port 99999");
        assert!(ui.wrong.is_some() && ui.typing.is_some(), "it stays to be put right");
        press(&mut ui, &mut model, KeyCode::Esc);
        type_in(&mut ui, &mut model, "redis");
        assert!(model.events.iter().all(|event| event.owner.as_ref().unwrap().comm.contains("redis")));
    }

    #[test]
    fn letters_in_the_box_are_letters() {
        let (mut model, mut ui) = (Model::default(), Ui::new(LOOK));
        press(&mut ui, &mut model, KeyCode::Char('/'));
        assert_eq!(press(&mut ui, &mut model, KeyCode::Char('q')), Do::Draw);
        assert_eq!(ui.typing.as_deref(), Some("q"));
        let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(ui.key(quit, &mut model), Do::Quit);
    }

    #[test]
    fn no_key_makes_it_fall_over() {
        let (mut model, mut ui) = (Model::default(), Ui::new(Look { plays: true, ..LOOK }));
        crowd(&mut model);
        let mut chance = fastrand::Rng::with_seed(3);
        let codes = [
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Backspace,
            KeyCode::Char('/'),
            KeyCode::Char('?'),
            KeyCode::Char('p'),
            KeyCode::Char('3'),
            KeyCode::Char('+'),
            KeyCode::Char('n'),
            KeyCode::F(5),
        ];
        for _ in 0..20_000 {
            press(&mut ui, &mut model, codes[chance.usize(..codes.len())]);
        }
    }
}
