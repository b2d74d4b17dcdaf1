//! The terminal while it is drawn on.

use std::io;

use ratatui::{DefaultTerminal, Frame};

/// A terminal that is as it was before when this is dropped, and also when the process panics.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(|terminal| Self { terminal })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic it is as it was already; a second time would move the cursor into the message.
        if crossterm::terminal::is_raw_mode_enabled().unwrap_or(true) {
            // There is nowhere to tell it.
            let _ = ratatui::try_restore();
        }
    }
}
