//! `docs/aimodel-format.md` agrees with the code: its tables row for row, in both directions, and its dump byte for byte.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::common::file;
use aimodel::build::AssetBuilder;
use aimodel::{Element, Enumeration, Opcode, TensorType};

/// The source of the numbers that only the format's code sees.
const CODE: &str = include_str!("../../src/bytecode/mod.rs");

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/aimodel-format.md"))
}

/// The cells of the first table below a heading, without backquotes; `-` is empty.
fn table(heading: &str) -> Vec<Vec<String>> {
    let document = fs::read_to_string(path()).unwrap();
    let (_, below) = document.split_once(&format!("\n{heading}\n")).expect(heading);
    let lines =
        below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cell = |cell: &str| cell.trim().replace('`', "").trim_start_matches('-').to_owned();
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(cell).collect()).collect()
}

/// Constants of a module of the code, by their names in lower case with spaces.
fn constants(module: &str) -> BTreeMap<String, u64> {
    let (_, body) = CODE.split_once(&format!("\nmod {module} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let constant = |line: &str| {
        let (name, value) = line.trim().strip_prefix("pub(super) const ")?.split_once(": ")?;
        Some((
            name.to_lowercase().replace('_', " "),
            number(value.split_once(" = ")?.1.trim_end_matches(';')),
        ))
    };
    body.lines().filter_map(constant).collect()
}

fn number(text: &str) -> u64 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse().unwrap(), |digits| u64::from_str_radix(digits, 16).unwrap())
}

/// The names and numbers of tables whose first two columns are those.
fn numbered(headings: &[&str]) -> BTreeMap<String, u64> {
    let rows = headings.iter().flat_map(|heading| table(heading));
    rows.map(|row| (row[1].clone(), number(&row[0]))).collect()
}

#[test]
fn sections_parts_and_codes_are_those_of_the_code() {
    assert_eq!(numbered(&["### Sections"]), constants("section"));
    assert_eq!(numbered(&["## Ops"]), constants("mask"));
    assert_eq!(numbered(&["## Types", "## Attributes"]), constants("code"));
}

#[test]
fn ops_are_those_of_the_code() {
    let documented: Vec<Vec<String>> =
        table("### Op table").into_iter().map(|row| row[..4].to_vec()).collect();
    let known = Opcode::ALL.iter().map(|opcode| {
        let composite = if opcode.is_composite() { "yes" } else { "" };
        vec![
            opcode.name().to_owned(),
            opcode.since().to_string(),
            opcode.properties().join(" "),
            composite.to_owned(),
        ]
    });
    assert_eq!(documented, known.collect::<Vec<_>>());
}

#[test]
fn element_types_and_enumerations_are_those_of_the_code() {
    let elements = Element::ALL.iter().map(|element| {
        vec![element.code().to_string(), element.name().to_owned(), element.bits().to_string()]
    });
    assert_eq!(table("### Element types"), elements.collect::<Vec<_>>());
    let enumerations = (0..256).filter_map(Enumeration::from_code).map(|of| {
        let cases: Vec<&str> = (0..).map_while(|value| of.case(value)).collect();
        vec![of.code().to_string(), of.name().to_owned(), cases.join(", ")]
    });
    assert_eq!(table("### Enumerations"), enumerations.collect::<Vec<_>>());
}

/// y = x + w.
fn program() -> Vec<u8> {
    let ty = TensorType::fixed(&[2, 3], Element::F16);
    let mut graph = AssetBuilder::new().function("main");
    let x = graph.input("x", &ty);
    let w = graph.blob("w", &ty).unwrap();
    let y = graph.add(x, w).unwrap();
    let module = graph.finish(&[], &[("y", y)]).unwrap().finish();
    file(&module, |_| [0x3C00_u16; 6].iter().flat_map(|one| one.to_le_bytes()).collect())
}

#[test]
fn the_dump_is_the_file_that_the_writer_makes() {
    let document = fs::read_to_string(path()).unwrap();
    let (front, dump) = document.split_once("\n```text\n").unwrap();
    let (dump, back) = dump.split_once("```\n").unwrap();
    let expected = Dump::of(&program());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(), format!("{front}\n```text\n{expected}```\n{back}")).unwrap();
        return;
    }
    assert_eq!(dump, expected, "UPDATE_GOLDEN=1 rewrites it");
}

/// Bytes of a line.
const WIDTH: usize = 12;

/// Walks a file as the document describes it, and records what it finds. Knows only what the program above needs.
struct Dump<'b> {
    bytes: &'b [u8],
    strings: Vec<&'b str>,
    at: usize,
    /// First byte that was not shown.
    shown: usize,
    out: String,
}

impl<'b> Dump<'b> {
    fn of(bytes: &'b [u8]) -> String {
        let mut dump = Dump { bytes, strings: Vec::new(), at: 0, shown: 0, out: String::new() };
        dump.at = 4;
        dump.show("magic");
        let version = dump.varint();
        dump.show(format!("version {version}"));
        let end = dump.at + bytes[dump.at..].iter().position(|byte| *byte == 0).unwrap();
        dump.at = end + 1;
        dump.show("producer");
        let first = dump.at;
        // Texts come after what refers to them.
        while dump.at < bytes.len() {
            let (id, body) = dump.section();
            if id == 0 {
                dump.strings(&body, false);
            }
            dump.at = body.end;
        }
        (dump.at, dump.shown) = (first, first);
        let (mut attributes, mut lengths) = (0, Vec::new());
        while dump.at < bytes.len() {
            let (id, body) = dump.section();
            dump.show(format!("section {id}, {} bytes", body.len()));
            match id {
                0 => dump.strings(&body, true),
                1 => dump.dialect(),
                2 => dump.entries(attributes, &lengths),
                3 => (attributes, lengths) = dump.lengths(),
                4 => {
                    dump.varint();
                    dump.show("one op, the root");
                    dump.op(1);
                }
                5 => dump.blobs(&body),
                6 => dump.resources(),
                8 => dump.properties(),
                _ => panic!("section {id}"),
            }
            assert_eq!(dump.at, body.end, "section {id}");
        }
        dump.out
    }

    fn show(&mut self, meaning: impl AsRef<str>) {
        let from = std::mem::replace(&mut self.shown, self.at);
        let mut meaning = meaning.as_ref();
        for (line, bytes) in self.bytes[from..self.at].chunks(WIDTH).enumerate() {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            let place = from + line * WIDTH;
            let text = format!("{place:03X}  {:width$}  {meaning}", hex.join(" "), width = 3 * WIDTH - 1);
            writeln!(self.out, "{}", text.trim_end()).unwrap();
            meaning = "";
        }
    }

    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes[self.at - 1]
    }

    fn varint(&mut self) -> u64 {
        let length = self.bytes[self.at].trailing_zeros() as usize + 1;
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        let skipped = usize::from(length == 9);
        let wide = bytes[skipped..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if length == 9 { wide } else { wide >> length }
    }

    fn flagged(&mut self) -> (u64, u64) {
        let value = self.varint();
        (value >> 1, value & 1)
    }

    fn signed(&mut self) -> i64 {
        let value = self.varint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    /// Head of a section, filler included: its id, and where its body is.
    fn section(&mut self) -> (u8, Range<usize>) {
        let id = self.byte();
        let length = self.varint() as usize;
        if id & 0x80 != 0 {
            let alignment = self.varint() as usize;
            self.at = self.at.next_multiple_of(alignment);
        }
        (id & 0x7F, self.at..self.at + length)
    }

    fn text(&mut self) -> String {
        let at = self.varint() as usize;
        format!("S{at} {:?}", self.strings[at])
    }

    fn strings(&mut self, body: &Range<usize>, shown: bool) {
        self.at = body.start;
        let count = self.varint();
        let mut lengths: Vec<usize> = (0..count).map(|_| self.varint() as usize).collect();
        lengths.reverse();
        if shown {
            self.show(format!("{count} strings; their lengths, the last one's first"));
        }
        let mut strings = Vec::new();
        for (at, length) in lengths.into_iter().enumerate() {
            let bytes = &self.bytes[self.at..self.at + length];
            strings.push(std::str::from_utf8(&bytes[..length - 1]).unwrap());
            self.at += length;
            if shown {
                self.show(format!("S{at} {:?}", strings[at]));
            }
        }
        self.strings = strings;
    }

    fn dialect(&mut self) {
        self.varint();
        self.show("one dialect");
        let (name, _) = self.flagged();
        self.show(format!("S{name} {:?}, with a version", self.strings[name as usize]));
        let (_, body) = self.section();
        self.at = body.end;
        self.show("section 7, 1 byte: encoding version 2");
        self.varint();
        self.varint();
        let count = self.varint();
        self.show(format!("{count} op names, of dialect 0, {count}"));
        for at in 0..count {
            let (name, _) = self.flagged();
            self.show(format!("op {at}: S{name} {:?}", self.strings[name as usize]));
        }
    }

    /// Number of attributes, and the lengths of all entries.
    fn lengths(&mut self) -> (usize, Vec<usize>) {
        let counts = [self.varint() as usize, self.varint() as usize];
        self.show(format!("{} attributes, {} types", counts[0], counts[1]));
        let mut lengths = Vec::new();
        for (count, what) in counts.into_iter().zip(["attributes", "types"]) {
            self.varint();
            self.varint();
            self.show(format!("of dialect 0, {count} {what}"));
            lengths.extend((0..count).map(|_| self.flagged().0 as usize));
            self.show("their lengths");
        }
        (counts[0], lengths)
    }

    fn entries(&mut self, attributes: usize, lengths: &[usize]) {
        for (at, length) in lengths.iter().enumerate() {
            let end = self.at + length;
            let meaning = match at.checked_sub(attributes) {
                None => format!("A{at} {}", self.attribute()),
                Some(at) => format!("T{at} {}", self.ty()),
            };
            assert_eq!(self.at, end, "{meaning}");
            self.show(meaning);
        }
    }

    fn list(&mut self, letter: char) -> String {
        let count = self.varint();
        let items: Vec<String> = (0..count).map(|_| format!("{letter}{}", self.varint())).collect();
        format!("[{}]", items.join(", "))
    }

    fn attribute(&mut self) -> String {
        match self.varint() {
            1 => format!("string {}", self.text()),
            2 => {
                let (width, unsigned) = (self.varint(), self.byte());
                let value = if width <= 8 { i64::from(self.byte()) } else { self.signed() };
                format!(
                    "integer of {width} bits, {}: {value}",
                    if unsigned == 1 { "unsigned" } else { "signed" }
                )
            }
            4 => format!("type T{}", self.varint()),
            5 => format!("array {}", self.list('A')),
            7 => format!("dense resource {}", self.varint()),
            9 => format!("opaque {} {}", self.text(), self.list('A')),
            30 => format!("file {}, {}, {}", self.text(), self.text(), self.text()),
            31 => {
                let file = self.varint();
                let range: Vec<String> = (0..4).map(|_| self.varint().to_string()).collect();
                format!("source location A{file}, {}", range.join(", "))
            }
            40 => {
                let (source, scope) = (self.varint(), self.varint());
                format!("location A{source}, scope A{scope}, {}, {}", self.list('A'), self.list('A'))
            }
            46 => "unit".to_owned(),
            code => panic!("attribute {code}"),
        }
    }

    fn ty(&mut self) -> String {
        match self.varint() {
            2 => {
                let rank = self.varint();
                let shape: Vec<String> = (0..rank).map(|_| self.signed().to_string()).collect();
                format!("tensor {} of T{}", shape.join("x"), self.varint())
            }
            30 => {
                let results = self.list('T');
                format!("function {} -> {results}", self.list('T'))
            }
            code => Element::from_code(code).unwrap().name().to_owned(),
        }
    }

    fn op(&mut self, depth: usize) {
        let indent = "  ".repeat(depth);
        let (name, parts) = (self.varint(), self.byte());
        let mut meaning = format!("{indent}op {name}, parts {parts:02X}, location A{}", self.varint());
        for (bit, part, letter) in
            [(0x40, "properties", 'P'), (0x02, "results", 'T'), (0x04, "operands", 'V')]
        {
            if parts & bit == 0 {
                continue;
            }
            let items = if bit == 0x40 { format!("P{}", self.varint()) } else { self.list(letter) };
            write!(meaning, ", {part} {items}").unwrap();
        }
        self.show(meaning);
        if parts & 0x10 == 0 {
            return;
        }
        let (count, isolated) = self.flagged();
        assert_eq!((count, isolated), (1, 1));
        let (id, body) = self.section();
        self.show(format!("{indent}one region, isolated: section {id}, {} bytes", body.len()));
        let (blocks, values) = (self.varint(), self.varint());
        self.show(format!("{indent}{blocks} block, {values} values"));
        let (ops, has_arguments) = self.flagged();
        let mut meaning = format!("{indent}{ops} ops");
        if has_arguments == 1 {
            for at in 0..self.varint() {
                let (ty, _) = self.flagged();
                write!(meaning, "; argument V{at}: T{ty}, location A{}", self.varint()).unwrap();
            }
            self.byte();
        }
        self.show(meaning);
        (0..ops).for_each(|_| self.op(depth + 1));
        assert_eq!(self.at, body.end);
    }

    fn resources(&mut self) {
        self.varint();
        let (dialect, count) = (self.text(), self.varint());
        self.show(format!("no external groups; {dialect}, {count} blob"));
        for at in 0..count {
            let (key, size) = (self.text(), self.varint());
            self.byte();
            self.show(format!("resource {at}: key {key}, {size} bytes with its head"));
        }
    }

    fn blobs(&mut self, body: &Range<usize>) {
        while self.at < body.end {
            let (alignment, length) = (self.varint() as usize, self.varint() as usize);
            self.at = body.start + (self.at - body.start).next_multiple_of(alignment);
            self.show(format!("aligned to {alignment}, {length} bytes, filler"));
            self.at += length;
            self.show("the blob");
        }
    }

    fn properties(&mut self) {
        let count = self.varint();
        self.show(format!("{count} property lists"));
        for at in 0..count {
            let length = self.varint() as usize;
            self.at += length;
            self.show(format!("P{at}, {length} bytes"));
        }
    }
}
