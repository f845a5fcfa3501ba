//! `quorate gateway`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// The configuration file, TOML.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Internal ports of the stores, with commas between them; overrides `gateway.stores`.
    #[arg(long, value_name = "URL,...")]
    pub(crate) stores: Option<String>,

    /// Any other setting, by its key; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::key_and_value)]
    pub(crate) set: Vec<(String, String)>,

    /// End when the process with this id, which has to be the parent, does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) exit_with_parent: Option<u32>,
}

impl GatewayArgs {
    /// As pairs of key and value.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let stores = self.stores.iter().map(|stores| ("gateway.stores".to_owned(), stores.clone()));
        self.set.iter().cloned().chain(stores).collect()
    }
}
