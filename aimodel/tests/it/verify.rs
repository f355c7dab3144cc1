//! Every rule of the verifier, broken once.

use aimodel::build::AssetBuilder;
use aimodel::verify::{VerifyError, verify, verify_decompositions};
use aimodel::{
    Attribute, AttributeId, Block, Dim, Element, Enumeration, Module, Op, OpId, Opcode, Resource, TensorType,
    Type, TypeId,
};

use Element::{Bool, F16, Si4, Si32, Ui32};

fn fixed(shape: &[u64], element: Element) -> TensorType {
    TensorType::fixed(shape, element)
}

/// A state, two inputs, a composite op, a reduction, a blob, literals, weights in blocks.
fn sound() -> Module {
    let mut graph = AssetBuilder::new().function("main");
    let x = graph.input("x", &fixed(&[1, 64], F16));
    let cache = graph.state("cache", &fixed(&[1, 64], F16));
    let other = graph.state("other", &fixed(&[1, 64], F16));
    let token = graph.create_token();
    let (old, read) = graph.read_handle(cache, token).unwrap();
    let sum = graph.add(x, old).unwrap();
    let written = graph.write_handle(cache, sum, read).unwrap();
    let (_, other_read) = graph.read_handle(other, token).unwrap();
    let codes = graph.blob("w/codes", &fixed(&[8, 64], Si4)).unwrap();
    let scales = graph.blob("w/scales", &fixed(&[8, 2], F16)).unwrap();
    let (no_code, no_value) = (graph.zeros(&fixed(&[8, 2], Si4)), graph.zeros(&fixed(&[8, 2], F16)));
    let weight = graph.blockwise_shift_scale(codes, scales, no_code, no_value).unwrap();
    let order = graph.ui32(&[1, 0]);
    let weight = graph.transpose(weight, order).unwrap();
    let product = graph.matmul(sum, weight).unwrap();
    let axes = graph.si32(&[1]);
    let mean = graph.reduce_mean(product, axes).unwrap();
    let gelu = graph.gelu_tanh(mean).unwrap();
    let mask = graph.elements(&fixed(&[1, 2], Bool), vec![0, 1]).unwrap();
    let chosen = graph.select(mask, gelu, mean).unwrap();
    graph.finish(&[written, other_read], &[("mean", mean), ("chosen", chosen)]).unwrap().finish()
}

#[test]
fn one_extent_of_a_reshape_may_follow_from_the_others() {
    let reshaped = |from: &[u64], to: &[i32]| {
        let mut graph = AssetBuilder::new().function("main");
        let x = graph.input("x", &fixed(from, F16));
        let shape = graph.si32(to);
        graph.reshape(x, shape).ok().and_then(|y| graph.tensor(y)).map(|ty| ty.to_string())
    };
    assert_eq!(reshaped(&[2, 6], &[-1]), Some(fixed(&[12], F16).to_string()));
    assert_eq!(reshaped(&[2, 6], &[3, -1]), Some(fixed(&[3, 4], F16).to_string()));
    assert_eq!(reshaped(&[0, 6], &[-1, 6]), Some(fixed(&[0, 6], F16).to_string()));
    for wrong in [&[5, -1][..], &[-1, -1], &[0, -1], &[-2, 6], &[13]] {
        assert_eq!(reshaped(&[2, 6], wrong), None, "{wrong:?}");
    }
}

fn graph_of(module: &Module) -> OpId {
    module.graphs()[0]
}

fn block(module: &Module) -> Block {
    module.block(module.body(graph_of(module)).unwrap()).clone()
}

/// First op of the graph with this opcode.
fn find(module: &Module, opcode: Opcode) -> OpId {
    *block(module).ops.iter().find(|op| module.op(**op).opcode == opcode).unwrap()
}

fn op(module: &mut Module, opcode: Opcode) -> &mut Op {
    let id = find(module, opcode);
    module.op_mut(id)
}

/// Constants in order: codes, scales, two zeros, the order of axes, axes, the mask.
fn constant(module: &Module, at: usize) -> OpId {
    block(module).ops[at]
}

fn set_property(module: &mut Module, op: OpId, at: usize, attribute: Attribute) {
    let attribute = module.intern(attribute);
    module.op_mut(op).properties[at] = Some(attribute);
}

fn set_ops(module: &mut Module, change: impl FnOnce(&mut Vec<OpId>)) {
    let body = module.body(graph_of(module)).unwrap();
    change(&mut module.block_mut(body).ops);
}

/// Types of the results and of the arguments, as the graph's function type has them.
fn function_type(module: &Module) -> (Vec<TypeId>, Vec<TypeId>) {
    let property = module.op(graph_of(module)).properties[FUNCTION_TYPE].unwrap();
    let Attribute::Type(ty) = *module.attribute(property) else { panic!("a type") };
    let Type::Function { results, operands } = module.ty(ty).clone() else { panic!("a function type") };
    (results, operands)
}

fn set_function_type(module: &mut Module, results: Vec<TypeId>, operands: Vec<TypeId>) {
    let ty = module.intern_type(Type::Function { results, operands });
    set_property(module, graph_of(module), FUNCTION_TYPE, Attribute::Type(ty));
}

/// A list of one named entry for each name; `None` leaves the name out.
fn entries(module: &mut Module, names: &[&[(&str, &str)]]) -> Attribute {
    let mut lists: Vec<AttributeId> = Vec::new();
    for entries in names {
        let mut list = Vec::new();
        for (key, name) in *entries {
            let name = module.string(name);
            list.push(module.intern(Attribute::Opaque { name: (*key).to_owned(), parameters: vec![name] }));
        }
        lists.push(module.intern(Attribute::Array(list)));
    }
    Attribute::Array(lists)
}

/// Breaks a sound module; returns what the verifier says.
fn broken(change: impl FnOnce(&mut Module)) -> VerifyError {
    let mut module = sound();
    assert_eq!(verify(&module), Ok(()));
    change(&mut module);
    verify(&module).expect_err("a broken module")
}

/// Breaks a sound module; the verifier must name the op and the reason.
fn check(place: &str, reason: &str, change: impl FnOnce(&mut Module)) {
    let error = broken(change);
    assert!(error.path.ends_with(place), "{error}: {place} expected");
    assert!(error.reason.contains(reason), "{error}: {reason} expected");
}

const NAME: &str = "aicode.name";
const MUTATION: &str = "MutableBuffers.buffer_mutation";
/// Positions of the graph's properties.
const ARGUMENTS: usize = 0;
const FUNCTION_TYPE: usize = 3;
const GRAPH_NAME: usize = 5;
const RESULTS: usize = 8;

#[test]
fn a_sound_module_passes() {
    assert_eq!(verify_decompositions(&sound()), Ok(4));
}

#[test]
fn the_root_is_an_asset_with_graphs() {
    assert_eq!(verify(&Module::new()).unwrap_err().reason, "the module has no root op");
    check("asset", "the root op is dataflow.graph_v1", |module| module.set_root(graph_of(module)));
    check("asset", "there is no graph", |module| {
        let outer = module.body(module.root().unwrap()).unwrap();
        module.block_mut(outer).ops.clear();
    });
    check("asset", "two graphs are called \"main\"", |module| {
        let outer = module.body(module.root().unwrap()).unwrap();
        let graph = graph_of(module);
        module.block_mut(outer).ops.push(graph);
    });
    check("asset", "a graph has no name", |module| {
        set_property(module, graph_of(module), GRAPH_NAME, Attribute::String(String::new()));
    });
    check("asset / op 0 add_v1", "does not belong here", |module| {
        let outer = module.body(module.root().unwrap()).unwrap();
        let location = module.op(graph_of(module)).location;
        let add = module.add_op(Opcode::Add, location);
        module.block_mut(outer).ops.insert(0, add);
    });
}

#[test]
fn a_graph_agrees_with_its_function_type() {
    let with = |reason: &str, change: fn(&mut Vec<TypeId>, &mut Vec<TypeId>, TypeId)| {
        check("main", reason, |module| {
            let (mut results, mut operands) = function_type(module);
            let other = module.tensor_type(&fixed(&[1, 2], F16));
            change(&mut results, &mut operands, other);
            set_function_type(module, results, operands);
        });
    };
    with("its function type has 0 arguments, but it has 3", |_, operands, _| operands.clear());
    with("its function type has 5 results, but it has 4", |results, _, other| results.push(other));
    with("result 2 is tensor<1x1xf16>, but its function type says tensor<1x2xf16>", |results, _, other| {
        results[2] = other;
    });
    with(
        "argument 1 is handle<tensor<1x64xf16>>, but its function type says tensor<1x2xf16>",
        |_, operands, other| {
            operands[1] = other;
        },
    );
    check("main", "property functionType is of another kind", |module| {
        set_property(module, graph_of(module), FUNCTION_TYPE, Attribute::Unit);
    });
    check("main", "its property argAttrs is missing", |module| {
        let graph = graph_of(module);
        module.op_mut(graph).properties[ARGUMENTS] = None;
    });
    check("main", "has 8 properties instead of 9", |module| {
        let graph = graph_of(module);
        module.op_mut(graph).properties.pop();
    });
}

#[test]
fn arguments_and_results_have_names() {
    let with = |at: usize, what: &str, reason: &str, names: &[&[(&str, &str)]]| {
        check("main", &format!("{what}{reason}"), |module| {
            let names = entries(module, names);
            set_property(module, graph_of(module), at, names);
        });
    };
    let x: &[(&str, &str)] = &[(NAME, "x")];
    let cache: &[(&str, &str)] = &[(MUTATION, "cache"), (NAME, "cache")];
    let other: &[(&str, &str)] = &[(MUTATION, "other"), (NAME, "other")];
    with(ARGUMENTS, "names 2 arguments, has 3", "", &[x, cache]);
    with(ARGUMENTS, "argument 0", " has no aicode.name", &[&[], cache, other]);
    with(ARGUMENTS, "argument 0", " has no aicode.name", &[&[(NAME, "")], cache, other]);
    with(ARGUMENTS, "two arguments are called \"x\"", "", &[x, cache, &[(MUTATION, "x"), (NAME, "x")]]);
    with(ARGUMENTS, "argument 1, a state,", " has no MutableBuffers", &[x, &[(NAME, "cache")], other]);
    with(
        ARGUMENTS,
        "argument 1",
        ": its entries are not sorted",
        &[x, &[(NAME, "c"), (MUTATION, "c")], other],
    );
    with(RESULTS, "names 1 results, has 4", "", &[x]);
    with(RESULTS, "two results are called \"x\"", "", &[x, x, cache, other]);
    with(RESULTS, "result 3", " has no aicode.name", &[x, cache, other, &[(MUTATION, "y")]]);
}

#[test]
fn states_and_tokens_belong_together() {
    check("main", "2 states come in, but 1 tokens leave", |module| {
        op(module, Opcode::Output).operands.remove(0);
        let (mut results, operands) = function_type(module);
        results.remove(0);
        set_function_type(module, results, operands);
        let names = entries(module, &[&[(NAME, "a")], &[(NAME, "b")], &[(NAME, "c")]]);
        set_property(module, graph_of(module), RESULTS, names);
    });
    check("output_v1", "the token for state 0 belongs to another one", |module| {
        op(module, Opcode::Output).operands.swap(0, 1);
    });
    check("write_handle_v1", "the token for state 1 belongs to another one", |module| {
        let other = block(module).arguments[2];
        op(module, Opcode::WriteHandle).operands[0] = other;
    });
    check("write_handle_v1", "operand 0 is tensor<1x64xf16>, a handle", |module| {
        let x = block(module).arguments[0];
        op(module, Opcode::WriteHandle).operands[0] = x;
    });
    check("write_handle_v1", "its state holds tensor<1x64xf16>, not tensor<1x2xbool>", |module| {
        let mask = module.op(constant(module, 6)).results[0];
        op(module, Opcode::WriteHandle).operands[1] = mask;
    });
}

#[test]
fn values_are_defined_before_they_are_used() {
    check("broadcasting_add_v1", "operand 1 is not defined before it", |module| {
        set_ops(module, |ops| ops.swap(8, 9));
        assert_eq!(module.op(block(module).ops[8]).opcode, Opcode::BroadcastingAdd);
    });
    check("add_v1", "operand 0 is not defined before it", |module| {
        // An op inside a region takes the value outside instead of the region's argument.
        let composite = find(module, Opcode::BroadcastingAdd);
        let outside = module.op(composite).operands[0];
        let inside = module.block(module.body(composite).unwrap()).ops[0];
        module.op_mut(inside).operands[0] = outside;
    });
    check("gelu_v1", "operand 0 is not defined before it", |module| {
        let inner = module.block(module.body(find(module, Opcode::ReduceMean)).unwrap()).ops[0];
        let hidden = module.op(inner).results[0];
        op(module, Opcode::Gelu).operands[0] = hidden;
    });
    check("gelu_v1", "occurs a second time", |module| {
        let gelu = find(module, Opcode::Gelu);
        set_ops(module, |ops| ops.insert(ops.len() - 1, gelu));
    });
    check("gelu_v1", "result 0 is a value that something else defines", |module| {
        let mean = module.op(find(module, Opcode::ReduceMean)).results[0];
        op(module, Opcode::Gelu).results[0] = mean;
    });
}

#[test]
fn blocks_end_in_their_terminator() {
    check("main", "does not end in an output", |module| {
        set_ops(module, |ops| ops.truncate(ops.len() - 1));
    });
    check("output_v1", "ops follow it in its block", |module| {
        let output = find(module, Opcode::Output);
        set_ops(module, |ops| ops.insert(0, output));
    });
    check("yield_v1", "dataflow.yield_v1 does not belong here", |module| {
        let location = module.op(graph_of(module)).location;
        let yields = module.add_op(Opcode::Yield, location);
        set_ops(module, |ops| ops.insert(0, yields));
    });
}

#[test]
fn composite_ops_carry_a_region_that_fits() {
    check("broadcasting_add_v1", "has 0 regions instead of 1", |module| {
        op(module, Opcode::BroadcastingAdd).regions.clear();
    });
    check("broadcasting_add_v1", "has 2 regions instead of 1", |module| {
        let composite = find(module, Opcode::BroadcastingAdd);
        module.add_region(composite);
    });
    check("broadcasting_add_v1", "its region is not one block", |module| {
        let composite = find(module, Opcode::BroadcastingAdd);
        let region = module.op(composite).regions[0];
        module.add_block(region);
    });
    check("broadcasting_add_v1", "does not end in a yield of one value", |module| {
        let body = module.body(find(module, Opcode::BroadcastingAdd)).unwrap();
        module.block_mut(body).ops.pop();
    });
    check(
        "broadcasting_add_v1",
        "argument 1 of its region is absent, operand 1 is tensor<1x64xf16>",
        |module| {
            let body = module.body(find(module, Opcode::BroadcastingAdd)).unwrap();
            module.block_mut(body).arguments.pop();
        },
    );
    check(
        "broadcasting_where_v1",
        "declared as tensor<1x2xf16>, but its region yields tensor<1x1xf16>",
        |module| {
            let body = module.body(find(module, Opcode::BroadcastingWhere)).unwrap();
            let narrow = module.block(body).arguments[1];
            let last = *module.block(body).ops.last().unwrap();
            module.op_mut(last).operands[0] = narrow;
        },
    );
    check("create_token_v1", "does not belong here", |module| {
        let body = module.body(find(module, Opcode::BroadcastingAdd)).unwrap();
        let create = find(module, Opcode::CreateToken);
        module.block_mut(body).ops.insert(0, create);
    });
    check("gelu_v1", "has 1 regions instead of 0", |module| {
        let gelu = find(module, Opcode::Gelu);
        module.add_region(gelu);
    });
    check("reduce_v1", "does not combine an accumulated scalar", |module| {
        let mean = module.body(find(module, Opcode::ReduceMean)).unwrap();
        let sum =
            module.block(mean).ops.iter().find(|op| module.op(**op).opcode == Opcode::ReduceSum).unwrap();
        let inside = module.body(*sum).unwrap();
        let reduce =
            module.block(inside).ops.iter().find(|op| module.op(**op).opcode == Opcode::Reduce).unwrap();
        let combine = module.body(*reduce).unwrap();
        module.block_mut(combine).arguments.swap(0, 1);
        module.block_mut(combine).arguments.pop();
    });
}

#[test]
fn operands_and_results_have_the_number_and_the_kind_that_the_op_takes() {
    check("gelu_v1", "has 2 operands instead of 1", |module| {
        let x = block(module).arguments[0];
        op(module, Opcode::Gelu).operands.push(x);
    });
    check(
        "gelu_v1",
        "operand 0 is tensor<1x2xbool>, a tensor of f64, f32, f16 or bf16 is needed",
        |module| {
            let mask = module.op(constant(module, 6)).results[0];
            op(module, Opcode::Gelu).operands[0] = mask;
        },
    );
    check("transpose_v1", "operand 1 is tensor<1xsi32>, a ui32 vector is needed", |module| {
        let axes = module.op(constant(module, 5)).results[0];
        op(module, Opcode::Transpose).operands[1] = axes;
    });
    check("gelu_v1", "has 0 results instead of 1", |module| op(module, Opcode::Gelu).results.clear());
    check("gelu_v1", "result 0 is token, a tensor is needed", |module| {
        let gelu = find(module, Opcode::Gelu);
        module.op_mut(gelu).results.clear();
        let token = module.intern_type(Type::Token);
        module.add_result(gelu, token);
    });
    check("gelu_v1", "property approximate is of another kind", |module| {
        let other = Attribute::Enumeration { of: Enumeration::PaddingMode, value: 1 };
        set_property(module, find(module, Opcode::Gelu), 0, other);
    });
    check("gelu_v1", "property approximate is of another kind", |module| {
        let unknown = Attribute::Enumeration { of: Enumeration::Approximate, value: 9 };
        set_property(module, find(module, Opcode::Gelu), 0, unknown);
    });
    check("asset", "property version is of another kind", |module| {
        let root = module.root().unwrap();
        set_property(module, root, 1, Attribute::Integer { width: 64, unsigned: true, value: 1 });
    });
}

#[test]
fn result_types_follow_from_operands() {
    // The product has a different type than the sum that was transposed instead.
    check(
        "transpose_v1",
        "declared as tensor<64x8xf16>, but its operands imply tensor<64x1xf16>",
        |module| {
            let sum = module.op(find(module, Opcode::BroadcastingAdd)).results[0];
            op(module, Opcode::Transpose).operands[0] = sum;
        },
    );
    check("blockwise_shift_scale_v2", "do not divide", |module| {
        let scale_type = module.tensor_type(&fixed(&[8, 3], F16));
        let location = module.op(graph_of(module)).location;
        let scales = module.add_op(Opcode::Constant, location);
        let zero = module.intern(Attribute::DenseElements { splat: true, bytes: vec![0, 0] });
        module.op_mut(scales).properties[0] = Some(zero);
        let scales_value = module.add_result(scales, scale_type);
        set_ops(module, |ops| ops.insert(0, scales));
        let operands = &mut op(module, Opcode::BlockwiseShiftScale).operands;
        (operands[1], operands[3]) = (scales_value, scales_value);
    });
}

/// A module whose only constant has this type and value.
fn constant_of(ty: &TensorType, value: impl FnOnce(&mut Module) -> Attribute) -> Result<(), String> {
    let mut graph = AssetBuilder::new().function("main");
    let constant = graph.zeros(ty);
    let mut module = graph.finish(&[], &[("y", constant)]).unwrap().finish();
    let value = value(&mut module);
    let op = find(&module, Opcode::Constant);
    set_property(&mut module, op, 0, value);
    verify(&module).map_err(|error| error.reason)
}

#[test]
fn literals_fill_their_types() {
    let literal = |ty: &TensorType, splat: bool, bytes: &[u8]| {
        constant_of(ty, |_| Attribute::DenseElements { splat, bytes: bytes.to_vec() })
    };
    assert_eq!(literal(&fixed(&[3], F16), false, &[0; 6]), Ok(()));
    assert_eq!(literal(&fixed(&[3], F16), true, &[0; 2]), Ok(()));
    assert!(
        literal(&fixed(&[3], F16), false, &[0; 5])
            .unwrap_err()
            .contains("5 bytes do not fill tensor<3xf16> inline")
    );
    assert!(literal(&fixed(&[3], F16), true, &[0; 6]).unwrap_err().contains("all equal"));
    // Four bits take a byte inline.
    assert_eq!(literal(&fixed(&[3], Si4), false, &[0; 3]), Ok(()));
    assert!(literal(&fixed(&[4], Si4), false, &[0; 2]).is_err());
    // A splat of bools repeats them.
    assert_eq!(literal(&fixed(&[3], Bool), true, &[1; 3]), Ok(()));
    assert!(literal(&fixed(&[3], Bool), true, &[1]).is_err());
    assert!(literal(&fixed(&[3], Bool), true, &[1, 1, 0]).unwrap_err().contains("are not"));
    assert!(literal(&fixed(&[3], Bool), false, &[0, 1, 2]).unwrap_err().contains("a bool is 2"));
    assert_eq!(literal(&fixed(&[0], Ui32), false, &[]), Ok(()));
    assert!(literal(&fixed(&[0], Ui32), true, &[]).is_err());
    assert!(literal(&fixed(&[8], Element::Ui1), false, &[0]).unwrap_err().contains("ui1"));
    let unknown = TensorType::new(vec![Dim::Dynamic], Si32);
    assert!(literal(&unknown, true, &[0; 4]).unwrap_err().contains("no fixed size"));
}

#[test]
fn blobs_have_the_length_of_their_types() {
    let blob = |ty: &TensorType, length: u64, alignment: u64| {
        constant_of(ty, |module| {
            let resource = Resource { key: "w".to_owned(), length, alignment };
            Attribute::DenseResource(module.add_resource(resource))
        })
    };
    // Four bits are packed in a blob, over the whole tensor.
    assert_eq!(blob(&fixed(&[3, 101], Si4), 152, 16), Ok(()));
    assert!(blob(&fixed(&[3, 101], Si4), 303, 16).unwrap_err().contains("has 303 bytes"));
    assert!(blob(&fixed(&[3, 101], Si4), 151, 16).unwrap_err().contains("takes 152"));
    assert!(blob(&fixed(&[0], F16), 0, 16).unwrap_err().contains("it is empty"));
    for wrong in [0, 3, 12, 32, 4096] {
        assert!(blob(&fixed(&[4], F16), 8, wrong).unwrap_err().contains("is aligned to"));
    }
    let huge = fixed(&[u64::MAX, 2], F16);
    assert!(blob(&huge, 8, 16).unwrap_err().contains("no fixed size"));
}

#[test]
fn locations_lead_to_a_file() {
    check("gelu_v1", "its location is of a kind", |module| {
        let unit = module.intern(Attribute::Unit);
        op(module, Opcode::Gelu).location = unit;
    });
    check("gelu_v1", "its location does not lead to a file", |module| {
        let unit = module.intern(Attribute::Unit);
        let wrong =
            Attribute::Location { source: unit, scope: unit, fused: Vec::new(), metadata: Vec::new() };
        let wrong = module.intern(wrong);
        op(module, Opcode::Gelu).location = wrong;
    });
}

#[test]
fn a_changed_decomposition_is_found() {
    let find_inside = |module: &Module, composite: Opcode, inside: Opcode| {
        let body = module.body(find(module, composite)).unwrap();
        *module.block(body).ops.iter().find(|op| module.op(**op).opcode == inside).unwrap()
    };
    let changed = |change: &dyn Fn(&mut Module)| {
        let mut module = sound();
        change(&mut module);
        assert_eq!(verify(&module), Ok(()), "sound in itself");
        verify_decompositions(&module).unwrap_err().to_string()
    };
    let opcode = changed(&|module| {
        let add = find_inside(module, Opcode::BroadcastingAdd, Opcode::Add);
        module.op_mut(add).opcode = Opcode::Mul;
    });
    assert!(
        opcode.contains("op 0 primitive.add_v1 of its region: primitive.mul_v1 is there instead"),
        "{opcode}"
    );
    let operands = changed(&|module| {
        let add = find_inside(module, Opcode::BroadcastingAdd, Opcode::Add);
        module.op_mut(add).operands.swap(0, 1);
    });
    assert!(operands.ends_with("its operands differ"), "{operands}");
    let literal = changed(&|module| {
        let extents = find_inside(module, Opcode::ReduceMean, Opcode::Constant);
        let other = module.op(find_inside(module, Opcode::ReduceMean, Opcode::Reshape)).operands[1];
        assert_ne!(module.op(extents).results[0], other);
        let value = module.intern(Attribute::DenseElements { splat: true, bytes: vec![7, 0, 0, 0] });
        module.op_mut(extents).properties[0] = Some(value);
    });
    assert!(literal.contains("its properties differ"), "{literal}");
    let nested = changed(&|module| {
        let sum = find_inside(module, Opcode::ReduceMean, Opcode::ReduceSum);
        let body = module.body(sum).unwrap();
        let location = module.op(sum).location;
        let extra = module.add_op(Opcode::Constant, location);
        let value = module.intern(Attribute::DenseElements { splat: true, bytes: vec![0; 4] });
        module.op_mut(extra).properties[0] = Some(value);
        let ty = module.tensor_type(&fixed(&[], Element::F32));
        module.add_result(extra, ty);
        module.block_mut(body).ops.insert(0, extra);
    });
    assert!(
        nested.contains("op 1 reduce_sum_v1 of its region: op 1 primitive.reduce_v1 of its region"),
        "{nested}"
    );
}

/// Rules that damaged programs showed: Apple's loader aborts where they are broken.
#[test]
fn what_loaders_convert_must_have_a_counterpart() {
    let flag = |at: usize, value: i64| {
        move |module: &mut Module| {
            let flag = Attribute::Integer { width: 1, unsigned: true, value };
            set_property(module, graph_of(module), at, flag);
        }
    };
    check("main", "property noInline is of another kind", flag(6, 2));
    check("main", "externalize and private", |module| {
        flag(2, 1)(module);
        flag(4, 1)(module);
    });
    check("main", "property paramDecls is of another kind", |module| {
        let text = module.string("T");
        set_property(module, graph_of(module), 7, Attribute::Array(vec![text]));
    });
    check("main", "property compositeDecl is of another kind", |module| {
        let text = module.string("T");
        let declaration = Attribute::Opaque { name: "a".to_owned(), parameters: vec![text] };
        set_property(module, graph_of(module), 1, declaration);
    });
    check("main", "result 0: the key \"a\" has no prefix", |module| {
        let list: &[(&str, &str)] = &[("a", "b"), (NAME, "x")];
        let [a, b, c, d] = ["p", "q", "r", "s"].map(|name| [(NAME, name)]);
        let names = entries(module, &[&[list[0], a[0]], &b, &c, &d]);
        set_property(module, graph_of(module), RESULTS, names);
    });
    check("add_v1", "scope of a kind", |module| {
        let add = find(module, Opcode::BroadcastingAdd);
        let Attribute::Location { source, .. } = *module.attribute(module.op(add).location) else {
            panic!("a location")
        };
        let scope = module.string("somewhere");
        let location = Attribute::Location { source, scope, fused: Vec::new(), metadata: Vec::new() };
        module.op_mut(add).location = module.intern(location);
    });
}

#[test]
fn ops_inside_a_decomposition_follow_their_rules_too() {
    check("op 0 add_v1", "has 3 operands instead of 2", |module| {
        let body = module.body(find(module, Opcode::BroadcastingAdd)).unwrap();
        let add = module.block(body).ops[0];
        let extra = module.block(body).arguments[0];
        module.op_mut(add).operands.push(extra);
    });
    check("op 0 mul_v1", "result 0 is token, a tensor is needed", |module| {
        let body = module.body(find(module, Opcode::BroadcastingAdd)).unwrap();
        let add = module.block(body).ops[0];
        let token = module.intern_type(Type::Token);
        module.op_mut(add).opcode = Opcode::Mul;
        module.op_mut(add).results.clear();
        module.add_result(add, token);
    });
}
