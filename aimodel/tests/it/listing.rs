//! Listings of one layer, of weights, of damaged modules.

use aimodel::build::{AssetBuilder, FunctionBuilder};
use aimodel::print::{Listing, Part};
use aimodel::{Attribute, Element, Module, Opcode, TensorType};

/// Three layers of one matrix, with a table before them, one beside them and a head after them.
fn layers() -> Module {
    let ty = TensorType::fixed(&[8, 8], Element::F16);
    let mut graph = AssetBuilder::new().function("main");
    let mut x = graph.input("x", &ty);
    let times = |graph: &mut FunctionBuilder, x, key: &str| {
        let weight = graph.blob(key, &ty).unwrap();
        graph.matmul(x, weight).unwrap()
    };
    x = times(&mut graph, x, "embed.weight");
    for layer in [0, 1, 11] {
        x = times(&mut graph, x, &format!("layers.{layer}.up.weight"));
        x = times(&mut graph, x, &format!("table/layers.{layer}/codes"));
        x = times(&mut graph, x, "embed.weight");
        x = graph.tanh(x).unwrap();
    }
    x = times(&mut graph, x, "head.weight");
    graph.finish(&[], &[("y", x)]).unwrap().finish()
}

/// The ops of a listing, one a line.
fn ops(module: &Module, part: Part) -> Vec<String> {
    let text = Listing::new(module).part(&part).to_string();
    let lines = text.lines().skip_while(|line| line.starts_with("  output") || !line.contains(['=', '.']));
    let lines =
        lines.filter(|line| !line.contains("put") && !line.contains("graph") && !line.contains("asset"));
    lines.map(|line| line.trim().split(" : ").next().unwrap().to_owned()).collect()
}

#[test]
fn a_layer_goes_to_the_next_one() {
    let module = layers();
    let expected = [
        "%c0 = constant @embed.weight",
        "%c3 = constant @layers.1.up.weight",
        "%c4 = constant @table/layers.1/codes",
        "... 5 ops",
        "%6 = broadcasting_batch_matmul(%5, %c3)",
        "%7 = broadcasting_batch_matmul(%6, %c4)",
        "%8 = broadcasting_batch_matmul(%7, %c0)",
        "%9 = tanh(%8)",
        "... 6 ops",
        "}",
    ];
    assert_eq!(ops(&module, Part::Layer(1)), expected);
}

#[test]
fn the_last_layer_goes_to_the_head() {
    let module = layers();
    let listed = ops(&module, Part::Layer(11));
    assert_eq!(listed.len(), 3 + 1 + 4 + 2);
    assert!(listed.iter().any(|line| line.contains("tanh")));
    assert!(!listed.iter().any(|line| line.contains("head") || line.contains("layers.1.")));
}

#[test]
fn a_layer_that_does_not_exist_has_no_ops() {
    let module = layers();
    assert!(Listing::new(&module).part(&Part::Layer(2)).is_empty());
    assert!(!Listing::new(&module).part(&Part::Layer(0)).is_empty());
    assert!(!Listing::new(&module).is_empty());
}

#[test]
fn regions_follow_their_op() {
    let mut graph = AssetBuilder::new().function("main");
    let x = graph.input("x", &TensorType::fixed(&[2], Element::F32));
    let y = graph.relu(x).unwrap();
    let module = graph.finish(&[], &[("y", y)]).unwrap().finish();
    let expected = "\
asset {version = 20260204 : ui32}
graph \"main\" {
  input %0 \"x\" : tensor<2xf32>
  output %1 \"y\" : tensor<2xf32>
  %1 = relu(%0) : tensor<2xf32> {
    (%.0 : tensor<2xf32>)
    %.c0 = constant 0.0 : tensor<f32>
    %.1 = broadcasting_maximum(%.0, %.c0) : tensor<2xf32> {
      (%..0 : tensor<2xf32>, %..1 : tensor<f32>)
      %..c0 = constant splat(1) : tensor<1xsi32>
      %..2 = reshape(%..1, %..c0) : tensor<1xf32>
      %..c1 = constant splat(2) : tensor<1xui32>
      %..c2 = constant splat(0) : tensor<1xsi32>
      %..3 = broadcast_in_dims(%..2, %..c1, %..c2) : tensor<2xf32>
      %..4 = maximum(%..0, %..3) : tensor<2xf32>
      yield(%..4)
    }
    yield(%.1)
  }
  output(%1)
}
";
    assert_eq!(Listing::new(&module).regions(true).to_string(), expected);
}

#[test]
fn damaged_modules_are_listed_as_they_are() {
    assert_eq!(Listing::new(&Module::new()).to_string(), "an empty module\n");
    let mut module = layers();
    let graph = module.graphs()[0];
    let body = module.body(graph).unwrap();
    let ops = module.block(body).ops.clone();
    let tanh = *ops.iter().find(|op| module.op(**op).opcode == Opcode::Tanh).unwrap();
    let unit = module.intern(Attribute::Unit);
    module.op_mut(graph).properties.fill(Some(unit));
    module.op_mut(ops[0]).properties[0] = None;
    module.op_mut(ops[1]).properties[0] = Some(unit);
    module.block_mut(body).ops.retain(|op| *op != tanh);
    let text = Listing::new(&module).regions(true).to_string();
    for expected in
        ["graph without a name", "%c0 = constant without a value", "%c1 = constant unit", "(%?, %c3)"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}
