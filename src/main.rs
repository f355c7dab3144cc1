//! The command `coreai-bundle`.

fn main() {}
