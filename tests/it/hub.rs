//! Checkpoints on a Hub: the same bytes as from a folder, no more transferred than is needed, and every fault survived or named.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Dir, QUICK, both, tree};
use aimodel::package::PackageMetadata;
use checkpoint::source::{
    Fingerprint, HubCheckpoint, HubSource, Identity, LocalSource, Source, SourceError, TensorEntry,
    open_repository,
};
use converter::decoder::{CacheForm, Functions, Variant};
use converter::embedding::TableForms;
use converter::journal::Journal;
use converter::recipe::Treatment;
use converter::{ConvertError, Model, Outputs, Plan, Request, Written};
use fixtures::hub::{
    Account, Entry, Fault, Faults, FileContent, Host, HttpRequest, Hub, Response, Routes, Shared,
};
use fixtures::{Shape, SyntheticCheckpoint};
use hub::{Client, RepositoryId, Settings, Snapshot};
use output::Digest;
use progress::Silent;
use quantizer::Int4Rule;
use sha2::{Digest as _, Sha256};

const ID: &str = "google/gemma-4-tiny";

fn settings(hub: &Hub, cache: &Path) -> Settings {
    let variables = [("HF_ENDPOINT", hub.endpoint()), ("HF_HUB_CACHE", cache.to_str().unwrap().to_owned())];
    let found =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    Settings { policy: QUICK, ..Settings::from_variables(found) }
}

fn stream(hub: &Hub) -> Result<HubSource, SourceError> {
    let client = Arc::new(Client::new(settings(hub, Path::new("/nowhere"))).unwrap());
    let snapshot = Snapshot::resolve(&client, &RepositoryId::new(ID)?, "main")?;
    HubSource::open(client, snapshot)
}

/// Both graphs and the tables.
fn plan(model: &Model<'_>) -> Result<Plan, ConvertError> {
    model.plan(&Request {
        graphs: [Variant::Provider, Variant::Table].map(|variant| (variant, Functions::MAIN)).to_vec(),
        tables: true,
        caches: CacheForm::Padded,
        projections: Treatment::Int4(Int4Rule::Lattice),
        overrides: Vec::new(),
        head: None,
        table_forms: TableForms::PUBLISHED,
    })
}

/// Writes that plan.
fn convert(source: &dyn Source) -> Result<Written, ConvertError> {
    let model = Model::open(source)?;
    let plan = plan(&model)?;
    let folder = tempfile::tempdir().unwrap();
    let packages = [folder.path().join("a"), folder.path().join("b")];
    let tables = folder.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    let outputs = Outputs {
        packages: &packages,
        tables: Some(&tables),
        scratch: folder.path(),
        metadata: &PackageMetadata::new("test", "19700101T000000Z"),
    };
    model.write(&plan, &outputs, 2, &Silent, &mut Journal::off())
}

/// Digests of everything that was written.
fn digests(written: &Written) -> BTreeMap<String, Digest> {
    let packages = written.packages.iter().enumerate().map(|(at, package)| (format!("{at}"), package.digest));
    let tables = written.tables.iter().flat_map(|tables| &tables.files);
    packages.chain(tables.map(|(name, file)| (name.clone(), file.digest))).collect()
}

/// Counts what is read of a folder's tensors.
#[derive(Debug)]
struct Counting {
    source: LocalSource,
    bytes: AtomicU64,
}

impl Source for Counting {
    fn identity(&self) -> &Identity {
        self.source.identity()
    }
    fn tensors(&self) -> &[TensorEntry] {
        self.source.tensors()
    }
    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        self.bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.source.read_at(tensor, offset, out)
    }
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.source.read_file(name)
    }
    fn file_names(&self) -> &[String] {
        self.source.file_names()
    }
    fn verify_unchanged(&self) -> Result<(), SourceError> {
        self.source.verify_unchanged()
    }
    fn fingerprint(&self) -> Result<Fingerprint, SourceError> {
        self.source.fingerprint()
    }
}

/// Bytes of weight files that the Hub sent, and where they lie.
fn transferred(log: &[Entry]) -> (u64, Vec<(String, Range<u64>)>) {
    let weights =
        log.iter().filter(|entry| entry.file.as_deref().is_some_and(|file| file.ends_with("safetensors")));
    let of_network = weights.filter(|entry| entry.host == Host::Network).collect::<Vec<_>>();
    let ranges = of_network.iter().filter_map(|entry| Some((entry.file.clone()?, entry.range.clone()?)));
    (of_network.iter().map(|entry| entry.sent).sum(), ranges.collect())
}

#[test]
fn streaming_gives_the_same_bytes_and_transfers_what_the_plan_reads() {
    let dir = Dir::new();
    let recipe = SyntheticCheckpoint { shards: 3, dead_kv: true, ..SyntheticCheckpoint::new(Shape::small()) };
    recipe.write(&dir.path("model")).unwrap();
    let hub = Hub::start().unwrap();
    hub.add_folder(ID, &dir.path("model")).unwrap();

    let counting =
        || Counting { source: LocalSource::open(&dir.path("model")).unwrap(), bytes: AtomicU64::new(0) };
    let folder = counting();
    let expected = digests(&convert(&folder).unwrap());
    let planning = counting();
    let model = Model::open(&planning).unwrap();
    let planned = plan(&model).unwrap();
    // A map: the tied head is the embedding's tensor in another role. What is stored in the program is read for the plan, except for
    // the norm that the tables have too.
    let is_inline = |name: &str| {
        let mut inline = planned.graphs[0].inline.iter();
        inline.any(|inline| inline.tensor == name) && !name.ends_with("per_layer_projection_norm.weight")
    };
    let tensors = model.checkpoint.iter().filter(|(_, tensor)| !is_inline(&tensor.name));
    let needed: BTreeMap<&str, &TensorEntry> =
        tensors.map(|(_, tensor)| (tensor.name.as_str(), tensor)).collect();
    let needed: u64 = needed.values().map(|tensor| tensor.range.end - tensor.range.start).sum();
    let sampled = planning.bytes.load(Ordering::Relaxed);
    assert_eq!(folder.bytes.load(Ordering::Relaxed), needed + sampled, "every tensor once");
    assert_eq!(planned.input_bytes(), needed);
    let source = stream(&hub).unwrap();
    assert_eq!(source.fingerprint().unwrap(), folder.fingerprint().unwrap());
    assert_eq!(digests(&convert(&source).unwrap()), expected);

    let header = |name: &str| {
        let bytes = std::fs::read(dir.path("model").join(name)).unwrap();
        8 + u64::from_le_bytes(bytes[..8].try_into().unwrap())
    };
    let headers: u64 = (1..=3).map(|shard| header(&format!("model-0000{shard}-of-00003.safetensors"))).sum();
    let (sent, ranges) = transferred(&hub.log());
    assert_eq!(sent, headers + folder.bytes.load(Ordering::Relaxed));

    let model = Model::open(&source).unwrap();
    let skipped: Vec<&TensorEntry> =
        source.tensors().iter().filter(|tensor| model.checkpoint.skipped().contains(&tensor.name)).collect();
    assert!(skipped.iter().any(|tensor| tensor.name.contains("vision")), "the checkpoint has towers");
    for tensor in skipped {
        let touches = |(file, range): &&(String, Range<u64>)| {
            *file == *tensor.file && range.start < tensor.range.end && tensor.range.start < range.end
        };
        assert_eq!(ranges.iter().find(touches), None, "{}", tensor.name);
    }
}

/// Digest of all tensors, read in order as the converter reads them.
fn weights(source: &dyn Source) -> Result<[u8; 32], SourceError> {
    source.will_read_in_order(&source.tensors().iter().collect::<Vec<_>>());
    let mut digest = Sha256::new();
    for tensor in source.tensors() {
        let mut bytes = vec![0; tensor.byte_len() as usize];
        source.read_at(tensor, 0, &mut bytes)?;
        digest.update(&bytes);
    }
    Ok(digest.finalize().into())
}

/// Every fifth run is a conversion. What that does with the bytes does not depend on the connection, so the others only read them.
#[test]
fn a_run_with_faults_ends_with_the_right_bytes_or_a_clear_error() {
    let dir = Dir::new();
    SyntheticCheckpoint::new(Shape::small()).write(&dir.path("model")).unwrap();
    let hub = Hub::start().unwrap();
    hub.add_folder(ID, &dir.path("model")).unwrap();
    let folder = LocalSource::open(&dir.path("model")).unwrap();
    let (converted, read) = (digests(&convert(&folder).unwrap()), weights(&folder).unwrap());
    let kinds = [
        Fault::Reset,
        Fault::Short,
        Fault::TooMany(1),
        Fault::TooMany(3),
        Fault::Unavailable,
        Fault::Expired,
    ];
    let (mut right, mut errors) = (0, Vec::new());
    for seed in 0..200 {
        // From a bad connection to one on which hardly anything works.
        hub.set_faults(Some(Faults::new(seed, 1 + seed % 8, &kinds)));
        hub.set_link_uses((seed % 3 == 0).then_some(5));
        let run = |source: HubSource| {
            if seed % 5 == 0 {
                convert(&source).map(|written| digests(&written) == converted)
            } else {
                Ok(weights(&source)? == read)
            }
        };
        match stream(&hub).map_err(ConvertError::from).and_then(run) {
            Ok(is_right) => {
                assert!(is_right, "seed {seed}");
                right += 1;
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    assert!(right >= 100, "only {right} runs came to an end: {errors:?}");
    assert!(errors.len() >= 10, "the worst lines must have ended some runs");
    let clear = ["keeps breaking", "limits the rate", "it has problems", "refuses"];
    for error in &errors {
        assert!(clear.iter().any(|words| error.contains(words)), "{error}");
    }
}

#[test]
fn a_download_is_continued_checked_and_used() {
    let dir = Dir::new();
    SyntheticCheckpoint::new(Shape::small()).write(&dir.path("model")).unwrap();
    let hub = Hub::start().unwrap();
    let commit = hub.add_folder(ID, &dir.path("model")).unwrap();
    let cache = dir.path("cache");
    let open = |download: bool| {
        let repository =
            HubCheckpoint { id: ID, revision: "main", download, verify: false, progress: &Silent };
        open_repository(settings(&hub, &cache), &repository)
    };
    // Cut off permanently in the weights, which are the last file before the tokenizer's.
    hub.set_faults(Some(Faults::new(1, 1, &[Fault::WrongByte])));
    let error = open(true).unwrap_err().to_string();
    assert!(error.contains("does not answer as a Hub") || error.contains("arrived damaged"), "{error}");
    hub.set_faults(None);
    let blobs = cache.join("models--google--gemma-4-tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let weights = std::fs::read(dir.path("model/model.safetensors")).unwrap();
    let digest = hub.change(ID, |repository| {
        repository.resolve("main").unwrap().1["model.safetensors"].etag().to_owned()
    });
    std::fs::write(blobs.join(format!("{digest}.incomplete")), &weights[..weights.len() / 3]).unwrap();
    hub.clear_log();
    let source = open(true).unwrap();
    assert_eq!(transferred(&hub.log()).0, (weights.len() - weights.len() / 3) as u64);
    assert_eq!(source.identity().revision, Some(commit.clone()));
    let snapshot = cache.join("models--google--gemma-4-tiny/snapshots").join(&commit);
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), weights);
    assert_eq!(
        std::fs::read_to_string(cache.join("models--google--gemma-4-tiny/refs/main")).unwrap(),
        commit
    );

    hub.clear_log();
    open(false).unwrap();
    assert_eq!(hub.log().len(), 1, "a whole snapshot is used: only the commit is asked for");

    // Damage is found, not kept.
    std::fs::remove_file(blobs.join(&digest)).unwrap();
    std::fs::write(blobs.join(format!("{digest}.incomplete")), vec![7; 1000]).unwrap();
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    assert!(open(true).unwrap_err().to_string().contains("arrived damaged"));
    assert!(!blobs.join(&digest).exists() && !snapshot.join("model.safetensors").exists());
    open(true).unwrap();
}

/// Opens a repository without keeping it, with these variables set, and returns the error with the Hub's address as `HUB`.
fn refusal(hub: &Hub, id: &str, revision: &str, variables: &[(&str, &str)]) -> String {
    let endpoint = hub.endpoint();
    let all = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_CACHE", "/nowhere"), ("HF_HOME", "/nowhere")];
    let found = |name: &str| {
        let mut known = variables.iter().chain(&all);
        known.find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let settings = Settings { policy: QUICK, ..Settings::from_variables(found) };
    let repository = HubCheckpoint { id, revision, download: false, verify: false, progress: &Silent };
    let error = open_repository(settings, &repository).unwrap_err().to_string();
    error.replace(&endpoint, "HUB").replace(endpoint.trim_start_matches("http://"), "HUB")
}

#[test]
fn every_refusal_has_its_own_message_and_a_next_step() {
    let hub = Hub::start().unwrap();
    for id in ["google/open", "google/gated", "google/private"] {
        hub.add_folder(id, &fixtures::data::tiny_checkpoint()).unwrap();
    }
    hub.change("google/gated", |repository| repository.gated = true);
    hub.change("google/private", |repository| repository.private = true);
    hub.add_account("hf_ada", Account::new("ada"));
    let token = ("HF_TOKEN", "hf_ada");
    for (id, revision, variables, expected) in [
        (
            "google/gated",
            "main",
            &[][..],
            "google/gated is gated, and there is no token: accept its terms at HUB/google/gated, make a token at \
             HUB/settings/tokens, then set HF_TOKEN or run `hf auth login`",
        ),
        (
            "google/gated",
            "main",
            &[token],
            "google/gated is gated, and the owner of the token from HF_TOKEN has no access yet: open HUB/google/gated, accept the \
             terms with that account, wait until access is granted, then run again",
        ),
        (
            "google/open",
            "main",
            &[("HF_TOKEN", "hf_old")],
            "HUB does not accept the token from HF_TOKEN: it is mistyped, expired or revoked; make a new one at \
             HUB/settings/tokens, or remove it if the repository is public",
        ),
        (
            "google/opne",
            "main",
            &[],
            "HUB knows no public repository google/opne: check the spelling; if it is private, set HF_TOKEN or run `hf auth \
             login`",
        ),
        (
            "google/private",
            "main",
            &[token],
            "HUB has no repository google/private that the owner of the token from HF_TOKEN may see: check the spelling, or use \
             another account's token",
        ),
        (
            "google/open",
            "v2",
            &[],
            "google/open has no revision \"v2\": give a branch, a tag or a whole commit of HUB/google/open/commits/main",
        ),
        (
            "google/open",
            "main",
            &[("HF_HUB_OFFLINE", "1")],
            "HF_HUB_OFFLINE is set, and /nowhere does not hold all of google/open at \"main\": unset it, or download the \
             repository once with --download while online",
        ),
        (
            "google/open",
            "main",
            &[("HF_ENDPOINT", "http://127.0.0.1:9")],
            "cannot reach 127.0.0.1:9: connection refused; check the network, or HF_ENDPOINT if you set it; a folder, or a \
             repository that is in the cache, needs no network",
        ),
    ] {
        assert_eq!(refusal(&hub, id, revision, variables), expected);
    }
    hub.set_faults(Some(Faults::new(1, 1, &[Fault::TooMany(2)])));
    assert_eq!(
        refusal(&hub, "google/open", "main", &[]),
        "HUB limits the rate of requests and asks for a pause of 2 s: wait some minutes and run again; with a token \
         (HF_TOKEN, or `hf auth login`) the limit is higher"
    );
}

/// Sends everything that is read from the content network to another address first.
struct Detour;

impl Routes for Detour {
    fn answer(&self, hub: &Shared, host: Host, request: &HttpRequest) -> Option<Response> {
        let is_first = host == Host::Network && !request.query.contains("&hop");
        let link = format!("{}{}?{}&hop", hub.network, request.path, request.query);
        is_first.then(|| Response::new(302, "").with("Location", link))
    }
}

#[test]
fn a_link_may_lead_on_and_a_branch_may_move() {
    let dir = Dir::new();
    SyntheticCheckpoint::new(Shape::small()).write(&dir.path("model")).unwrap();
    let hub = Hub::start().unwrap();
    hub.add_folder(ID, &dir.path("model")).unwrap();
    hub.add_routes(Detour);
    let source = stream(&hub).unwrap();
    // What is read is the commit that was asked for, whatever the branch does.
    let other = FileContent::Bytes(Arc::from(&b"another"[..]));
    hub.change(ID, |repository| repository.commit_file("model.safetensors", other)).unwrap();
    let folder = LocalSource::open(&dir.path("model")).unwrap();
    assert_eq!(weights(&source).unwrap(), weights(&folder).unwrap());
    assert!(hub.log().iter().any(|entry| entry.host == Host::Network && entry.status == 302));
}

#[test]
fn a_server_that_lies_is_caught_or_its_weights_are_called_unverified() {
    let dir = Dir::new();
    let hub = Hub::start().unwrap();
    hub.add_folder(ID, &fixtures::data::tiny_checkpoint()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = dir.command(arguments);
        command.env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", dir.path("home")).env_remove("HF_TOKEN");
        command.env_remove("HF_HUB_CACHE").env_remove("HF_HUB_OFFLINE").output().unwrap()
    };
    let check = |out: &str| {
        let name = dir.names(out).into_iter().find(|name| name.contains("decode")).unwrap();
        let text = std::fs::read_to_string(dir.path(out).join(name).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["source"]["weights"].as_str().map(str::to_owned)
    };
    assert!(run(&["convert", ID, "-o", "good", "--verify"]).status.success());
    assert_eq!(check("good").unwrap(), "verified against the Hub's digest");
    dir.ok(&["convert", &crate::common::tiny(), "-o", "folder"]);
    assert_eq!(check("folder"), None);

    // A flipped bit somewhere in every range of the weights.
    let flip = || hub.set_faults(Some(Faults::new(5, 1, &[Fault::WrongByte]).only("GET /repos/")));
    let fails = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        both(&output)
    };
    hub.set_faults(None);
    // Digests of zeros.
    hub.change(ID, |repository| {
        let mut tree = fixtures::hub::repository::Tree::clone(repository.resolve("main").unwrap().1);
        tree.get_mut("model.safetensors").unwrap().sha256 = Some("0".repeat(64));
        repository.commit("main", tree);
    });
    let text = fails(&["convert", ID, "-o", "bad", "--verify"]);
    assert!(text.contains("model.safetensors is not what the Hub says") && text.contains("000000"), "{text}");
    assert!(fails(&["convert", ID, "-o", "bad", "--download"]).contains("arrived damaged"));
    assert!(run(&["convert", ID, "-o", "parts"]).status.success());
    assert_eq!(check("parts").unwrap(), "not verified against the Hub's digest");
    flip();
    assert!(fails(&["convert", ID, "-o", "bad", "--verify"]).contains("error: "));
    assert!(!dir.path("bad").exists() || dir.names("bad").is_empty());
    hub.set_faults(None);

    // The card of a release repeats it.
    std::fs::write(dir.path("LICENSE"), "Terms of a test").unwrap();
    let release = |out: &str| {
        let names: Vec<String> = dir.names(out).into_iter().map(|name| format!("{out}/{name}")).collect();
        let target = format!("release-{out}");
        let mut arguments = vec!["release", "-o", &target, "--base-model", ID];
        arguments.extend(["--license", "LICENSE", "--license-id", "other"]);
        arguments.extend(names.iter().map(String::as_str));
        dir.ok(&arguments);
        std::fs::read_to_string(dir.path(&target).join("README.md")).unwrap()
    };
    assert!(release("parts").contains("not verified against the Hub's digest"));
    assert!(!release("good").contains("not verified"));
}

#[test]
fn the_command_reads_the_hub_and_never_shows_the_token() {
    let dir = Dir::new();
    let hub = Hub::start().unwrap();
    let commit = hub.add_folder(ID, &fixtures::data::tiny_checkpoint()).unwrap();
    hub.change(ID, |repository| repository.gated = true);
    let mut ada = Account::new("ada");
    ada.accepted.insert(ID.to_owned());
    hub.add_account("hf_verysecret", ada);
    let run = |arguments: &[&str]| {
        let mut command = dir.command(arguments);
        command
            .env("HF_ENDPOINT", hub.endpoint())
            .env("HF_HOME", dir.path("home"))
            .env("HF_TOKEN", "hf_verysecret");
        command.env_remove("HF_HUB_CACHE").env_remove("HF_HUB_OFFLINE").output().unwrap()
    };
    let mut shown = String::new();
    for arguments in [
        &["convert", ID, "-o", "out", "--variant", "both", "--json"][..],
        &["convert", ID, "-o", "dry", "--dry-run"],
        &["tables", ID, "-o", "tables"],
        &["inspect", ID],
    ] {
        let output = run(arguments);
        shown += &both(&output);
        assert!(output.status.success(), "{arguments:?}: {}", both(&output));
    }
    assert!(!dir.path("home").exists(), "nothing of the checkpoint is kept");
    let authorized = |entry: &&Entry| entry.authorized && entry.host == Host::Network;
    assert_eq!(hub.log().iter().find(authorized), None, "the content network sees no token");
    dir.ok(&["convert", &crate::common::tiny(), "-o", "local", "--variant", "both", "--name", "m"]);
    let folder = |name: &str| std::fs::read_dir(dir.path(name)).unwrap().count();
    assert_eq!(folder("out"), folder("local"));

    let oracle = ["oracle", ID, "--prompt", "Count up: 1, 2,", "-n", "2", "-o", "oracle.json"];
    let output = run(&oracle);
    shown += &both(&output);
    assert!(output.status.success(), "{}", both(&output));
    assert!(dir.path("home/hub").exists(), "an oracle reads the checkpoint many times: it is kept");
    assert!(both(&output).contains(&format!("fetching {ID} into ")), "{}", both(&output));
    hub.change(ID, |repository| repository.private = true);
    for arguments in
        [&["convert", "google/none", "-o", "none"][..], &["convert", ID, "-o", "bad", "--revision", "v9"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        shown += &both(&output);
    }
    assert!(!shown.contains("hf_verysecret"), "{shown}");
    for (path, bytes) in tree(&dir.path(".")) {
        let has = bytes.windows(13).any(|window| window == b"hf_verysecret");
        assert!(!has, "{} holds the token", path.display());
    }
    let manifest = dir.path("out/gemma4_l12h128_decode_int4lin/manifest.json");
    let text =
        std::fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{error}: {:?}", dir.names("out")));
    assert!(text.contains(&commit), "the commit is recorded");
}
