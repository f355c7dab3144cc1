//! Tables on the lattice: what they take, and that the written codes are the trained ones.

use checkpoint::Role;
use checkpoint::config::CacheForm;
use checkpoint::source::LocalSource;
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::recipe::{EmbeddingForm, PerLayerForm, Treatment};
use converter::{ConvertError, Model, Plan, PlanError, Request};
use fixtures::{Lattice, Shape, SyntheticCheckpoint, WeightKind};
use quantizer::Int4Rule;

const INT4: Treatment = Treatment::Int4(Int4Rule::Lattice);
const AUTO: TableForms = TableForms::AUTO;
const EXACT: TableForms = TableForms {
    embedding: Some(EmbeddingForm::Shared),
    per_layer: Some(PerLayerForm::Int4(Int4Rule::Lattice)),
};

fn request(variant: Variant, table_forms: TableForms) -> Request {
    let prefill = (variant == Variant::Stock).then_some(Prefill::Caches);
    Request {
        graphs: vec![(variant, Functions { main: Sequence::One, prefill })],
        caches: CacheForm::Padded,
        tables: variant != Variant::Stock,
        projections: INT4,
        overrides: Vec::new(),
        head: Some(INT4),
        table_forms,
    }
}

fn plan(recipe: &SyntheticCheckpoint, request: &Request) -> Result<Plan, ConvertError> {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    recipe.write(&checkpoint).unwrap();
    let source = LocalSource::open(&checkpoint).unwrap();
    Model::open(&source).unwrap().plan(request)
}

#[test]
fn a_whole_e4b_has_its_sizes() {
    let recipe = SyntheticCheckpoint { sparse: true, ..SyntheticCheckpoint::new(Shape::e4b(42)) };
    let stock = plan(&recipe, &request(Variant::Stock, EXACT)).unwrap();
    let bytes = stock.graphs[0].bytes();
    assert!((4_150_000_000..=4_250_000_000).contains(&bytes), "{bytes}");
    assert_eq!(stock.bytes(), bytes, "nothing waits in temporary files but scales");
    let shared = TableForms { per_layer: None, ..EXACT };
    let provider = plan(&recipe, &request(Variant::Provider, shared)).unwrap();
    let bytes = provider.graphs[0].bytes();
    assert!((2_550_000_000..=2_650_000_000).contains(&bytes), "{bytes}");
    assert_eq!(
        provider.input_bytes(),
        plan(&recipe, &request(Variant::Provider, TableForms::PUBLISHED)).unwrap().input_bytes(),
        "the tensor that makes head and table is read once"
    );
}

#[test]
fn tables_on_the_lattice_become_codes_and_others_stay() {
    let on = WeightKind::On(Lattice::F32Div75);
    let recipe = SyntheticCheckpoint::new(Shape::small());
    for (embedding, per_layer) in
        [(on, on), (WeightKind::Off, on), (on, WeightKind::Off), (WeightKind::Off, WeightKind::Off)]
    {
        let recipe = SyntheticCheckpoint { embedding, per_layer, ..recipe.clone() };
        let forms = plan(&recipe, &request(Variant::Stock, AUTO)).unwrap().table_forms;
        let expected = if embedding == on { EmbeddingForm::Shared } else { EmbeddingForm::F16 };
        assert_eq!(forms.embedding.form, expected, "{}", forms.embedding.reason);
        let expected =
            if per_layer == on { PerLayerForm::Int4(Int4Rule::Lattice) } else { PerLayerForm::Int8 };
        let found = forms.per_layer.unwrap();
        assert_eq!(found.form, expected, "{}", found.reason);
    }
    let off = SyntheticCheckpoint { embedding: WeightKind::Off, ..recipe };
    let [automatic, published] = [AUTO, TableForms::PUBLISHED]
        .map(|forms| plan(&off, &request(Variant::Stock, forms)).unwrap().graphs.remove(0));
    assert_eq!(automatic.layout, published.layout, "tables off the lattice keep their bytes");
}

#[test]
fn each_blob_is_stored_once() {
    let recipe = SyntheticCheckpoint::new(Shape::small());
    let plan = plan(&recipe, &request(Variant::Stock, EXACT)).unwrap();
    let blobs = &plan.graphs[0].blobs;
    assert!(!blobs.iter().any(|blob| blob.role == Role::EmbedTokens));
    for role in [Role::Head, Role::EmbedTokensPerLayer] {
        let keys: Vec<&str> = blobs.iter().filter(|blob| blob.role == role).map(|blob| &*blob.key).collect();
        let name = role.short_name();
        assert_eq!(keys, [format!("{name}/codes"), format!("{name}/scales")]);
    }
    assert_eq!(blobs[0].role, Role::Head, "the first blob is what the graph reads first");
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let untied = SyntheticCheckpoint {
        untied_head: Some(WeightKind::Off),
        ..SyntheticCheckpoint::new(Shape::small())
    };
    let error = plan(&untied, &request(Variant::Stock, EXACT)).err();
    assert!(matches!(error, Some(ConvertError::Plan(PlanError::NoSharedHead { .. }))), "{error:?}");
    let request = Request { head: Some(Treatment::F16), ..request(Variant::Stock, EXACT) };
    let error = plan(&SyntheticCheckpoint::new(Shape::small()), &request).err();
    assert!(error.as_ref().is_some_and(|error| error.to_string().contains("half precision")), "{error:?}");
}
