//! Plans of the released models without per-layer embeddings, from headers of their real sizes.

use checkpoint::Role;
use checkpoint::source::LocalSource;
use converter::blob::{Blob, Content};
use converter::decoder::{CacheForm, Functions, Prefill, Sequence, Variant};
use converter::embedding::TableForms;
use converter::name::ModelName;
use converter::recipe::{EmbeddingForm, Treatment};
use converter::{ConvertError, Model, PlanError, Request};
use fixtures::data::DenseRelease;
use fixtures::{Shape, SyntheticCheckpoint};
use quantizer::Int4Rule;

const INT4: Treatment = Treatment::Int4(Int4Rule::Lattice);

fn request(caches: CacheForm, head: Treatment) -> Request {
    let functions = Functions { main: Sequence::One, prefill: Some(Prefill::Caches) };
    Request {
        graphs: vec![(Variant::Stock, functions)],
        caches,
        tables: false,
        projections: INT4,
        overrides: Vec::new(),
        head: Some(head),
        table_forms: TableForms::PUBLISHED,
    }
}

/// Bytes of a released model's package.
struct Sizes {
    codes: u64,
    scales: u64,
    embedding: u64,
    head_int4: u64,
    head_int8: u64,
    /// Norms of 256 elements and more; the smaller tensors are in the program.
    norms: u64,
    /// Most bytes of the whole package with the embedding in the head's codes.
    shared: u64,
}

#[test]
fn released_models_have_their_sizes() {
    for (release, name, sizes) in [
        (
            DenseRelease::Gemma12b,
            "gemma4_12b_qat_decode_int4lin",
            Sizes {
                codes: 5_449_973_760,
                scales: 681_246_720,
                embedding: 2_013_265_920,
                head_int4: 566_231_040,
                head_int8: 1_069_547_520,
                norms: 1_539_584,
                shared: 6_750_000_000,
            },
        ),
        (
            DenseRelease::Gemma31b,
            "gemma4_31b_qat_decode_int4lin",
            Sizes {
                codes: 14_643_363_840,
                scales: 1_830_420_480,
                embedding: 2_818_572_288,
                head_int4: 792_723_456,
                head_int8: 1_497_366_528,
                norms: 2_662_912,
                shared: 17_300_000_000,
            },
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        let recipe = SyntheticCheckpoint::from_config(&release.config()).unwrap();
        SyntheticCheckpoint { sparse: true, towers: false, ..recipe }.write(&checkpoint).unwrap();
        let source = LocalSource::open(&checkpoint).unwrap();
        let model = Model::open(&source).unwrap();
        for caches in CacheForm::ALL {
            for (head, head_bytes) in [(INT4, sizes.head_int4), (Treatment::Int8, sizes.head_int8)] {
                let plan = model.plan(&request(caches, head)).unwrap();
                let graph = &plan.graphs[0];
                let sum = |is_counted: &dyn Fn(&Blob) -> bool| {
                    graph.blobs.iter().filter(|blob| is_counted(blob)).map(Blob::bytes).sum::<u64>()
                };
                let is_scale = |blob: &Blob| matches!(blob.content, Content::Scales(_));
                let is_body = |blob: &Blob| blob.role.is_projection() && blob.role != Role::Head;
                assert_eq!(sum(&|blob| is_body(blob) && !is_scale(blob)), sizes.codes);
                assert_eq!(sum(&|blob| is_body(blob) && is_scale(blob)), sizes.scales);
                assert_eq!(sum(&|blob| blob.role == Role::EmbedTokens), sizes.embedding);
                assert_eq!(sum(&|blob| blob.role == Role::Head), head_bytes);
                let blobs = sizes.codes + sizes.scales + sizes.embedding + head_bytes + sizes.norms;
                assert_eq!(sum(&|_| true), blobs);
                // The program: ops of two functions, and the padding between blobs.
                let program = graph.bytes() - blobs;
                assert!((1 << 19..32 << 20).contains(&program), "{program}");
                // No tables, and no temporary space but the head's.
                assert_eq!(plan.bytes(), graph.bytes() + head_bytes);
                assert!(plan.tables.is_none());
            }
        }
        // With the embedding in the head's codes, nothing is stored twice and nothing waits.
        let shared = TableForms { embedding: Some(EmbeddingForm::Shared), per_layer: None };
        let plan = model.plan(&Request { table_forms: shared, ..request(CacheForm::Padded, INT4) }).unwrap();
        assert!(plan.graphs[0].bytes() <= sizes.shared, "{}", plan.graphs[0].bytes());
        assert_eq!(plan.bytes(), plan.graphs[0].bytes());
        assert!(!plan.graphs[0].blobs.iter().any(|blob| blob.role == Role::EmbedTokens));
        // By the shape alone: the folder's name says nothing.
        let plan = model.plan(&request(CacheForm::Padded, INT4)).unwrap();
        assert_eq!(ModelName::new("google/it-qat", &model.config).bundle(&plan.graphs[0]), name);
        let plan = model.plan(&request(CacheForm::Split, INT4)).unwrap();
        assert_eq!(
            ModelName::new("google/it-qat", &model.config).bundle(&plan.graphs[0]),
            format!("{name}_split")
        );
    }
}

/// What does not apply to a family is refused with the reason.
#[test]
fn variants_and_caches_that_a_model_does_not_have() {
    let refusal = |shape: Shape, variant: Variant, caches: CacheForm| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        SyntheticCheckpoint::new(shape).write(&checkpoint).unwrap();
        let source = LocalSource::open(&checkpoint).unwrap();
        let model = Model::open(&source).unwrap();
        let request = Request { graphs: vec![(variant, Functions::MAIN)], ..request(caches, INT4) };
        model.plan(&request).err()
    };
    for variant in [Variant::Provider, Variant::Table] {
        let error = refusal(Shape::dense_like(), variant, CacheForm::Padded);
        let Some(ConvertError::Plan(PlanError::NoVariant { variant: found })) = error else {
            panic!("{error:?}")
        };
        assert_eq!(found, variant.name());
    }
    let error = refusal(Shape::small(), Variant::Stock, CacheForm::Split);
    assert!(matches!(error, Some(ConvertError::Plan(PlanError::NoSplitCaches))), "{error:?}");
    assert!(refusal(Shape::dense_like(), Variant::Stock, CacheForm::Split).is_none());
}
