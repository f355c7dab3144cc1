//! `check`: silent on good bundles, and one planted fault for every rule.

#![allow(clippy::unwrap_used)]

mod faults;
mod fixture;
mod good;
mod mutations;
