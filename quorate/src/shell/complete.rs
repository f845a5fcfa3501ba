//! What Tab offers in the shell: commands and paths.

use std::time::Duration;

use api::{Look, Page, Path, Read, ReadLevel, ReadOutcome};
use clap::CommandFactory as _;
use client_sdk::Client;
use rustyline::{
    Context, Helper,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};
use tokio::{runtime::Handle, time::timeout};

use super::place::resolve;
use crate::args::ShellLine;

/// Tab gives up after this time: the terminal waits for it.
const WITHIN: Duration = Duration::from_secs(2);

/// Completes lines with the names of znodes as the connected node has them.
pub(super) struct Names {
    pub(super) client: Client,
    /// Where the client lives; the terminal has a thread of its own.
    pub(super) runtime: Handle,
    /// The current znode.
    pub(super) here: Path,
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Some(before) = line.get(..pos) else { return Ok((pos, Vec::new())) };
        let (start, word) = last_word(before);
        let first = before.get(..start).is_none_or(|before| before.trim().is_empty());
        let pairs = if first { commands(&word) } else { self.paths(&word) };
        Ok((start, pairs))
    }
}

impl Names {
    fn paths(&self, word: &str) -> Vec<Pair> {
        let (above, begun) = match word.rfind('/') {
            Some(slash) => word.split_at(slash + 1),
            None => ("", word),
        };
        let Ok(parent) = resolve(&self.here, above) else { return Vec::new() };
        // Tab has no place for an error; without an answer there is nothing to offer.
        let found = self.runtime.block_on(timeout(WITHIN, found(&self.client, &parent, begun)));
        let Ok(Some(Found { names, more })) = found else { return Vec::new() };
        let mut pairs: Vec<Pair> = names
            .into_iter()
            .filter_map(|(name, has_children)| {
                let slash = if has_children { "/" } else { "" };
                let path = format!("{above}{name}{slash}");
                Some(Pair { display: format!("{name}{slash}"), replacement: quoted(&path)? })
            })
            .collect();
        if more {
            // Otherwise the common beginning of the first thousand would be taken for that of all.
            pairs.push(Pair { display: "...".to_owned(), replacement: word.to_owned() });
        }
        pairs
    }
}

/// Children whose names begin as the word does.
struct Found {
    /// With whether the child has children.
    names: Vec<(String, bool)>,
    /// There are more than fit into a page.
    more: bool,
}

async fn found(client: &Client, parent: &Path, begun: &str) -> Option<Found> {
    let page = Page { after: begun.to_owned(), look: Look::Stat, ..Page::default() };
    let mut reads = vec![Read::Children { path: parent.clone(), page }];
    // A page begins behind the name that it is given.
    if let Ok(whole) = parent.child(begun) {
        reads.push(Read::Exists { path: whole });
    }
    let mut answers = client.multi_read(reads, ReadLevel::Local).await.ok()?.into_iter();
    let Ok(ReadOutcome::Listed(listing)) = answers.next()? else { return None };
    let whole = match answers.next() {
        Some(Ok(ReadOutcome::Exists { stat: Some(stat) })) => Some((begun.to_owned(), stat.num_children > 0)),
        _ => None,
    };
    let count = listing.children.len();
    let child = |child: api::Child| (child.name, child.stat.is_some_and(|stat| stat.num_children > 0));
    let children = listing.children.into_iter().map(child);
    let names: Vec<(String, bool)> =
        whole.into_iter().chain(children.take_while(|(name, _)| name.starts_with(begun))).collect();
    Some(Found { more: !listing.next.is_empty() && names.len() >= count, names })
}

fn commands(begun: &str) -> Vec<Pair> {
    let names = ShellLine::command().get_subcommands().map(|c| c.get_name().to_owned()).collect::<Vec<_>>();
    let names = names.into_iter().chain(["help".to_owned()]);
    let pair = |name: String| Pair { display: name.clone(), replacement: format!("{name} ") };
    names.filter(|name| name.starts_with(begun)).map(pair).collect()
}

/// Where the last word begins, and what it says without its quotes.
fn last_word(text: &str) -> (usize, String) {
    let (mut start, mut word, mut quote, mut escaped, mut between) = (0, String::new(), None, false, true);
    for (at, c) in text.char_indices() {
        if between && !c.is_whitespace() {
            (start, between) = (at, false);
            word.clear();
        }
        match (quote, c) {
            _ if between => {}
            (_, c) if escaped => {
                word.push(c);
                escaped = false;
            }
            (None | Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => between = true,
            (_, c) => word.push(c),
        }
    }
    if between { (text.len(), String::new()) } else { (start, word) }
}

/// As the shell reads it back; `None` for what no line can have.
fn quoted(path: &str) -> Option<String> {
    shlex::try_quote(path).ok().map(std::borrow::Cow::into_owned)
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}

impl Validator for Names {}

impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_found_behind_quotes_and_escapes() {
        for (line, start, word) in [
            ("", 0, ""),
            ("ls", 0, "ls"),
            ("ls ", 3, ""),
            ("ls  /a", 4, "/a"),
            ("get '/a b", 4, "/a b"),
            ("get '/a b'/c", 4, "/a b/c"),
            ("get \"/a \\\"b", 4, "/a \"b"),
            ("get /a\\ b", 4, "/a b"),
            ("set '/a b' x", 11, "x"),
        ] {
            assert_eq!(last_word(line), (start, word.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn commands_are_offered_by_their_beginning() {
        let offered: Vec<String> = commands("s").into_iter().map(|pair| pair.replacement).collect();
        assert_eq!(offered, ["stat ", "set ", "sync "]);
        assert_eq!(commands("he").len(), 1);
        assert_eq!(quoted("/a b").as_deref(), Some("'/a b'"));
    }
}
