//! Faults of the graph, planted in the facts read from a good one.

use packer::check::facts::{FunctionFacts, GraphFacts, PortFacts, SharedBlob};

use crate::check::fixture::{PROVIDER, Release, TBL, assert_found};

macro_rules! graph_faults {
    ($bundle:expr; $($name:ident: $plant:expr => [$($id:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let release = Release::new();
            let plant: fn(&mut GraphFacts) = $plant;
            assert_found(&release.bundle($bundle).check_graph(plant), &[$($id),*]);
        })*
    };
}

fn main_of(facts: &mut GraphFacts) -> &mut FunctionFacts {
    &mut facts.functions[0]
}

fn input<'a>(facts: &'a mut GraphFacts, name: &str) -> &'a mut PortFacts {
    main_of(facts).inputs.iter_mut().find(|input| input.name == name).unwrap()
}

/// Adds the caches of full layers.
fn second_pair(facts: &mut GraphFacts) {
    let states = &mut main_of(facts).states;
    let full = states.iter().map(|state| PortFacts { name: format!("{}Full", state.name), ..state.clone() });
    let full: Vec<PortFacts> = full.collect();
    states.extend(full);
}

fn shared_blob(same_rows: bool) -> SharedBlob {
    let types = ["<512x128xsi4>", "<512x64xui8>"].map(str::to_owned).to_vec();
    SharedBlob { name: "lm_head.weight/codes".to_owned(), types, same_rows }
}

fn add_input(facts: &mut GraphFacts, name: &str) {
    let port = PortFacts { name: name.into(), element: "f16".into(), shape: vec![Some(1), Some(4)] };
    main_of(facts).inputs.push(port);
}

graph_faults! {
    PROVIDER;

    function_of_another_name: |g| main_of(g).name = "decode".into() => ["graph.function"];
    no_input_ids: |g| main_of(g).inputs.retain(|input| input.name != "input_ids") => ["graph.input-ids"];
    input_ids_of_another_type: |g| input(g, "input_ids").element = "si64".into() => ["graph.input-ids"];
    input_ids_of_several_tokens: |g| input(g, "input_ids").shape[1] = Some(8) => ["graph.input-ids"];
    position_ids_of_fixed_shape: |g| input(g, "position_ids").shape[1] = Some(1) => ["graph.position-ids"];
    position_ids_in_floats: |g| input(g, "position_ids").element = "f32".into() => ["graph.position-ids"];

    per_token_input_in_f32: |g| input(g, "ple_tokens").element = "f32".into() => ["graph.extra-input"];
    per_token_input_of_dynamic_shape: |g| input(g, "ple_tokens").shape[1] = None => ["graph.extra-input"];
    unknown_input: |g| add_input(g, "mask") => ["graph.unknown-input"];
    more_inputs_than_the_engine_fills: |g| { add_input(g, "mask"); add_input(g, "bias"); } =>
        ["graph.unknown-input", "graph.unknown-input", "graph.extra-input"];
    table_inside_of_the_graph: |g| { main_of(g).inputs.truncate(2); g.holds_table = true; } =>
        ["graph.stock-not-run", "metadata.engine-inputs"];

    rows_gathered_as_bytes: |g| g.gathers_bytes = true => ["graph.byte-tables-not-run"];
    a_blob_read_in_other_rows: |g| g.shared_blobs.push(shared_blob(false)) => ["graph.shared-blob"];
    a_blob_read_in_the_same_rows: |g| g.shared_blobs.push(shared_blob(true)) => [];

    no_table_at_all: |g| main_of(g).inputs.truncate(2) => ["metadata.engine-inputs"];
    two_pairs_of_caches: |g| { main_of(g).inputs.truncate(2); second_pair(g); } =>
        ["graph.split-caches-not-run", "metadata.engine-inputs"];
    two_pairs_of_caches_with_table_rows: second_pair => ["graph.split-caches-not-run", "graph.states"];
    full_caches_first: |g| { main_of(g).inputs.truncate(2); second_pair(g); main_of(g).states.rotate_left(2); } =>
        ["graph.split-caches-not-run", "graph.states", "metadata.engine-inputs"];
    three_states: |g| { main_of(g).inputs.truncate(2); second_pair(g); main_of(g).states.pop(); } =>
        ["graph.states", "metadata.engine-inputs"];

    states_in_the_wrong_order: |g| main_of(g).states.reverse() => ["graph.states"];
    no_states: |g| main_of(g).states.clear() => ["graph.states"];
    states_in_f32: |g| main_of(g).states[0].element = "f32".into() => ["graph.states"];
    states_of_rank_four: |g| for state in &mut main_of(g).states { state.shape.remove(1); } => ["graph.states"];
    states_that_do_not_grow: |g| for state in &mut main_of(g).states { state.shape[3] = Some(4096); } =>
        ["graph.states"];
    states_that_grow_along_another_axis: |g| for state in &mut main_of(g).states {
        state.shape.swap(2, 3);
    } => ["graph.states"];

    logits_in_f32: |g| main_of(g).outputs[0].element = "f32".into() => ["graph.logits"];
    logits_of_every_position: |g| main_of(g).outputs[0].shape[1] = None => ["graph.logits"];
    logits_of_another_name: |g| main_of(g).outputs[0].name = "output".into() => ["graph.logits"];
    logits_of_another_vocabulary: |g| main_of(g).outputs[0].shape[2] = Some(1024) => ["graph.vocabulary"];

    one_scale_a_channel: |g| g.weights[7].block = Some(vec![1, g.weights[7].shape[1]]) => ["graph.block-size"];
    blocks_of_sixteen: |g| for weight in &mut g.weights { weight.block = Some(vec![1, 16]); } =>
        ["graph.block-size"];
    blocks_along_the_output_axis: |g| g.weights[0].block = Some(vec![32, 1]) => ["graph.block-size"];
    scales_that_do_not_divide: |g| g.weights[0].block = None => ["graph.block-size"];
    weights_of_another_type: |g| g.weights[3].element = "ui4".into() => ["graph.weight-type"];
    weights_with_offsets: |g| g.weights[3].shifted = true => ["graph.weight-offset"];
    scale_that_is_not_a_number: |g| g.weights[3].bad_scales = 2 => ["graph.weight-scale"];
    frequencies_in_f16: |g| g.rotations[1].elements = vec!["f16".into(), "f32".into()] =>
        ["graph.rope-precision"];
    debug_locations: |g| g.debug_locations = 1 => ["graph.locations"];
    operation_that_breaks_a_rule: |g| g.invalid = Some("main / op 3 range_v1: has 2 operands".into()) =>
        ["graph.invalid"];
}

mod tbl {
    use super::{Release, TBL, assert_found, input, main_of};
    use packer::check::facts::GraphFacts;

    graph_faults! {
        TBL;

        table_in_f16: |g| input(g, "ple_table").element = "f16".into() => ["graph.extra-input"];
        scales_in_f16: |g| input(g, "ple_scale").element = "f16".into() => ["graph.extra-input"];
        table_without_scales: |g| main_of(g).inputs.retain(|input| input.name != "ple_scale") =>
            ["graph.extra-input"];
        table_of_another_width: |g| input(g, "ple_table").shape[1] = Some(400) => ["tables.shape"];
        table_of_another_vocabulary: |g| input(g, "ple_table").shape[0] = Some(1024) => ["tables.shape"];
    }
}

/// Faults that are really in the program: the reader must see them.
mod extracted {
    use aimodel::Attribute;
    use aimodel::bytecode::reader::Bytecode;
    use packer::check::facts::GraphFacts;

    use crate::check::fixture::{PROVIDER, Release, assert_found, reference};

    #[test]
    fn infinite_scale_in_a_blob_is_found() {
        let release = Release::new();
        let bundle = release.bundle(PROVIDER);
        let path = bundle.in_asset("main.mlirb");
        let mut program = bundle.read(&path);
        let bytecode = Bytecode::read(program.as_slice()).unwrap();
        // The first f16 blob of a dequantization is its scale.
        let module = &bytecode.module;
        let graph = module.graphs()[0];
        let ops = &module.block(module.body(graph).unwrap()).ops;
        let scale = ops
            .iter()
            .map(|&op| module.op(op))
            .filter(|op| op.opcode == aimodel::Opcode::BlockwiseShiftScale)
            .find_map(|op| match module.constant(op.operands[1]) {
                Some(Attribute::DenseResource(id)) => Some(bytecode.blobs[id.index()]),
                _ => None,
            })
            .unwrap();
        let at = usize::try_from(scale.offset).unwrap() + 10;
        program[at..at + 2].copy_from_slice(&0x7c00_u16.to_le_bytes());
        bundle.write(&path, &program);
        bundle.write(&bundle.in_asset("main.hash"), output::Digest::of_bytes(&program).as_bytes());
        bundle.seal();
        assert_found(&bundle.check(), &["graph.weight-scale"]);
    }

    /// As in a program that `check` once passed and Apple's loader aborted on.
    #[test]
    fn operation_without_one_of_its_operands_is_found() {
        let mut graph = aimodel::build::AssetBuilder::new().function("main");
        let x = graph.input("x", &aimodel::TensorType::fixed(&[2, 3], aimodel::Element::F16));
        let y = graph.add(x, x).unwrap();
        let mut module = graph.finish(&[], &[("y", y)]).unwrap().finish();
        let body = module.body(module.graphs()[0]).unwrap();
        let add = module.block(body).ops[0];
        module.op_mut(add).operands.pop();
        let layout = aimodel::bytecode::layout::Layout::new(&module).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("main.mlirb"), [layout.prefix, layout.suffix].concat()).unwrap();
        let invalid = GraphFacts::read(scratch.path()).unwrap().invalid.unwrap();
        assert!(invalid.contains("has 1 operands instead of 2"), "{invalid}");
    }

    #[test]
    fn reader_survives_any_truncation() {
        let scratch = tempfile::tempdir().unwrap();
        let program = std::fs::read(reference("provider.int4-symmetric").join("main.mlirb")).unwrap();
        for length in (0..program.len()).step_by(20_011) {
            std::fs::write(scratch.path().join("main.mlirb"), &program[..length]).unwrap();
            assert!(GraphFacts::read(scratch.path()).is_err(), "{length}");
        }
    }
}
