//! Where the lines of the shell come from: a terminal, or anything else.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
};

use api::Path;
use rustyline::{CompletionType, Config, Editor, error::ReadlineError, history::FileHistory};

use super::complete::Names;
use crate::{
    exit::{Doing as _, Failure},
    output,
};

/// What one look for a line found.
pub(super) enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is dropped.
    Dropped,
    /// Ctrl-D, or the end of the input.
    End,
}

/// The source of the lines.
pub(super) enum Input {
    /// A person, who gets a prompt, completion and a history.
    Terminal(Box<Terminal>),
    /// A script.
    Script,
}

impl Input {
    pub(super) fn open(names: Names, history: bool) -> Result<Input, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Script);
        }
        Terminal::open(names, history).map(|terminal| Input::Terminal(Box::new(terminal)))
    }

    /// Whether an error is for a person, who can go on, or ends the script.
    pub(super) fn is_script(&self) -> bool {
        matches!(self, Input::Script)
    }

    /// Blocks until there is a line. `here` is the current znode.
    pub(super) fn line(&mut self, here: &Path) -> Result<Typed, Failure> {
        match self {
            Input::Terminal(terminal) => terminal.line(here),
            Input::Script => {
                let mut line = String::new();
                match io::stdin().lock().read_line(&mut line).doing("read standard input")? {
                    0 => Ok(Typed::End),
                    _ => Ok(Typed::Line(line)),
                }
            }
        }
    }
}

/// A person at a terminal.
pub(super) struct Terminal {
    editor: Editor<Names, FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    fn open(names: Names, history: bool) -> Result<Terminal, Failure> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .auto_add_history(true)
            .history_ignore_space(true);
        let mut editor = Editor::with_config(config.build()).doing("use the terminal")?;
        editor.set_helper(Some(names));
        let history = history.then(history_file).flatten();
        if let Some(file) = history.as_ref().filter(|file| file.exists())
            && let Err(e) = editor.load_history(file)
        {
            output::say(format_args!("quorate: the history in {} cannot be read: {e}", file.display()));
        }
        Ok(Terminal { editor, history })
    }

    fn line(&mut self, here: &Path) -> Result<Typed, Failure> {
        if let Some(names) = self.editor.helper_mut() {
            names.here = here.clone();
        }
        match self.editor.readline(&format!("{here}> ")) {
            Ok(line) => Ok(Typed::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Typed::Dropped),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(e) => Err(e).doing("read the terminal"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(file) = &self.history else { return };
        let saved = file.parent().map_or(Ok(()), fs::create_dir_all).map_err(ReadlineError::from);
        if let Err(e) = saved.and_then(|()| self.editor.append_history(file)) {
            output::say(format_args!("quorate: the history in {} cannot be written: {e}", file.display()));
        }
    }
}

/// As the XDG base directories say; `None` without a home.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("quorate/history"))
}
