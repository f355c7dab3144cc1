//! One list of tensors from the headers of all files.

use super::{Header, ShardIndex, SourceError, TensorEntry};

/// Merges the files' tensors into one list sorted by name and compares it with the index, if there is one.
///
/// # Errors
/// A tensor in two files, in another file than the index says, in no file, or unknown to the index.
pub fn merge_shards(headers: &[Header], index: Option<&ShardIndex>) -> Result<Vec<TensorEntry>, SourceError> {
    let mut tensors: Vec<TensorEntry> =
        headers.iter().flat_map(|header| header.tensors.iter().cloned()).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.file.cmp(&b.file)));
    for pair in tensors.windows(2) {
        if let [first, second] = pair
            && first.name == second.name
        {
            return Err(SourceError::TensorTwice {
                tensor: first.name.clone(),
                first: first.file.to_string(),
                second: second.file.to_string(),
            });
        }
    }
    if let Some(index) = index {
        for tensor in &tensors {
            check_place(tensor, index)?;
        }
        check_complete(&tensors, index)?;
    }
    Ok(tensors)
}

fn check_place(tensor: &TensorEntry, index: &ShardIndex) -> Result<(), SourceError> {
    match index.shard_of(&tensor.name) {
        Some(shard) if shard == &*tensor.file => Ok(()),
        Some(shard) => Err(SourceError::TensorMisplaced {
            tensor: tensor.name.clone(),
            indexed: shard.to_owned(),
            found: tensor.file.to_string(),
        }),
        None => Err(SourceError::NotInIndex { tensor: tensor.name.clone(), shard: tensor.file.to_string() }),
    }
}

fn check_complete(tensors: &[TensorEntry], index: &ShardIndex) -> Result<(), SourceError> {
    let present = |name: &str| tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok();
    let mut absent = index.entries().filter(|(tensor, _)| !present(tensor));
    match absent.next() {
        None => Ok(()),
        Some((tensor, shard)) => Err(SourceError::TensorAbsent {
            tensor: tensor.to_owned(),
            shard: shard.to_owned(),
            others: absent.count(),
        }),
    }
}
