//! `tcpwatch top` on a terminal of our own: what it draws, what keys do, and that the terminal is as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::tool::END;
use super::traffic::Ground;
use super::{Case, Lab, When, case};

pub(super) const CASES: &[Case] = &[
    case("top-live", When::Any, live),
    case("top-plays", When::Any, plays),
    case("top-killed", When::Any, ended),
];

const PORT: u16 = 8080;
/// What ends the other screen that programs of this kind draw on.
const LEAVES: &str = "\x1b[?1049l";

/// A terminal of 80 columns and 24 lines, and who draws on it.
struct Terminal {
    child: Child,
    keys: File,
    /// What is on the screen, and every byte that came.
    drawn: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
}

impl Terminal {
    fn open(lab: &Lab, args: &[&str]) -> Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: every pointer is to a live value, or null where that is allowed.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        ensure!(opened == 0, "openpty: {}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else has them.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let child = Command::new(&lab.tcpwatch)
            .args(args)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(slave.try_clone()?)
            .stdout(slave)
            .stderr(std::process::Stdio::null())
            .spawn()
            .context("starting tcpwatch top")?;
        let keys = File::from(master);
        let mut screen = keys.try_clone()?;
        let drawn = Arc::new(Mutex::new((vt100::Parser::new(24, 80, 0), Vec::new())));
        let kept = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody has the other side any more.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let mut drawn = kept.lock().unwrap_or_else(PoisonError::into_inner);
                drawn.0.process(&bytes[..count]);
                drawn.1.extend_from_slice(&bytes[..count]);
            }
        });
        Ok(Self { child, keys, drawn })
    }

    fn screen(&self) -> String {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).0.screen().contents()
    }

    /// Until all of these are on the screen.
    fn shows(&self, words: &[&str]) -> Result<()> {
        let end = Instant::now() + END;
        while Instant::now() < end {
            let screen = self.screen();
            if words.iter().all(|word| screen.contains(word)) {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{words:?} are not all there:\n{}", self.screen())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(())
    }

    /// It ends by itself, and leaves the terminal.
    fn leaves(mut self, code: i32) -> Result<String> {
        let end = Instant::now() + END;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.code() == Some(code), "it ended with {status}");
                sleep(Duration::from_millis(50));
                let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
                let text = String::from_utf8_lossy(&drawn.1);
                ensure!(text.contains(LEAVES), "the screen is not given back: {text:?}");
                return Ok(drawn.0.screen().contents());
            }
            sleep(Duration::from_millis(20));
        }
        bail!("it does not end")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Gone already in the good case.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn live(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let mut screen = Terminal::open(lab, &["top", "--netns", &inode, "--attach", "tracepoint"])?;
    screen.shows(&["[1 Causes]", "Nothing yet"])?;
    ground.reset(listener, PORT)?;
    screen.shows(&["linger-zero", "reset-by-peer", "hcli"])?;
    screen.press("2")?;
    screen.shows(&["[2 Listeners]", ":8080"])?;
    screen.press("4\r")?;
    screen.shows(&["known by", "ESTABLISHED"])?;
    screen.press("\x1b")?;
    screen.shows(&["[4 Events]"])?;
    screen.press("/port 1\r")?;
    screen.shows(&["only: port 1", "No event yet"])?;
    screen.press("q")?;
    let last = screen.leaves(0)?;
    ensure!(last.contains("tcp_send_reset") || last.contains("OutRsts"), "no books at the end: {last}");
    Ok(())
}

/// A capture is played, as fast as the keys say, and stays until it was looked at.
fn plays(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let capture = format!("{}/played.pcapng", lab.scratch.path().display());
    let inode = ground.inode();
    let args = ["--json", "--netns", &inode, "--attach", "tracepoint", "-w", &capture];
    let running = lab.tool(&args).spawn()?.started()?;
    ground.reset(listener, PORT)?;
    sleep(Duration::from_secs(2));
    ground.reset(listener, PORT)?;
    running.stop()?.exits(0)?;
    let mut screen = Terminal::open(lab, &["top", "-r", &capture])?;
    screen.shows(&["played 1", "linger-zero"])?;
    screen.press("++++++")?;
    screen.shows(&["played to the end"])?;
    screen.press("q")?;
    screen.leaves(0)?;
    Ok(())
}

/// A signal ends it in order, as it ends every command.
fn ended(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let inode = ground.inode();
    let screen = Terminal::open(lab, &["top", "--netns", &inode, "--attach", "tracepoint"])?;
    screen.shows(&["[1 Causes]"])?;
    crate::sys::signal(i32::try_from(screen.child.id())?, libc::SIGTERM)?;
    screen.leaves(0)?;
    Ok(())
}
