//! Apple's loader, verifier, serializer and Linux runtime as the judge of packages.
//!
//! First the packages in `fixtures`, whose scores are known: they show that the judge passes what is right and finds what
//! is wrong. Then the packages that `coreai-bundle convert` makes from the tiny checkpoint in every weight mode, and of two synthetic
//! ones of another shape.

use super::environment::{clear, half_in_hardware, scratch, scripts, trouble};
use super::task::{Check, Plan, Task};
use super::{Options, build, program};
use crate::workspace::target;
use anyhow::{Context, Result, bail};
use fixtures::data::{self, ReferencePackage};
use fixtures::oracle::StoredOracle;
use fixtures::{Lattice, Shape, SyntheticCheckpoint, WeightKind};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a graph's per-layer rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Variant {
    Provider,
    Tbl,
    Stock,
}

impl Variant {
    /// What the metadata says of the engine's inputs tells which it is; models without tables have one variant, whose name has no
    /// suffix.
    fn of(metadata: &Value) -> Result<Self> {
        match metadata["user_data"]["engine_inputs"].as_str() {
            Some("per-token") => Ok(Self::Provider),
            Some("static") => Ok(Self::Tbl),
            Some("none") => Ok(Self::Stock),
            other => bail!("user_data.engine_inputs is {other:?}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Tbl => "tbl",
            Self::Stock => "stock",
        }
    }
}

/// Closed ranges that a package's scores must lie in.
#[derive(Clone, Copy, Debug, Serialize)]
struct Bounds {
    /// Arg-maxes that differ from fp32 at positions with a margin of at least 0.1.
    flips: (u32, u32),
    /// Mean cosine of the logits against fp32.
    mean_cosine: (f64, f64),
    /// Smallest cosine of the logits against fp32.
    min_cosine: (f64, f64),
}

/// What a conversion that loses nothing must reach.
const LOSSLESS: Bounds = Bounds { flips: (0, 0), mean_cosine: (0.9999, 1.0), min_cosine: (0.999, 1.0) };

/// The damage done by int4 rules that discard the trained lattice; the Python pipeline's was measured at 11 flips and a
/// minimum of 0.9885 over all short sequences, 4 flips over the first two. No damage would mean that the judge does not see any.
const LOSSY: Bounds = Bounds { flips: (1, 30), mean_cosine: (0.99, 0.9999), min_cosine: (0.95, 0.999) };

/// The same for random weights, which amplify the rounding of half-precision activations: on the checkpoint of E2B's shape the
/// f16 package, which quantizes nothing, was measured at a mean of 0.99984 and a minimum of 0.9995.
const LOSSLESS_RANDOM: Bounds =
    Bounds { flips: (0, 2), mean_cosine: (0.9995, 1.0), min_cosine: (0.998, 1.0) };

/// The same for a checkpoint without per-layer embeddings.
const LOSSLESS_DENSE: Bounds = Bounds { min_cosine: (0.9999, 1.0), ..LOSSLESS };

/// The same for the untrained checkpoint: the right package was measured at 0.99986.
const LOSSLESS_PROBE: Bounds = Bounds { min_cosine: (0.9995, 1.0), ..LOSSLESS };

/// The minimum cosine between logits with wide sums, as GPUs have them, and Apple's on its CPU: the cost of rounding alone.
const ROUNDING: f64 = 0.9995;

/// The same for random weights, which amplify rounding: measured at 0.9992.
const ROUNDING_RANDOM: f64 = 0.998;

/// Cases that are enough for a package whose sibling is fed all of them, or that was judged before.
const FEW_CASES: usize = 2;

/// How far the logits of variants of one conversion may differ: they compute the same thing.
const AGREEMENT: f64 = 0.99999;

/// The script's job; the script documents each field.
#[derive(Serialize)]
struct Job<'a> {
    package: &'a Path,
    variant: Variant,
    cache_pairs: u32,
    queries: Queries,
    feedings: &'a [&'a str],
    checkpoint: &'a Path,
    tables: Option<&'a Path>,
    oracles: &'a [PathBuf],
    sequences: &'a [Vec<u64>],
    most_cases: Option<usize>,
    bounds: Bounds,
    rounding_cosine: f64,
    logits: &'a Path,
    interpreter: Option<&'a Path>,
}

/// Tokens that a call of each function takes; [`ANY`] for any number.
#[derive(Clone, Copy, Debug, Serialize)]
struct Queries {
    main: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill: Option<i64>,
}

/// Any number of tokens, in Apple's notation.
const ANY: i64 = -1;

impl Queries {
    /// One token at a time.
    const ONE: Self = Self { main: 1, prefill: None };
}

/// A checkpoint and what to feed to its packages.
struct Subject {
    checkpoint: PathBuf,
    oracles: Vec<PathBuf>,
    sequences: Vec<Vec<u64>>,
    /// How many of the oracles' cases are fed, if not all.
    most_cases: Option<usize>,
    /// The minimum cosine between logits that are only rounded differently.
    rounding_cosine: f64,
}

impl Subject {
    /// Chooses how many of the oracle's sequences are fed.
    fn feed(&mut self, cases: Cases) {
        self.most_cases = match cases {
            Cases::One => Some(1),
            Cases::Few => Some(FEW_CASES),
        };
    }
}

/// One way to convert a subject.
struct Conversion {
    name: &'static str,
    /// Makes the subject, in a folder of this name if it has to be made: others may be read meanwhile.
    subject: fn(&str) -> Result<Subject>,
    /// Options of `convert`.
    arguments: &'static [&'static str],
    /// Values of `--variant`, one run each into one folder.
    variants: &'static [&'static str],
    cases: Cases,
    bounds: Bounds,
}

/// Which of the oracle's sequences the first package of a conversion is fed. Apple's runtime takes up to a quarter of a second per
/// call, so all others are fed the first sequence: other tests check their codes and scales bit for bit, and their logits are compared with
/// those of the first package. All positions of all sequences are fed to our interpreter, whose bits are compared with Apple's in
/// `oracle/tests/it/interpreter_apple.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cases {
    /// The first one.
    One,
    /// [`FEW_CASES`].
    Few,
}

const LATTICE: &[&str] = &["--weights", "int4", "--head", "int4", "--rule", "lattice", "--embedding", "f16"];
/// The tables too, where they lie on the lattice, which is the default of stock graphs.
const EXACT: &[&str] = &["--weights", "int4", "--head", "int4", "--rule", "lattice"];
const DYNAMIC: &[&str] = &["--weights", "int4", "--head", "int4", "--rule", "lattice", "--main", "dynamic"];
const SPLIT_DYNAMIC: &[&str] =
    &["--weights", "int4", "--head", "int4", "--rule", "lattice", "--cache", "split", "--main", "dynamic"];

const CONVERSIONS: [Conversion; 19] = [
    Conversion {
        name: "tiny-int4-lattice",
        subject: tiny,
        arguments: LATTICE,
        variants: &["both", "stock"],
        cases: Cases::Few,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "tiny-int4-lattice-dynamic",
        subject: tiny,
        arguments: DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "tiny-int4-lattice-fixed-prefill",
        subject: tiny,
        arguments: &["--weights", "int4", "--head", "int4", "--rule", "lattice", "--prefill", "8"],
        variants: &["tbl"],
        cases: Cases::One,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "tiny-int4-q4_0",
        subject: tiny,
        arguments: &["--weights", "int4", "--head", "int4", "--rule", "q4_0", "--prefill", "none"],
        variants: &["stock"],
        cases: Cases::One,
        // It flips no position of the first two sequences; the cosines show the damage.
        bounds: Bounds { flips: (0, 30), ..LOSSY },
    },
    Conversion {
        name: "tiny-int8",
        subject: tiny,
        arguments: &["--weights", "int8", "--head", "int8", "--embedding", "f16"],
        variants: &["both", "stock"],
        cases: Cases::One,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "tiny-f16",
        subject: tiny,
        arguments: &["--weights", "f16", "--head", "f16"],
        variants: &["both", "stock"],
        cases: Cases::One,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "e2b-like-int4-lattice",
        subject: e2b_like,
        arguments: LATTICE,
        variants: &["both", "stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_RANDOM,
    },
    Conversion {
        name: "e2b-like-int4-lattice-dynamic",
        subject: e2b_like,
        arguments: DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_RANDOM,
    },
    Conversion {
        name: "e2b-like-off-lattice-head",
        subject: e2b_like_off_lattice_head,
        arguments: &["--weights", "int4", "--head", "auto", "--rule", "lattice", "--prefill", "none"],
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_RANDOM,
    },
    Conversion {
        name: "dense-int4-lattice",
        subject: dense,
        arguments: LATTICE,
        variants: &["stock"],
        cases: Cases::One,
        bounds: LOSSLESS_DENSE,
    },
    Conversion {
        name: "dense-int4-lattice-split-dynamic",
        subject: dense,
        arguments: SPLIT_DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_DENSE,
    },
    Conversion {
        name: "dense-int8-split",
        subject: dense,
        arguments: &["--weights", "int8", "--head", "int8", "--cache", "split", "--prefill", "none"],
        variants: &["stock"],
        cases: Cases::One,
        bounds: LOSSLESS_DENSE,
    },
    Conversion {
        name: "probe-f16",
        subject: probe,
        arguments: &["--weights", "f16", "--head", "f16"],
        variants: &["stock"],
        cases: Cases::One,
        bounds: LOSSLESS_PROBE,
    },
    Conversion {
        name: "tiny-exact",
        subject: tiny_on_lattice,
        arguments: EXACT,
        variants: &["stock"],
        cases: Cases::One,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "tiny-exact-dynamic",
        subject: tiny_on_lattice,
        arguments: DYNAMIC,
        variants: &["stock"],
        cases: Cases::One,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "e2b-like-exact",
        subject: e2b_like_on_lattice,
        arguments: EXACT,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "e2b-like-exact-dynamic",
        subject: e2b_like_on_lattice,
        arguments: DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS,
    },
    Conversion {
        name: "dense-like-int4-lattice-dynamic",
        subject: dense_like,
        arguments: DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_RANDOM,
    },
    Conversion {
        name: "dense-like-int4-lattice-split-dynamic",
        subject: dense_like,
        arguments: SPLIT_DYNAMIC,
        variants: &["stock"],
        cases: Cases::Few,
        bounds: LOSSLESS_RANDOM,
    },
];

/// A checkpoint without per-layer embeddings. A mistake in the values of its full layers lowers the minimum to 0.9997, and flips nothing;
/// the right package was measured at 0.99999.
fn dense(_name: &str) -> Result<Subject> {
    stored(data::tiny_dense_checkpoint())
}

/// An untrained one, on which the same mistake lowers the minimum to at most 0.998.
fn probe(_name: &str) -> Result<Subject> {
    stored(data::probe_checkpoint())
}

/// Full layers with fewer KV heads than their cache, but more than one.
fn dense_like(name: &str) -> Result<Subject> {
    synthetic(name, SyntheticCheckpoint::new(Shape::dense_like()))
}

fn stored(checkpoint: PathBuf) -> Result<Subject> {
    Ok(Subject { oracles: vec![checkpoint.join("oracle.json")], checkpoint, ..tiny("")? })
}

fn tiny(_name: &str) -> Result<Subject> {
    Ok(Subject {
        checkpoint: data::tiny_checkpoint(),
        oracles: vec![data::tiny_oracle()],
        sequences: Vec::new(),
        most_cases: None,
        rounding_cosine: ROUNDING,
    })
}

/// The tables of the tiny checkpoint on a lattice with f32 scales, as trained ones probably are. Its oracle is that of other tables, so
/// the reference alone judges.
fn tiny_on_lattice(name: &str) -> Result<Subject> {
    let checkpoint = scratch().join("checkpoints").join(name);
    clear(&checkpoint)?;
    fs::create_dir_all(&checkpoint)?;
    for entry in fs::read_dir(data::tiny_checkpoint())? {
        let entry = entry?;
        fs::copy(entry.path(), checkpoint.join(entry.file_name()))?;
    }
    for table in ["embed_tokens", "embed_tokens_per_layer"] {
        Lattice::F32Div75.remake(&checkpoint, &format!("model.language_model.{table}.weight"))?;
    }
    let cases = StoredOracle::read(&data::tiny_oracle())?.cases;
    let sequences = cases.iter().take(1).map(|case| case.ids().map(u64::from).collect()).collect();
    Ok(Subject { checkpoint, oracles: Vec::new(), sequences, ..tiny("")? })
}

fn e2b_like_on_lattice(name: &str) -> Result<Subject> {
    let on_lattice = WeightKind::On(Lattice::F32Div75);
    synthetic(
        name,
        SyntheticCheckpoint {
            body: on_lattice,
            embedding: on_lattice,
            per_layer: on_lattice,
            branches: 0.25,
            ..SyntheticCheckpoint::new(Shape::e2b_like())
        },
    )
}

fn e2b_like(name: &str) -> Result<Subject> {
    synthetic(
        name,
        SyntheticCheckpoint { shards: 3, dead_kv: true, ..SyntheticCheckpoint::new(Shape::e2b_like()) },
    )
}

fn e2b_like_off_lattice_head(name: &str) -> Result<Subject> {
    synthetic(
        name,
        SyntheticCheckpoint { embedding: WeightKind::Off, ..SyntheticCheckpoint::new(Shape::e2b_like()) },
    )
}

/// Makes a checkpoint, and a sequence that is longer than its sliding window and has many different ids.
fn synthetic(name: &str, recipe: SyntheticCheckpoint) -> Result<Subject> {
    let checkpoint = scratch().join("checkpoints").join(name);
    clear(&checkpoint)?;
    recipe.write(&checkpoint)?;
    let length = 4 * recipe.shape.sliding_window;
    let ids = (0..length).map(|i| 1 + (i * i * 37 + i * 11) % (recipe.shape.vocabulary - 1)).collect();
    Ok(Subject {
        checkpoint,
        oracles: Vec::new(),
        sequences: vec![ids],
        most_cases: None,
        rounding_cosine: ROUNDING_RANDOM,
    })
}

/// Converts each subject, and plans a task for every package.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    clear(&scratch().join("jobs"))?;
    fs::create_dir_all(scratch().join("jobs"))?;
    // First of all: it builds the library with which the others take half as long.
    if options.wants("halves") {
        build()?;
        if let Some(library) = half_in_hardware() {
            plan.run(halves_task(library));
        }
    }
    for package in ReferencePackage::ALL.into_iter().filter(|package| options.wants(package.name())) {
        plan.run(reference_task(package)?);
    }
    let wanted: Vec<_> = CONVERSIONS.iter().filter(|conversion| options.wants(conversion.name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (program, interpreter) = (program(options)?, interpreter()?);
    for conversion in wanted {
        if let Err(error) = plan_conversion(conversion, &program, &interpreter, plan) {
            plan.report(Check::failed(conversion.name, "convert", format!("{error:#}")));
        }
    }
    Ok(())
}

/// The task that compares a preloaded library with what it stands for.
fn halves_task(library: PathBuf) -> Task {
    Task { subject: "halves".into(), script: scripts().join("halves.py"), arguments: vec![library.into()] }
}

fn reference_task(package: ReferencePackage) -> Result<Task> {
    let (variant, bounds) = match package {
        ReferencePackage::ProviderF16 | ReferencePackage::ProviderInt8 => (Variant::Provider, LOSSLESS),
        ReferencePackage::ProviderInt4 => (Variant::Provider, LOSSY),
        ReferencePackage::TblInt4 => (Variant::Tbl, LOSSY),
    };
    let bundle = Bundle { variant, cache_pairs: 1, package: package.path() };
    // They never change, and the results of Apple's runtime for all sequences are stored: see `oracle/tests/it/interpreter_apple.rs`.
    let subject = Subject { most_cases: Some(FEW_CASES), ..tiny("")? };
    let title = format!("reference {}", package.name());
    judge_task(&title, &subject, &bundle, (Queries::ONE, &["one"]), None, bounds, None)
}

/// Our own interpreter as a program, built now.
pub(super) fn interpreter() -> Result<PathBuf> {
    build()?;
    Ok(target().join("debug/examples").join(format!("logits{}", std::env::consts::EXE_SUFFIX)))
}

fn plan_conversion(
    conversion: &Conversion,
    program: &Path,
    interpreter: &Path,
    plan: &mut Plan,
) -> Result<()> {
    let name = conversion.name;
    let mut subject = (conversion.subject)(name)?;
    let folder = scratch().join("out").join(name);
    clear(&folder)?;
    for variant in conversion.variants {
        convert(program, &subject.checkpoint, &folder, variant, conversion.arguments)?;
    }
    let output = Output::scan(&folder)?;
    output.expect(conversion.variants)?;
    plan.report(Check::passed(name, "convert", format!("{} bundles", output.bundles.len())));
    for (at, bundle) in output.bundles.iter().enumerate() {
        let title = title(name, bundle.variant);
        subject.feed(if at == 0 { conversion.cases } else { Cases::One });
        let functions = functions(bundle.variant, conversion.arguments);
        // Stock packages of S = 1 are judged where they are the only ones.
        let is_judged = at == 0 || bundle.variant != Variant::Stock;
        let tables = output.tables.as_deref();
        let interpreter = is_judged.then_some(interpreter);
        let feedings = feedings(functions);
        plan.run(judge_task(
            &title,
            &subject,
            bundle,
            (functions, feedings),
            tables,
            conversion.bounds,
            interpreter,
        )?);
    }
    if let Some((first, others)) = output.bundles.split_first() {
        for other in others {
            plan.run_afterwards(compare_task(&title(name, first.variant), &title(name, other.variant))?);
        }
    }
    Ok(())
}

/// Functions of a variant's package.
fn functions(variant: Variant, arguments: &[&str]) -> Queries {
    let value = |option| {
        let mut pairs = arguments.iter().zip(arguments.iter().skip(1));
        pairs.find(|(other, _)| **other == option).map(|(_, value)| *value)
    };
    let prefill = match (variant, value("--prefill")) {
        (Variant::Stock, None) => Some(ANY),
        (Variant::Tbl, Some(tokens)) => tokens.parse().ok(),
        _ => None,
    };
    Queries { main: if value("--main") == Some("dynamic") { ANY } else { 1 }, prefill }
}

/// How a package is fed. The window of the tiny checkpoint ends at 16 positions: chunks of 16 end there, chunks of 7 around it.
fn feedings(functions: Queries) -> &'static [&'static str] {
    match (functions.main, functions.prefill) {
        (1, None) => &["one"],
        (1, Some(ANY)) => &["one", "prefill 16"],
        (1, Some(_)) => &["one", "fixed 8"],
        _ => &["main 64", "prefill 7 main 16"],
    }
}

fn title(conversion: &str, variant: Variant) -> String {
    format!("{conversion} {}", variant.name())
}

fn convert(
    program: &Path,
    checkpoint: &Path,
    folder: &Path,
    variant: &str,
    arguments: &[&str],
) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("convert").arg(checkpoint).arg("-o").arg(folder);
    command.args(["--variant", variant]).args(arguments).arg("--force");
    let done = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    match trouble(done.status, &done.stderr) {
        Some(trouble) => bail!("convert --variant {variant}: {trouble}"),
        None => Ok(()),
    }
}

/// A bundle that was written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bundle {
    variant: Variant,
    /// Pairs of caches among its states.
    cache_pairs: u32,
    /// The `.aimodel`.
    package: PathBuf,
}

/// What a conversion wrote.
#[derive(Debug, PartialEq, Eq)]
struct Output {
    /// Provider first.
    bundles: Vec<Bundle>,
    tables: Option<PathBuf>,
}

impl Output {
    /// Finds bundles and tables in an output folder.
    fn scan(folder: &Path) -> Result<Self> {
        let mut output = Self { bundles: Vec::new(), tables: None };
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with("_gather_raw") {
                output.tables = Some(path);
            } else if path.join("metadata.json").is_file() {
                output.bundles.push(Bundle::read(&path)?);
            }
        }
        output.bundles.sort();
        Ok(output)
    }

    /// Checks that the variants are exactly those that were asked for.
    fn expect(&self, asked: &[&str]) -> Result<()> {
        let mut expected: Vec<_> = asked
            .iter()
            .flat_map(|variant| match *variant {
                "both" => vec![Variant::Provider, Variant::Tbl],
                "tbl" => vec![Variant::Tbl],
                "stock" => vec![Variant::Stock],
                _ => vec![Variant::Provider],
            })
            .collect();
        expected.sort();
        let found: Vec<_> = self.bundles.iter().map(|bundle| bundle.variant).collect();
        if found != expected {
            bail!("wrote bundles {found:?}, expected {expected:?}");
        }
        Ok(())
    }
}

impl Bundle {
    /// The package that a bundle's `metadata.json` names as its main asset, with what it says of it.
    fn read(bundle: &Path) -> Result<Self> {
        let file = bundle.join("metadata.json");
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let metadata: Value = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        let main = metadata["assets"]["main"].as_str();
        let main = main.with_context(|| format!("{} names no assets.main", file.display()))?;
        let variant = Variant::of(&metadata).with_context(|| file.display().to_string())?;
        let pairs = metadata["user_data"]["cache_pairs"].as_str().unwrap_or("1");
        let cache_pairs = pairs.parse().with_context(|| format!("{}: cache_pairs", file.display()))?;
        Ok(Self { variant, cache_pairs, package: bundle.join(main) })
    }
}

/// The task that judges one package.
fn judge_task(
    title: &str,
    subject: &Subject,
    bundle: &Bundle,
    (queries, feedings): (Queries, &[&str]),
    tables: Option<&Path>,
    bounds: Bounds,
    interpreter: Option<&Path>,
) -> Result<Task> {
    let job = Job {
        package: &bundle.package,
        variant: bundle.variant,
        cache_pairs: bundle.cache_pairs,
        queries,
        feedings,
        checkpoint: &subject.checkpoint,
        tables,
        oracles: &subject.oracles,
        sequences: &subject.sequences,
        most_cases: subject.most_cases,
        bounds,
        rounding_cosine: subject.rounding_cosine,
        logits: &logits(title),
        interpreter,
    };
    task("judge", title, &json!(job))
}

/// The task that compares the logits of two judged packages.
fn compare_task(left: &str, right: &str) -> Result<Task> {
    let job = json!({ "left": logits(left), "right": logits(right), "min_cosine": AGREEMENT });
    task("compare", &format!("{left} and {right}"), &job)
}

fn task(verb: &str, title: &str, job: &Value) -> Result<Task> {
    let file = job_file(title, "json");
    fs::write(&file, format!("{job:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Task {
        subject: title.into(),
        script: scripts().join("apple.py"),
        arguments: vec![verb.into(), file.into()],
    })
}

fn logits(title: &str) -> PathBuf {
    job_file(title, "npz")
}

fn job_file(title: &str, extension: &str) -> PathBuf {
    scratch().join("jobs").join(format!("{}.{extension}", title.replace(' ', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output folder with bundles of those names, and tables.
    fn output(bundles: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for bundle in bundles {
            let path = folder.path().join(bundle);
            fs::create_dir(&path).unwrap();
            let engine_inputs = match bundle.rsplit_once('_') {
                Some((_, "tbl")) => "static",
                Some((_, "stock")) => "none",
                _ => "per-token",
            };
            let metadata = json!({
                "assets": { "main": format!("{bundle}.aimodel") },
                "user_data": { "engine_inputs": engine_inputs },
            });
            fs::write(path.join("metadata.json"), metadata.to_string()).unwrap();
        }
        fs::create_dir(folder.path().join("m_gather_raw")).unwrap();
        folder
    }

    #[test]
    fn bundles_are_recognized_by_their_metadata() {
        let folder = output(&["m_stock", "m_tbl", "m"]);
        let found = Output::scan(folder.path()).unwrap();
        let variants: Vec<_> = found.bundles.iter().map(|bundle| bundle.variant).collect();
        assert_eq!(variants, [Variant::Provider, Variant::Tbl, Variant::Stock]);
        assert_eq!(found.bundles[1].package, folder.path().join("m_tbl/m_tbl.aimodel"));
        assert_eq!(found.tables, Some(folder.path().join("m_gather_raw")));
        found.expect(&["both", "stock"]).unwrap();
        assert!(found.expect(&["both"]).is_err());
    }

    #[test]
    fn a_missing_bundle_is_noticed() {
        let folder = output(&["m"]);
        let error = Output::scan(folder.path()).unwrap().expect(&["both"]).unwrap_err();
        assert_eq!(error.to_string(), "wrote bundles [Provider], expected [Provider, Tbl]");
        assert!(Output::scan(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_bundle_without_a_main_asset_is_an_error() {
        let folder = output(&["m"]);
        fs::write(folder.path().join("m/metadata.json"), "{}").unwrap();
        assert!(Output::scan(folder.path()).unwrap_err().to_string().contains("assets.main"));
        fs::write(folder.path().join("m/metadata.json"), r#"{"assets": {"main": "m.aimodel"}}"#).unwrap();
        assert!(format!("{:#}", Output::scan(folder.path()).unwrap_err()).contains("engine_inputs"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CONVERSIONS.iter().map(|conversion| conversion.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CONVERSIONS.len());
    }
}
