//! Damaged and hostile files: an error, or a module that can be verified, listed and laid out. Never a panic, never memory out of
//! proportion to the file.

use std::alloc::{GlobalAlloc, Layout as Request, System};
use std::cell::Cell;
use std::fmt::{self, Write};

use crate::common::alignment::assert_aligned;
use crate::common::mutation::{Numbers, damage, mutant};
use crate::common::raw::{self, Raw, varints};
use crate::common::{REFERENCES, cases, file_with_any_blobs, reference_program};
use aimodel::Module;
use aimodel::align::{Graph, adopt_names};
use aimodel::bytecode::layout::Layout;
use aimodel::bytecode::reader::{Bytecode, ReadError};
use aimodel::package::{PROGRAM, Package};
use aimodel::print::{Listing, Part};
use aimodel::verify::{only_unknown_locations, verify, verify_decompositions};
use aimodel::view::piece;

/// Counts the bytes that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(taken: usize, given: usize) {
    // Threads that are ending are no longer counted.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(taken).wrapping_sub(given));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, request: Request) -> *mut u8 {
        count(request.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(request) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, request: Request) {
        count(0, request.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, request) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, request: Request, size: usize) -> *mut u8 {
        // Both blocks may be held while bytes are moved.
        count(size, 0);
        count(0, request.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, request, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that `work` held at a time, beyond those held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let made = work();
    (made, PEAK.get() - before)
}

/// Memory that a file may take for each of its bytes, and in any case.
const FACTOR: usize = 64;
const FLOOR: usize = 1 << 16;

/// A text that is discarded.
struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// Reads a file and does everything with it that is possible; returns whether it could be read.
fn survive(bytes: &[u8], factor: usize) -> Result<Bytecode, ReadError> {
    survive_beside(bytes, factor, &Module::new())
}

/// [`survive`], and the module is compared with another one.
fn survive_beside(bytes: &[u8], factor: usize, other: &Module) -> Result<Bytecode, ReadError> {
    let cap = factor * bytes.len() + FLOOR;
    let (read, peak) = peak_of(|| Bytecode::read(bytes));
    assert!(peak <= cap, "reading {} bytes took {peak}", bytes.len());
    if let Ok(read) = &read {
        let (_, peak) = peak_of(|| use_module(read, other));
        assert!(peak <= cap, "using {} bytes took {peak}", bytes.len());
    }
    read
}

fn use_module(read: &Bytecode, other: &Module) {
    // Whether it is a good module does not matter here, only that the check terminates.
    let _ = verify(&read.module);
    let _ = verify_decompositions(&read.module);
    let _ = only_unknown_locations(&read.module);
    let _ = Layout::new(&read.module);
    for part in [Part::Whole, Part::Layer(0), Part::Weights("w".to_owned())] {
        write!(Nowhere, "{}", Listing::new(&read.module).regions(true).part(&part)).unwrap();
    }
    let others = Graph::all(other);
    for graph in Graph::all(&read.module) {
        assert_aligned(&graph, &graph);
        for other in &others {
            assert_aligned(&graph, other);
            assert_aligned(other, &graph);
        }
    }
    adopt_names(&mut read.module.clone(), other);
}

/// A file of a few kilobytes that has everything: states, blobs, literals, composite ops in each other.
fn small_files() -> Vec<Vec<u8>> {
    let names = [
        "states",
        "blockwise_shift_scale si4 8x64",
        "softmax -1 of tensor<4x5x6xf16>",
        "pad tensor<2x3xf16>",
    ];
    let cases: Vec<_> = cases::all().into_iter().filter(|case| names.contains(&case.name.as_str())).collect();
    assert_eq!(cases.len(), names.len());
    cases.iter().map(|case| file_with_any_blobs(&case.module)).collect()
}

#[test]
fn truncation_anywhere_is_an_error() {
    for whole in small_files() {
        survive(&whole, FACTOR).unwrap();
        for length in 0..whole.len() {
            assert!(survive(&whole[..length], FACTOR).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}

#[test]
fn truncation_of_a_reference_package_is_an_error() {
    for name in REFERENCES {
        let whole = reference_program(name);
        for part in 0..100 {
            let length = whole.len() * part / 100 + part;
            assert!(survive(&whole[..length], FACTOR).is_err(), "{name}: {length} of {} bytes", whole.len());
        }
    }
}

/// Counts the damaged files that could be read, and those of them that the verifier passed.
fn survive_all(files: impl Iterator<Item = (Vec<u8>, Module)>) -> (usize, usize) {
    let (mut readable, mut sound) = (0, 0);
    for (bytes, original) in files {
        if let Ok(read) = survive_beside(&bytes, FACTOR, &original) {
            readable += 1;
            sound += usize::from(verify(&read.module).is_ok());
        }
    }
    (readable, sound)
}

#[test]
fn eighteen_thousand_damaged_files_do_no_harm() {
    let mut numbers = Numbers(20_260_101);
    let files = small_files();
    let modules: Vec<_> = files.iter().map(|file| Bytecode::read(file.as_slice()).unwrap().module).collect();
    let (readable, sound) = survive_all((0..18_000).map(|round| {
        let mut bytes = files[round % files.len()].clone();
        for _ in 0..=numbers.below(4).saturating_sub(2) {
            damage(&mut bytes, &mut numbers);
        }
        (bytes, modules[round % files.len()].clone())
    }));
    // A test that never gets past the reader, or the verifier, would not prove much.
    assert!(
        readable > 1_800 && sound > 400 && sound + 400 < readable,
        "{readable} could be read, {sound} verified"
    );
}

#[test]
fn weights_of_changed_packages_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(20_260_104);
    let (mut found, mut read) = (0, 0);
    let cases = cases::all().into_iter().filter(|case| case.name.starts_with("blockwise_shift_scale"));
    let cases: Vec<_> = cases.collect();
    for round in 0..600 {
        let bytes = mutant(&cases[round % cases.len()].module, &mut numbers);
        std::fs::write(directory.path().join(PROGRAM), &bytes).unwrap();
        let Ok(package) = Package::open(directory.path()) else { continue };
        for weight in package.weights() {
            let count = weight.stored().count();
            assert_eq!(weight.place(count).block.is_some(), weight.block().is_ok());
            let size = piece(&[&weight]).min(count);
            found += 1;
            for start in [0, 2, count, u64::MAX] {
                read += usize::from(package.values(&weight, start, size as usize).is_ok());
            }
        }
    }
    assert!(found > 300 && read > 100 && read < 2 * found, "{found} weights, {read} pieces of them read");
}

#[test]
fn five_thousand_changed_modules_do_no_harm() {
    let mut numbers = Numbers(20_260_102);
    let cases = cases::all();
    let (readable, sound) = survive_all((0..5_000).map(|_| {
        let module = &cases[numbers.below(cases.len())].module;
        (mutant(module, &mut numbers), module.clone())
    }));
    assert!(readable > 3_000 && sound > 250, "{readable} could be read, {sound} verified");
}

#[test]
fn mutations_of_a_reference_package_do_no_harm() {
    let mut numbers = Numbers(7);
    let whole = reference_program("tbl.int4-symmetric");
    let metadata = Bytecode::read(whole.as_slice()).unwrap().blobs[0].offset as usize;
    let mut readable = 0;
    for _ in 0..30 {
        let mut bytes = whole.clone();
        let at = numbers.below(metadata);
        bytes[at] ^= 1 << numbers.below(8);
        readable += usize::from(survive(&bytes, FACTOR).is_ok());
    }
    assert!(readable > 3, "{readable} could be read");
}

/// A file without blobs.
fn plain() -> Raw {
    let case = cases::all().into_iter().find(|case| case.name == "relu tensor<2x3xf16>").unwrap();
    Raw::of(&file_with_any_blobs(&case.module))
}

/// The error that a file causes, as text.
fn refusal(raw: &Raw) -> String {
    let bytes = raw.bytes();
    survive(&bytes, FACTOR).expect_err("a file that must be refused").to_string()
}

#[test]
fn files_survive_being_taken_apart_and_put_together() {
    let mut raw = plain();
    let before = raw.bytes();
    let (strings, entries) = (raw.strings(), raw.entries());
    raw.set_strings(&strings);
    raw.set_entries(&entries);
    assert_eq!(raw.bytes(), before);
    assert!(survive(&before, FACTOR).is_ok());
}

#[test]
fn entries_that_contain_themselves_are_refused() {
    let array_of = |id: usize| varints(&[5, 1, id as u64]);
    let mut raw = plain();
    let mut entries = raw.entries();
    let count = entries[0].len();
    entries[0].push(array_of(count));
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains(&format!("attribute {count} contains itself")));

    entries[0].pop();
    entries[0].extend([array_of(count + 1), array_of(count + 2), array_of(count)]);
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains("contains itself"));

    let mut raw = plain();
    let mut entries = raw.entries();
    let count = entries[1].len();
    entries[1].push(varints(&[31, count as u64]));
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains(&format!("type {count} contains itself")));
}

#[test]
fn entries_that_nest_without_end_are_refused() {
    let mut raw = plain();
    let mut entries = raw.entries();
    let (first_attribute, first_type) = (entries[0].len() as u64, entries[1].len() as u64);
    for depth in 1..=100_000 {
        entries[0].push(varints(&[5, 1, first_attribute + depth]));
    }
    entries[0].push(varints(&[46]));
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains("attributes nest too deep"));

    entries[0].truncate(first_attribute as usize);
    for depth in 1..=100_000 {
        entries[1].push(varints(&[31, first_type + depth]));
    }
    entries[1].push(varints(&[32]));
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains("types nest too deep"));
}

/// Thirty lists, each of which contains the one before many times: written out, they would fill any memory.
#[test]
fn lists_that_multiply_cost_no_more_than_their_bytes() {
    let mut raw = plain();
    let mut entries = raw.entries();
    for _ in 0..30 {
        let before = entries[0].len() as u64 - 1;
        entries[0].push([varints(&[5, 100]), varints(&[before; 100])].concat());
    }
    let last = entries[0].len() as u64 - 1;
    for _ in 0..30 {
        let before = entries[1].len() as u64 - 1;
        entries[1].push(
            [varints(&[30, 50]), varints(&[before; 50]), varints(&[50]), varints(&[before; 50])].concat(),
        );
    }
    raw.set_entries(&entries);
    raw.set_source(last);
    let read = survive(&raw.bytes(), FACTOR).unwrap();
    assert!(verify(&read.module).unwrap_err().reason.contains("source"));
    let text = Listing::new(&read.module).to_string();
    assert!(text.starts_with("asset {source = [[[[") && text.len() < 10_000);
}

#[test]
fn text_that_is_repeated_without_end_is_refused() {
    let mut raw = plain();
    let mut strings = raw.strings();
    strings.push(vec![b'a'; 1 << 20]);
    raw.set_strings(&strings);
    let text = strings.len() as u64 - 1;
    let mut entries = raw.entries();
    for number in 0..1000 {
        // A named entry with one parameter: all have the same long name.
        entries[0].push(varints(&[9, text, 1, number % 20]));
    }
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains("attributes repeat text without end"));
}

#[test]
fn tensors_with_absurdly_many_axes_are_refused() {
    let mut raw = plain();
    let mut entries = raw.entries();
    entries[1].push([varints(&[2, 1000]), varints(&[2; 1000]), varints(&[0])].concat());
    raw.set_entries(&entries);
    assert!(refusal(&raw).contains("1000 axes"));
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused() {
    let base = plain();
    for huge in [1 << 20, 1 << 40, u64::MAX / 2, u64::MAX] {
        for id in
            [raw::STRING, raw::DIALECT, raw::ENTRY_OFFSETS, raw::IR, raw::RESOURCE_OFFSETS, raw::PROPERTIES]
        {
            // Replaces each number of the section; some are then no longer numbers, which is fine too.
            for at in 0..base.clone().body(id).len().min(200) {
                let mut raw = base.clone();
                raw.body(id).splice(at..=at, varints(&[huge]));
                let _ = survive(&raw.bytes(), FACTOR);
            }
            let mut raw = base.clone();
            raw.body(id).splice(..1, varints(&[huge]));
            refusal(&raw);
        }
        for section in 0..base.sections.len() {
            let mut raw = base.clone();
            let tail = raw.sections.split_off(section);
            let mut bytes = raw.bytes();
            bytes.push(tail[0].0);
            raw::put(&mut bytes, huge);
            bytes.extend_from_slice(&tail[0].1);
            let error = survive(&bytes, FACTOR).unwrap_err().to_string();
            assert!(error.contains("does not fit"), "{error}");
        }
    }
}

#[test]
fn sections_occur_exactly_once() {
    for at in 0..plain().sections.len() {
        let mut raw = plain();
        let again = raw.sections[at].clone();
        raw.sections.push(again);
        assert!(refusal(&raw).contains("a second"));

        let mut raw = plain();
        let (id, _) = raw.sections.remove(at);
        let resources = [raw::RESOURCE, raw::RESOURCE_OFFSETS];
        let reason = if resources.contains(&id) { "only one of the two" } else { "there is no" };
        assert!(refusal(&raw).contains(reason));
    }
    // Without blobs, their two sections may be left out.
    let mut raw = plain();
    raw.sections.retain(|(id, _)| ![raw::RESOURCE, raw::RESOURCE_OFFSETS].contains(id));
    assert!(survive(&raw.bytes(), FACTOR).is_ok());
    let mut raw = plain();
    raw.sections.push((9, vec![1]));
    assert!(refusal(&raw).contains("no section has the id 9"));
    let mut bytes = plain().bytes();
    bytes.push(0);
    assert!(survive(&bytes, FACTOR).is_err());
}

/// Sections may be in any order and in the widest form, as in files that Apple's loader accepts.
#[test]
fn order_of_sections_is_free() {
    let expected = Listing::new(&Bytecode::read(plain().bytes().as_slice()).unwrap().module).to_string();
    let mut raw = plain();
    raw.sections.reverse();
    let read = survive(&raw.bytes(), FACTOR).unwrap();
    assert_eq!(Listing::new(&read.module).to_string(), expected);

    let mut bytes = raw.header.clone();
    for (id, body) in &raw.sections {
        bytes.extend([*id, 0]);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(body);
    }
    let read = survive(&bytes, FACTOR).unwrap();
    assert_eq!(Listing::new(&read.module).to_string(), expected);
}

/// The offsets section and the entries in front of blobs must say the same, so that no blob reaches into another.
#[test]
fn blobs_that_overlap_are_refused() {
    let case = cases::all().into_iter().find(|case| case.name == "blob si8").unwrap();
    let bytes = file_with_any_blobs(&case.module);
    let blob = Bytecode::read(bytes.as_slice()).unwrap().blobs[0];
    assert_eq!(blob.length, 303);
    // The length precedes the padding before the blob: a varint of two bytes after the alignment's single one.
    let padding = bytes[..blob.offset as usize].iter().rev().take_while(|byte| **byte == 0xCB).count();
    let at = blob.offset as usize - padding - 2;
    assert_eq!(raw::take(&mut &bytes[at..]), 303);
    for wrong in [302, 304, 1000, 16_383] {
        let mut damaged = bytes.clone();
        damaged[at..at + 2].copy_from_slice(&varints(&[wrong]));
        let error = survive(&damaged, FACTOR).unwrap_err().to_string();
        assert!(error.contains("do not fit its entry"), "{error}");
    }
    let mut damaged = bytes.clone();
    damaged[at - 1] = 0x01;
    assert!(survive(&damaged, FACTOR).unwrap_err().to_string().contains("an alignment of 0"));
    let mut damaged = bytes;
    damaged[blob.offset as usize - 1] = 0;
    assert!(survive(&damaged, FACTOR).is_err());
}

/// A thousand nested graphs.
#[test]
fn regions_that_nest_without_end_are_refused() {
    let mut raw = plain();
    // The asset, in the order of names; its location; regions that are not isolated; one region, one block without values.
    let ir = raw.body(raw::IR).clone();
    let mut front = &ir[1..];
    let name = raw::take(&mut front);
    let mut nested = vec![ir[0]];
    for _ in 0..1000 {
        nested.extend(varints(&[name]));
        nested.push(0x50);
        nested.extend(varints(&[0, 0, 2, 1, 0, 2]));
    }
    *raw.body(raw::IR) = nested;
    assert!(refusal(&raw).contains("regions nest too deep"));
}

/// Entries that take few bytes of a file and many of memory: the factor is larger, but constant.
#[test]
fn many_small_entries_take_memory_in_proportion() {
    const MANY: u64 = 50_000;
    let mut raw = plain();
    let name = |raw: &mut Raw, name: &str| {
        let strings = raw.strings();
        // Names of ops are strings 1, 2, ... in their order.
        strings.iter().position(|text| text == name.as_bytes()).unwrap() as u64 - 1
    };
    let (asset, yields) = (name(&mut raw, "serialization.asset"), name(&mut raw, "dataflow.yield_v1"));
    // The one op; an asset, with properties and regions; its location and properties.
    let head = [varints(&[1 << 1, asset]), vec![0x50], varints(&[0, 0])].concat();
    let regions = [varints(&[MANY << 1]), vec![1; MANY as usize]].concat();
    let blocks = [varints(&[1 << 1, MANY, 0]), vec![1; MANY as usize]].concat();
    let op = [varints(&[yields]), vec![0], varints(&[0])].concat();
    let ops = [varints(&[1 << 1, 1, 0, MANY << 1]), op.repeat(MANY as usize)].concat();
    for body in [regions, blocks, ops] {
        *raw.body(raw::IR) = [head.as_slice(), &body].concat();
        let read = survive(&raw.bytes(), 4 * FACTOR).unwrap();
        assert!(verify(&read.module).is_err());
    }
    let mut raw = plain();
    *raw.body(raw::PROPERTIES) = [varints(&[MANY]), vec![1; MANY as usize]].concat();
    assert!(refusal(&raw).contains("a number is missing"));
}
