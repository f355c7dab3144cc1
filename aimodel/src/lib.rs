//! The .aimodel package format: graph IR, verifier, printer, bytecode reader and writer.

pub mod staging;
