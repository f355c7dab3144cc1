//! The ahead-of-time stage: finds the Core AI toolchain, runs it, checks what came out.
