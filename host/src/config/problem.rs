use std::fmt;

/// Everything that is wrong with a configuration, one line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Where, what and what would be right.
    pub problems: Vec<String>,
}

impl ConfigError {
    pub(super) fn one(problem: impl Into<String>) -> ConfigError {
        ConfigError { problems: vec![problem.into()] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// The known key nearest to a misspelt one, or `None` if none is near enough.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .into_iter()
        .map(|k| {
            let whole = strsim::normalized_damerau_levenshtein(word, k);
            // A right key in the wrong section, or at the top: `init_limit` for `timing.init_limit`.
            let key = strsim::normalized_damerau_levenshtein(&last(word), &last(k)) - 0.1;
            (whole.max(key), k)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score >= 0.5)
        .map(|(_, k)| k)
}
