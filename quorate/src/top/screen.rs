//! The terminal while `quorate top` has it.

use std::{
    io::{self, Stdout, Write as _},
    thread,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    execute, queue,
    style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor},
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use tokio::sync::mpsc;

use super::frame::{Line, Look};

/// What a person wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Quit,
    Pause,
    /// Anything that calls for another look: the size has changed, or a key that means nothing.
    Other,
}

/// Another screen of the terminal, and its keys. Dropped, it gives the terminal back as it was.
pub(super) struct Screen {
    out: Stdout,
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Screen> {
        let (pressed, keys) = mpsc::channel(16);
        terminal::enable_raw_mode()?;
        let mut screen = Screen { out: io::stdout(), keys };
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        // Blocks until the process ends: a terminal can be read in no other way.
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while let Ok(event) = event::read() {
                if pressed.blocking_send(key(&event)).is_err() {
                    return;
                }
            }
        })?;
        Ok(screen)
    }

    /// The next key; `None` if the terminal is gone.
    pub(super) async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Replaces what is on the screen. What does not fit is cut off.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        for (row, line) in (0..height).zip(lines) {
            let text: String = line.text.chars().take(width.into()).collect();
            queue!(self.out, MoveTo(0, row))?;
            match line.look {
                Look::Plain => {}
                Look::Title => queue!(self.out, SetAttribute(Attribute::Bold))?,
                Look::Header => queue!(self.out, SetAttribute(Attribute::Reverse))?,
                Look::Leader => queue!(self.out, SetForegroundColor(Color::Green))?,
                Look::Bad => queue!(self.out, SetForegroundColor(Color::Red))?,
            }
            queue!(
                self.out,
                Print(text),
                SetAttribute(Attribute::Reset),
                ResetColor,
                Clear(ClearType::UntilNewLine)
            )?;
        }
        let below = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        if below < height {
            queue!(self.out, MoveTo(0, below), Clear(ClearType::FromCursorDown))?;
        }
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = execute!(self.out, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn key(event: &Event) -> Key {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Release => Key::Other,
        Event::Key(key) => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
            KeyCode::Char(' ') => Key::Pause,
            _ => Key::Other,
        },
        _ => Key::Other,
    }
}
