//! Which layers share which slot of the key and value cache.

use serde::Serialize;

use crate::facts::{Report, Slot};

/// A row for each slot, a cell for each layer.
#[derive(Debug, Serialize)]
pub(crate) struct Slots {
    pub(crate) rows: Vec<SlotRow>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SlotRow {
    pub(crate) slot: usize,
    pub(crate) reach: &'static str,
    pub(crate) head_dim: usize,
    pub(crate) cells: Vec<SlotCell>,
    pub(crate) summary: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct SlotCell {
    /// `writes`, `reads` or nothing.
    pub(crate) class: &'static str,
    pub(crate) title: String,
}

/// The map; nothing if the layers are not known.
pub(crate) fn slots(report: &Report) -> Option<Slots> {
    let count = report.slots.iter().map(|slot| slot.slot).max()? + 1;
    let row = |number: usize| {
        let users: Vec<&Slot> = report.slots.iter().filter(|slot| slot.slot == number).collect();
        let first = users.first()?;
        Some(SlotRow {
            slot: number,
            reach: if first.full { "full" } else { "sliding" },
            head_dim: first.head_dim,
            cells: report.slots.iter().map(|slot| cell(slot, number)).collect(),
            summary: summary(&users),
        })
    };
    Some(Slots { rows: (0..count).filter_map(row).collect() })
}

fn cell(slot: &Slot, number: usize) -> SlotCell {
    let (class, verb) = match (slot.slot == number, slot.writes) {
        (false, _) => return SlotCell { class: "", title: String::new() },
        (true, true) => ("writes", "writes and reads"),
        (true, false) => ("reads", "reads"),
    };
    SlotCell { class, title: format!("layer {} {verb} slot {number}", slot.layer) }
}

fn summary(users: &[&Slot]) -> String {
    let layers = |writes: bool| -> Vec<String> {
        let found = users.iter().filter(|user| user.writes == writes);
        found.map(|user| user.layer.to_string()).collect()
    };
    let (writers, readers) = (layers(true).join(", "), layers(false));
    if readers.is_empty() {
        return format!("layer {writers}");
    }
    format!("layer {writers}, also read by {}", readers.join(", "))
}
