//! `check`: silent on good bundles, and one planted fault for every rule.

mod faults;
mod fixture;
mod good;
mod mutations;
