//! The packages that Apple's tools wrote: read, checked, and written again byte for byte.

use crate::common::{REFERENCES, TABLES, file_with_any_blobs, reference, reference_program, rewritten};
use aimodel::bytecode::reader::Bytecode;
use aimodel::package::Package;
use aimodel::print::{Listing, Part};
use aimodel::verify::{only_unknown_locations, verify, verify_decompositions};
use sha2::{Digest, Sha256};

/// Composite ops of each package's graph, as counted by the format's own companion tools.
const COMPOSITES: [usize; 4] = [804, 804, 804, 806];

#[test]
fn rewriting_gives_the_same_bytes() {
    for name in REFERENCES.into_iter().chain(TABLES) {
        let bytes = reference_program(name);
        let read = Bytecode::read(bytes.as_slice()).unwrap();
        let again = rewritten(&bytes, &read);
        let differs = bytes.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name}");
        assert_eq!(bytes.len(), again.len(), "{name}");
    }
}

#[test]
fn every_stored_decomposition_is_the_one_that_we_would_write() {
    for (name, composites) in REFERENCES.into_iter().zip(COMPOSITES) {
        let read = Bytecode::read(reference_program(name).as_slice()).unwrap();
        assert_eq!(verify_decompositions(&read.module), Ok(composites), "{name}");
        assert!(only_unknown_locations(&read.module));
    }
}

#[test]
fn opening_a_package_reads_its_program_in_place() {
    for name in REFERENCES {
        let package = Package::open(&reference(name)).unwrap();
        let bytes = reference_program(name);
        let hash = std::fs::read(reference(name).join("main.hash")).unwrap();
        assert_eq!(Sha256::digest(&bytes).as_slice(), hash);
        assert_eq!(package.bytecode.length, bytes.len() as u64);
        assert_eq!(package.bytecode.blobs.len(), package.bytecode.module.resources().len());
        assert!(verify(&package.bytecode.module).is_ok());
    }
}

#[test]
fn listings_do_not_depend_on_who_wrote_the_file() {
    for name in REFERENCES {
        let read = Bytecode::read(reference_program(name).as_slice()).unwrap();
        let text = Listing::new(&read.module).regions(true).to_string();
        let bytes = file_with_any_blobs(&read.module);
        let again = Bytecode::read(bytes.as_slice()).unwrap();
        assert_eq!(Listing::new(&again.module).regions(true).to_string(), text, "{name}");
    }
}

#[test]
fn a_listing_names_inputs_states_and_outputs() {
    let read = Bytecode::read(reference_program("tbl.int4-symmetric").as_slice()).unwrap();
    let text = Listing::new(&read.module).to_string();
    let head: Vec<&str> = text.lines().take(9).collect();
    let expected = [
        "asset {version = 20260317 : ui32}",
        "graph \"main\" {",
        "  input %0 \"input_ids\" : tensor<1x1xsi32>",
        "  input %1 \"position_ids\" : tensor<1x?xsi32>",
        "  input %2 \"ple_table\" : tensor<512x384xsi8>",
        "  input %3 \"ple_scale\" : tensor<512xf32>",
        "  state %4 \"keyCache\" : handle<tensor<7x1x2x?x64xf16>>",
        "  state %5 \"valueCache\" : handle<tensor<7x1x2x?x64xf16>>",
        "  output %1181 \"keyCache\" : token",
    ];
    assert_eq!(head, expected);
    assert!(!text.contains("%?"), "every operand has a name");
}

#[test]
fn a_listing_of_weights_follows_them_to_where_they_are_used() {
    let read = Bytecode::read(reference_program("tbl.int4-symmetric").as_slice()).unwrap();
    let key = "resource_3481046537506532113";
    let text = Listing::new(&read.module).part(&Part::Weights(key.to_owned())).to_string();
    let ops: Vec<&str> = text.lines().skip_while(|line| !line.contains("constant")).collect();
    let expected = [
        "  %c5 = constant splat(0) : tensor<384x4xsi4>",
        "  %c6 = constant @resource_6022170875347081705 : tensor<384x4xf16>",
        "  %c7 = constant @resource_3481046537506532113 : tensor<384x128xsi4>",
        "  %c307 = constant splat(0.0) : tensor<384x4xf16>",
        "  %c308 = constant [1, 0] : tensor<2xui32>",
        "  ... 18 ops",
        "  %26 = blockwise_shift_scale(%c7, %c6, %c5, %c307) : tensor<384x128xf16>",
        "  %27 = transpose(%26, %c308) : tensor<128x384xf16>",
        "  %28 = broadcasting_batch_matmul(%17, %27) : tensor<1x1x384xf16>",
        "  ... 1768 ops",
        "}",
    ];
    assert_eq!(ops, expected);
    assert!(Listing::new(&read.module).part(&Part::Weights("no such key".to_owned())).is_empty());
}

#[test]
fn debug_information_survives_reading_and_writing() {
    let bytes = include_bytes!("../data/debug-information.mlirb").as_slice();
    let read = Bytecode::read(bytes).unwrap();
    assert_eq!(verify_decompositions(&read.module), Ok(2));
    assert!(!only_unknown_locations(&read.module));
    assert!(rewritten(bytes, &read) == bytes);
}
