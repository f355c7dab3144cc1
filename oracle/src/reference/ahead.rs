//! Reads the weights of the next layer while a layer is computed.

use std::sync::mpsc::sync_channel;
use std::thread;

use super::error::ReferenceError;
use super::weights::Weights;

/// Calls `f` for each layer in order, with its weights in memory; those of the next layer are read by another thread meanwhile. No more
/// than two layers are in memory.
///
/// # Errors
/// The first of `f`, or of reading.
pub(super) fn for_each_layer(
    weights: &Weights<'_>,
    layers: usize,
    mut f: impl FnMut(usize, &Weights<'_>) -> Result<(), ReferenceError>,
) -> Result<(), ReferenceError> {
    thread::scope(|scope| {
        // Without room in the channel, the thread holds the one layer that is next.
        let (sender, receiver) = sync_channel(0);
        scope.spawn(move || {
            for layer in 0..layers {
                let loaded = weights.load(layer);
                let failed = loaded.is_err();
                if sender.send(loaded).is_err() || failed {
                    return;
                }
            }
        });
        // The receiver ends with this iterator, and then the thread does.
        for (layer, loaded) in receiver.into_iter().enumerate() {
            f(layer, &weights.with(loaded?))?;
        }
        Ok(())
    })
}
