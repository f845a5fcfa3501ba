//! `quorate config show`.

use host::config;

use crate::{args::ConfigShow, exit::Failure, output};

pub(crate) fn run(args: &ConfigShow) -> Result<(), Failure> {
    let settings = &args.settings;
    let loaded = config::load(settings.config.as_deref(), config::process_env(), &settings.flags())?;
    let width = loaded.effective.iter().map(|e| e.key.len() + 3 + e.value.len()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    for e in &loaded.effective {
        if args.explain {
            text += &format!("# {} ({})\n", e.meaning, config::variable(&e.key));
        }
        let setting = format!("{} = {}", e.key, e.value);
        text += &format!("{setting:<width$}  # {}\n", e.source);
    }
    output::print(text.trim_end())
}
