//! Directory trees as znodes: `quorate import` and `quorate export`.

pub(crate) mod export;
pub(crate) mod import;
mod name;
mod scan;
mod value;
pub(crate) mod walk;
