//! Whole files, byte by byte.

use crate::common::{file_with_any_blobs, hex_digest};
use aimodel::build::AssetBuilder;
use aimodel::bytecode::layout::Layout;
use aimodel::bytecode::reader::Bytecode;
use aimodel::verify::verify_decompositions;
use aimodel::{Element, Module, TensorType};

/// y = relu(x + c), 2x3 f16: the worked example of the format's description, as Apple's serializer writes it.
#[test]
fn the_worked_example_has_the_known_bytes() {
    let ty = TensorType::fixed(&[2, 3], Element::F16);
    let mut graph = AssetBuilder::new().function("main");
    let x = graph.input("x", &ty);
    let steps = [0x0000_u16, 0x3C00, 0x4000, 0x4200, 0x4400, 0x4500];
    let steps = graph.elements(&ty, steps.iter().flat_map(|step| step.to_le_bytes()).collect()).unwrap();
    let sum = graph.add(x, steps).unwrap();
    let y = graph.relu(sum).unwrap();
    let module = graph.finish(&[], &[("y", y)]).unwrap().finish();
    assert_eq!(verify_decompositions(&module), Ok(2));
    let bytes = file_with_any_blobs(&module);
    assert_eq!(bytes.len(), 712);
    assert_eq!(hex_digest(&bytes), "9082357a1494eb4973e93237f0304a9f7f31b633395fc511d21ccd5ec1e83590");
}

/// A graph whose output has a name of some length.
fn named(length: usize, blob: bool) -> Module {
    let mut graph = AssetBuilder::new().function("main");
    let ty = TensorType::fixed(&[64], Element::F16);
    let value = if blob { graph.blob("weight", &ty).unwrap() } else { graph.zeros(&ty) };
    graph.finish(&[], &[("y".repeat(length).as_str(), value)]).unwrap().finish()
}

fn of_whole_pages(blob: bool) -> Module {
    let total = |length: usize| Layout::new(&named(length, blob)).unwrap().total;
    let length = (1..5000).find(|length| total(*length).is_multiple_of(4096)).unwrap();
    named(length, blob)
}

/// Loaders read such files whole instead of mapping them.
#[test]
fn files_of_whole_pages_are_avoided() {
    let mut module = of_whole_pages(true);
    let layout = Layout::avoiding_whole_pages(&mut module).unwrap();
    assert!(!layout.total.is_multiple_of(4096));
    assert!(module.find_resource("weight~").is_some() && module.find_resource("weight").is_none());
    assert_eq!(Layout::new(&module), Some(layout));
    let read = Bytecode::read(file_with_any_blobs(&module).as_slice()).unwrap();
    assert_eq!(read.module.resources().next().unwrap().key, "weight~");
}

#[test]
fn a_file_of_whole_pages_without_blobs_is_left_as_it_is() {
    let mut module = of_whole_pages(false);
    let layout = Layout::new(&module);
    assert_eq!(Layout::avoiding_whole_pages(&mut module), layout);
    assert!(layout.is_some_and(|layout| layout.total.is_multiple_of(4096)));
}

#[test]
fn a_module_without_a_root_has_no_layout() {
    assert_eq!(Layout::new(&Module::new()), None);
}

#[test]
fn blobs_are_aligned_to_sixteen_in_order_of_use() {
    let mut graph = AssetBuilder::new().function("main");
    let lengths = [1_u64, 16, 17, 4000];
    let parts: Vec<_> = lengths
        .iter()
        .map(|length| {
            graph.blob(&format!("part{length}"), &TensorType::fixed(&[*length], Element::Si8)).unwrap()
        })
        .collect();
    let axis = graph.scalar(aimodel::build::Scalar::Si32(0));
    let whole = graph.concat(axis, &parts).unwrap();
    let module = graph.finish(&[], &[("y", whole)]).unwrap().finish();
    let layout = Layout::new(&module).unwrap();
    let placed: Vec<u64> = layout.placements.iter().map(|placement| placement.length).collect();
    assert_eq!(placed, lengths);
    assert!(layout.placements.iter().all(|placement| placement.offset.is_multiple_of(16)));
    let read = Bytecode::read(file_with_any_blobs(&module).as_slice()).unwrap();
    for (blob, placement) in read.blobs.iter().zip(&layout.placements) {
        assert_eq!((blob.offset, blob.length), (placement.offset, placement.length));
    }
}
