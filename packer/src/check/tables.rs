//! Rules of a folder of gather tables, and whether it belongs to a bundle.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use output::Digest;
use serde_json::{Map, Value};

use super::context::{Context, Folder};
use super::json::{self, Unreadable};
use super::{files, rules};
use crate::FileError;
use crate::contents::{FolderKind, PER_LAYER, SAFETENSORS, TABLES, TABLES_META as META};
use crate::manifest::{self, Manifest, ManifestKind};

/// Files of f32 row scales.
const SCALES: [&str; 2] = ["embed_per_layer.scale.f32", "embed_tokens.scale.f32"];

/// The tables that a bundle needs.
#[derive(Clone, Debug)]
pub(super) struct Needed {
    /// Their stamp, if the bundle carries one.
    pub(super) digest: Option<Digest>,
    /// Rows of the per-layer table: the vocabulary.
    pub(super) rows: Option<u64>,
    /// Columns of the per-layer table, if the graph shows them.
    pub(super) width: Option<u64>,
    /// The bundle's manifest.
    pub(super) manifest: Option<Manifest>,
}

/// What is known of a table folder.
#[derive(Clone, Debug)]
pub(super) struct TablesSummary {
    name: String,
    stamp: Option<Digest>,
    rows: Option<u64>,
    width: Option<u64>,
    manifest: Option<Manifest>,
}

/// Extents that `meta.json` states.
struct Shape {
    vocabulary: u64,
    hidden: u64,
    layers: u64,
    per_layer: u64,
    /// `layers * per_layer`.
    width: u64,
}

impl Shape {
    /// Bytes of each raw file; None where the product does not fit 64 bits.
    fn sizes(&self) -> Option<[(&'static str, u64); 6]> {
        let scales = self.vocabulary.checked_mul(4)?;
        Some([
            (PER_LAYER, self.vocabulary.checked_mul(self.width)?),
            ("embed_per_layer.scale.f32", scales),
            ("embed_tokens.i8", self.vocabulary.checked_mul(self.hidden)?),
            ("embed_tokens.scale.f32", scales),
            ("proj.f32", self.width.checked_mul(self.hidden)?.checked_mul(4)?),
            ("proj_norm.f32", self.per_layer.checked_mul(4)?),
        ])
    }

    /// Constants of the forward pass that follow from the shape.
    fn constants(&self) -> [(&'static str, f64); 4] {
        [
            ("embed_scale_main", (self.hidden as f64).sqrt()),
            ("embed_scale_pl", (self.per_layer as f64).sqrt()),
            ("proj_scale", (self.hidden as f64).powf(-0.5)),
            ("input_scale", 0.5_f64.sqrt()),
        ]
    }
}

/// Checks the table folder and returns what bundles must match.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Result<TablesSummary, FileError> {
    let expected = |path: &str| {
        path == META || path.ends_with(SAFETENSORS) || path.ends_with(".i8") || path.ends_with(".f32")
    };
    let contents = files::check(context, folder, &expected)?;
    let mut shape = None;
    let only_safetensors = !contents.files.contains_key(PER_LAYER) && !contents.files.contains_key(META);
    let safetensors: Vec<String> =
        contents.files.keys().filter(|path| path.ends_with(SAFETENSORS)).cloned().collect();
    for file in &safetensors {
        check_safetensors(context, folder, file);
    }
    if safetensors.is_empty() || !only_safetensors {
        shape = check_meta(context, folder);
        if let Some(shape) = &shape {
            check_sizes(context, folder, shape, &contents.files);
        }
        check_scales(context, folder)?;
    }
    let stamp = check_stamp(context, folder, contents.manifest.as_ref());
    let (rows, width) = shape.map(|shape| (shape.vocabulary, shape.width)).unzip();
    Ok(TablesSummary { name: folder.name(), stamp, rows, width, manifest: contents.manifest })
}

fn check_meta(context: &mut Context<'_>, folder: &Folder) -> Option<Shape> {
    let meta = match json::object(&folder.path.join(META)) {
        Ok(meta) => meta,
        Err(Unreadable::Missing) => {
            context.report(&rules::TABLES_META, folder, META, "the file is missing");
            return None;
        }
        Err(Unreadable::Malformed(reason)) => {
            context.report(&rules::TABLES_META, folder, META, reason);
            return None;
        }
    };
    let shape =
        read_shape(&meta).map_err(|what| context.report(&rules::TABLES_META, folder, META, what)).ok()?;
    for (key, expected) in shape.constants() {
        let found = meta.get(key).and_then(Value::as_f64);
        // Writers round to f32.
        if found.is_none_or(|found| (found - expected).abs() > 1e-6 * expected) {
            let found = meta.get(key).map_or("missing".to_owned(), Value::to_string);
            let what = format!("{key} is {found}, for these shapes it is {expected}");
            context.report(&rules::TABLES_CONSTANT, folder, META, what);
        }
    }
    if meta.get("rms_eps").and_then(Value::as_f64).is_none_or(|eps| eps <= 0.0) {
        let what =
            format!("rms_eps is {}", meta.get("rms_eps").map_or("missing".to_owned(), Value::to_string));
        context.report(&rules::TABLES_META, folder, META, what);
    }
    Some(shape)
}

/// The extents of `meta.json`, or what is wrong with them.
fn read_shape(meta: &Map<String, Value>) -> Result<Shape, String> {
    let extent = |key: &str| {
        let value = meta.get(key).and_then(Value::as_u64).filter(|&value| value > 0);
        value.ok_or_else(|| format!("{key} is {}, not a positive whole number", json::kind_of(meta, key)))
    };
    let shape = Shape {
        vocabulary: extent("V")?,
        hidden: extent("D")?,
        layers: extent("L")?,
        per_layer: extent("ld")?,
        width: extent("PLD")?,
    };
    if shape.layers.checked_mul(shape.per_layer) != Some(shape.width) {
        let Shape { layers, per_layer, width, .. } = shape;
        return Err(format!("PLD is {width}, L * ld is {layers} * {per_layer}"));
    }
    Ok(shape)
}

fn check_sizes(context: &mut Context<'_>, folder: &Folder, shape: &Shape, files: &BTreeMap<String, u64>) {
    let Some(sizes) = shape.sizes() else {
        context.report(
            &rules::TABLES_META,
            folder,
            META,
            "the shapes need more bytes than 64 bits can count",
        );
        return;
    };
    for (name, expected) in sizes {
        match files.get(name) {
            None => context.report(&rules::TABLES_FILE, folder, name, "the file is missing"),
            Some(&size) if size != expected => {
                let what = format!("{size} bytes, the shapes of {META} need {expected}");
                context.report(&rules::TABLES_SIZE, folder, name, what);
            }
            Some(_) => {}
        }
    }
}

/// Bytes of row scales: those of 16 million tokens.
const LARGEST_SCALES: u64 = 64 << 20;

/// Every row scale must be a positive number; the rule that makes them has a positive lower bound.
fn check_scales(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    for name in SCALES {
        let path = folder.path.join(name);
        if !paths::is_file(&path) {
            continue;
        }
        let bytes = paths::read(&path, LARGEST_SCALES).map_err(FileError::on("read", &path))?;
        let (scales, _) = bytes.as_chunks::<4>();
        let is_bad = |bytes: &[u8; 4]| {
            let scale = f32::from_le_bytes(*bytes);
            !(scale.is_finite() && scale > 0.0)
        };
        if let Some(row) = scales.iter().position(is_bad) {
            let count = scales.iter().filter(|bytes| is_bad(bytes)).count();
            let what = format!("{count} scales are not positive numbers, the first in row {row}");
            context.report(&rules::TABLES_SCALE, folder, name, what);
        }
    }
    Ok(())
}

/// Apple's form: one I8 tensor with its scale in the header's metadata.
fn check_safetensors(context: &mut Context<'_>, folder: &Folder, file: &str) {
    if let Err(what) = safetensors_fault(&folder.path.join(file)) {
        context.report(&rules::TABLES_META, folder, file, what);
    }
}

fn safetensors_fault(path: &Path) -> Result<(), String> {
    let file = paths::open(path).map_err(|e| e.to_string())?;
    let (size, mut source) = (file.length(), file.reader());
    let mut length = [0; 8];
    source.read_exact(&mut length).map_err(|e| format!("no header: {e}"))?;
    let length = u64::from_le_bytes(length);
    let data = length.checked_add(8).filter(|&start| start <= size && length <= 1 << 20);
    let data = size - data.ok_or_else(|| format!("a header of {length} bytes in a file of {size}"))?;
    let mut header = Vec::new();
    source.take(length).read_to_end(&mut header).map_err(|e| e.to_string())?;
    let header: Value =
        serde_json::from_slice(&header).map_err(|e| format!("the header is not JSON: {e}"))?;
    let tensor = header.get("embed_tokens_per_layer").ok_or("no tensor embed_tokens_per_layer")?;
    if tensor.get("dtype").is_none_or(|dtype| dtype != "I8") {
        return Err(format!("embed_tokens_per_layer is of type {}, not I8", tensor["dtype"]));
    }
    let shape = tensor.get("shape").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let extents: Option<Vec<u64>> = shape.iter().map(Value::as_u64).collect();
    let bytes = extents
        .as_ref()
        .filter(|extents| extents.len() == 2)
        .and_then(|extents| extents.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent)));
    if bytes != Some(data) {
        return Err(format!("{data} bytes of data for a table of shape {}", tensor["shape"]));
    }
    for key in ["embed_scale", "ple_scale", "ple_zero_point", "dtype"] {
        if header.get("__metadata__").and_then(|metadata| metadata.get(key)).and_then(Value::as_str).is_none()
        {
            return Err(format!("no metadata entry {key}"));
        }
    }
    Ok(())
}

/// The stamp of the folder: recorded in its manifest, and the digest of the files listed there.
fn check_stamp(context: &mut Context<'_>, folder: &Folder, manifest: Option<&Manifest>) -> Option<Digest> {
    let Some(manifest) = manifest else {
        if !paths::exists(&folder.path.join(manifest::FILE_NAME)) {
            context.report(
                &rules::MANIFEST_MISSING,
                folder,
                manifest::FILE_NAME,
                "the tables have no manifest",
            );
        }
        return None;
    };
    let computed = manifest::tables_digest(&manifest.files);
    match manifest.tables_digest {
        None => {
            let what = "the manifest carries no tables_digest";
            context.report(&rules::TABLES_STAMP_MISSING, folder, manifest::FILE_NAME, what);
        }
        Some(stated) if stated != computed => {
            let what = format!("tables_digest is {stated}, but that of the files listed is {computed}");
            context.report(&rules::TABLES_STAMP, folder, manifest::FILE_NAME, what);
        }
        Some(_) => {}
    }
    manifest.tables_digest
}

/// Looks for the tables of a bundle that is not part of a release and compares them.
pub(super) fn check_beside(context: &mut Context<'_>, bundle: &Folder, needed: &Needed) {
    let candidates = match context.options.tables {
        Some(tables) if is_tables(tables) => vec![tables.to_path_buf()],
        Some(_) => Vec::new(),
        None => beside(&bundle.path),
    };
    let summaries: Vec<TablesSummary> = candidates.iter().map(|path| summarize(path)).collect();
    if summaries.is_empty() {
        let what = match context.options.tables {
            Some(tables) => format!("{} is not a folder of tables", tables.display()),
            None => "no table folder was found beside the bundle".to_owned(),
        };
        context.report(&rules::TABLES_NOT_FOUND, bundle, "", what);
    } else {
        compare(context, bundle, needed, &summaries);
    }
}

/// What a table folder states, unchecked.
fn summarize(path: &Path) -> TablesSummary {
    let shape = json::object(&path.join(META)).ok().and_then(|meta| read_shape(&meta).ok());
    let (rows, width) = shape.map(|shape| (shape.vocabulary, shape.width)).unzip();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let manifest = Manifest::read(path).ok();
    let stamp = manifest.as_ref().and_then(|manifest| manifest.tables_digest);
    TablesSummary { name, stamp, rows, width, manifest }
}

/// Table folders of the release that holds the bundle, or in the folder that holds it.
fn beside(bundle: &Path) -> Vec<PathBuf> {
    let Some(parent) = bundle.parent() else { return Vec::new() };
    let release = parent.parent().map(|root| root.join(TABLES));
    let places = release.into_iter().chain([parent.to_path_buf()]);
    let inside = |place: PathBuf| {
        let entries = paths::list(&place).into_iter().flatten();
        entries.map(move |entry| place.join(entry.name)).collect::<Vec<_>>()
    };
    let mut found: Vec<PathBuf> = places.flat_map(inside).filter(|path| is_tables(path)).collect();
    found.sort();
    found
}

fn is_tables(path: &Path) -> bool {
    paths::is_file(&path.join(META)) && paths::is_file(&path.join(PER_LAYER))
}

/// Checks that one of `tables` belongs to the bundle.
pub(super) fn compare(context: &mut Context<'_>, bundle: &Folder, needed: &Needed, tables: &[TablesSummary]) {
    let names: Vec<&str> = tables.iter().map(|tables| tables.name.as_str()).collect();
    let matching = match needed.digest {
        Some(digest) => tables.iter().find(|tables| tables.stamp == Some(digest)),
        None => {
            let what = "the bundle carries no tables_digest in user_data";
            context.report(&rules::TABLES_STAMP_MISSING, bundle, crate::metadata::FILE_NAME, what);
            tables.first().filter(|_| tables.len() == 1)
        }
    };
    match (matching, needed.digest) {
        (Some(tables), _) => {
            compare_shape(context, bundle, needed, tables);
            compare_weights(context, bundle, needed, tables);
        }
        (None, Some(digest)) => {
            let unstamped = tables.iter().all(|tables| tables.stamp.is_none());
            let rule = if unstamped { &rules::TABLES_STAMP_MISSING } else { &rules::TABLES_FOREIGN };
            let what = format!(
                "the bundle belongs to tables {digest}, but none of these has that stamp: {}",
                names.join(", ")
            );
            context.report(rule, bundle, "", what);
        }
        (None, None) => {}
    }
}

fn compare_shape(context: &mut Context<'_>, bundle: &Folder, needed: &Needed, tables: &TablesSummary) {
    for (what, needed, found) in [("rows", needed.rows, tables.rows), ("columns", needed.width, tables.width)]
    {
        if let (Some(needed), Some(found)) = (needed, found)
            && needed != found
        {
            let what =
                format!("the graph takes {needed} {what}, but the tables in {} have {found}", tables.name);
            context.report(&rules::TABLES_SHAPE, bundle, "", what);
        }
    }
}

/// A stamp may have been put on a bundle by mistake.
fn compare_weights(context: &mut Context<'_>, bundle: &Folder, needed: &Needed, tables: &TablesSummary) {
    let (Some(own), Some(found)) = (&needed.manifest, &tables.manifest) else { return };
    if let Some(tensor) = own.differing_weights(found) {
        let what = format!(
            "the tables in {} were made from other weights: their checksum of {tensor} is not that of the bundle",
            tables.name
        );
        context.report(&rules::TABLES_FOREIGN, bundle, "", what);
    }
}

/// Table folders below a folder of a release.
pub(super) fn below(folder: &Folder, names: &[String]) -> Vec<Folder> {
    let is_tables = |name: &&String| {
        let path = folder.path.join(name.as_str());
        let kind = Manifest::read(&path).ok().map(|manifest| manifest.kind);
        paths::is_file(&path.join(META))
            || paths::is_file(&path.join(PER_LAYER))
            || kind == Some(ManifestKind::Tables)
    };
    names.iter().filter(is_tables).map(|name| folder.below(name, FolderKind::Tables)).collect()
}
