//! One small graph for every constructor of the builder, with static and with dynamic shapes.

use aimodel::build::{AssetBuilder, BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, Module, TensorType, ValueId};

use Element::{Bf16, Bool, F16, F32, F64, Si4, Si8, Si16, Si32, Si64, Ui8, Ui16, Ui32, Ui64};

/// A graph, and what it is a case of.
pub struct Case {
    /// Constructor, then shapes and element types.
    pub name: String,
    /// The graph.
    pub module: Module,
}

/// A dynamic extent in the shapes below.
const D: u64 = u64::MAX;

type Shape = &'static [u64];
type Built = Result<ValueId, BuildError>;

fn tensor(shape: &[u64], element: Element) -> TensorType {
    let dim = |extent: &u64| if *extent == D { Dim::Dynamic } else { Dim::Fixed(*extent) };
    TensorType::new(shape.iter().map(dim).collect(), element)
}

#[derive(Default)]
struct Cases {
    cases: Vec<Case>,
}

impl Cases {
    /// A graph with the given inputs and one output.
    fn add(
        &mut self,
        name: &str,
        inputs: &[TensorType],
        build: impl FnOnce(&mut FunctionBuilder, &[ValueId]) -> Built,
    ) {
        let types: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        let name = format!("{name} {}", types.join(" ")).trim().to_owned();
        let mut graph = AssetBuilder::new().function("main");
        let values: Vec<ValueId> =
            inputs.iter().enumerate().map(|(at, ty)| graph.input(&format!("x{at}"), ty)).collect();
        let result = build(&mut graph, &values).unwrap_or_else(|error| panic!("{name}: {error}"));
        let module = graph.finish(&[], &[("y", result)]).unwrap().finish();
        self.cases.push(Case { name, module });
    }

    fn elementwise(&mut self) {
        type Unary = fn(&mut FunctionBuilder, ValueId) -> Built;
        let operators: [(&str, Unary); 9] = [
            ("rsqrt", FunctionBuilder::rsqrt),
            ("exp", FunctionBuilder::exp),
            ("tanh", FunctionBuilder::tanh),
            ("sin", FunctionBuilder::sin),
            ("cos", FunctionBuilder::cos),
            ("gelu_tanh", FunctionBuilder::gelu_tanh),
            ("relu", FunctionBuilder::relu),
            ("sigmoid", FunctionBuilder::sigmoid),
            ("silu", FunctionBuilder::silu),
        ];
        for (name, operator) in operators {
            for element in [F16, F32, Bf16] {
                for shape in [&[2, 3][..], &[2, D, 3]] {
                    self.add(name, &[tensor(shape, element)], |graph, x| operator(graph, x[0]));
                }
            }
        }
        for (name, operator) in operators {
            for shape in [&[][..], &[1]] {
                self.add(name, &[tensor(shape, F32)], |graph, x| operator(graph, x[0]));
            }
        }
        // Apple's tools make a constant of the shape of a static tensor.
        self.add("get_shape", &[tensor(&[2, D], F16)], |graph, x| graph.get_shape(x[0]));
        for shape in [&[2, 3][..], &[D]] {
            self.add("not", &[tensor(shape, Bool)], |graph, x| graph.not(x[0]));
        }
        for element in [F32, Bf16, Si32, Ui8, Si64, Bool] {
            self.add("cast to", &[tensor(&[2, D], F16)], |graph, x| graph.cast(x[0], element));
            self.cases.last_mut().unwrap().name += &format!(" {element}");
        }
    }

    fn binary(&mut self) {
        type Binary = fn(&mut FunctionBuilder, ValueId, ValueId) -> Built;
        let operators: [(&str, Binary, Element); 9] = [
            ("add", FunctionBuilder::add, F16),
            ("sub", FunctionBuilder::sub, F32),
            ("mul", FunctionBuilder::mul, F16),
            ("divide", FunctionBuilder::divide, F32),
            ("pow", FunctionBuilder::pow, F32),
            ("maximum", FunctionBuilder::maximum, Si32),
            ("minimum", FunctionBuilder::minimum, F16),
            ("greater", FunctionBuilder::greater, Si32),
            ("logical_xor", FunctionBuilder::logical_xor, Bool),
        ];
        let pairs: [(Shape, Shape); 15] = [
            (&[2, 3], &[2, 3]),
            (&[2, 3], &[3]),
            (&[], &[2, 3]),
            (&[1, 3], &[2, 1]),
            (&[4, 1, 3], &[2, 1]),
            (&[1], &[1, 1]),
            (&[D, 3], &[3]),
            (&[D, 3], &[D, 3]),
            (&[2, D], &[2, 1]),
            (&[], &[D]),
            (&[D, 1], &[1, 3]),
            (&[D, 3], &[5, 3]),
            (&[5, 3], &[D, 3]),
            (&[2, 1], &[1, 1, D]),
            (&[D, 4, 1], &[D]),
        ];
        for (name, operator, element) in operators {
            for (a, b) in pairs {
                let types = [tensor(a, element), tensor(b, element)];
                self.add(name, &types, |graph, x| operator(graph, x[0], x[1]));
            }
        }
    }

    fn matrix_products(&mut self) {
        let pairs: [(Shape, Shape); 16] = [
            (&[2, 3], &[3, 4]),
            (&[1, 1, 3], &[3, 4]),
            (&[5, 2, 3], &[3, 4]),
            (&[2, 3], &[5, 3, 4]),
            (&[5, 2, 3], &[5, 3, 4]),
            (&[1, 5, 2, 3], &[2, 1, 3, 4]),
            (&[1, 2, 3], &[6, 5, 3, 4]),
            (&[D, 3], &[3, 4]),
            (&[1, D, 3], &[3, 4]),
            (&[D, 2, 3], &[3, 4]),
            (&[2, D], &[5, D, 4]),
            (&[D, 2, 3], &[5, 3, 4]),
            (&[5, 2, 3], &[D, 3, 4]),
            (&[D, 2, 3], &[D, 3, 4]),
            (&[1, 4, 1, D], &[1, 4, D, 8]),
            (&[1, 4, 1, 8], &[1, 1, 8, D]),
        ];
        for (a, b) in pairs {
            for element in [F16, F32] {
                let types = [tensor(a, element), tensor(b, element)];
                self.add("matmul", &types, |graph, x| graph.matmul(x[0], x[1]));
            }
        }
    }

    fn reductions(&mut self) {
        type Reduction = fn(&mut FunctionBuilder, ValueId, ValueId) -> Built;
        let operators: [(&str, Reduction); 5] = [
            ("reduce_sum", FunctionBuilder::reduce_sum),
            ("reduce_product", FunctionBuilder::reduce_product),
            ("reduce_max", FunctionBuilder::reduce_max),
            ("reduce_min", FunctionBuilder::reduce_min),
            ("reduce_mean", FunctionBuilder::reduce_mean),
        ];
        for (name, operator) in operators {
            let integers: &[Element] = if name == "reduce_mean" { &[] } else { &INTEGERS };
            for element in [F16, F32, Bf16].iter().chain(integers) {
                for (shape, axes) in [(&[4, 5, 6][..], &[-1][..]), (&[4, D, 6], &[0, 2])] {
                    let name = format!("{name} {axes:?} of");
                    self.add(&name, &[tensor(shape, *element)], |graph, x| {
                        let axes = graph.si32(axes);
                        operator(graph, x[0], axes)
                    });
                }
            }
        }
        self.add("reduce_mean of a scalar", &[tensor(&[], F16)], |graph, x| {
            let none = graph.si32(&[]);
            graph.reduce_mean(x[0], none)
        });
        for element in [F16, F32, Bf16] {
            for (shape, axis) in [(&[4, 5, 6][..], -1), (&[1, 4, 1, D], 3), (&[D, 7], 0)] {
                self.add(&format!("softmax {axis} of"), &[tensor(shape, element)], |graph, x| {
                    let axis = graph.scalar(Scalar::Si32(axis));
                    graph.softmax(x[0], axis)
                });
            }
        }
    }

    fn selections(&mut self) {
        let shapes: [[Shape; 3]; 29] = [
            [&[], &[2, 3], &[D, 3]],
            [&[2, 3], &[], &[D, 3]],
            [&[2, 3], &[D, 3], &[]],
            [&[], &[], &[D, 3]],
            [&[D, 3], &[], &[2, 3]],
            [&[D, 3], &[2, 3], &[]],
            [&[D, 3], &[], &[3]],
            [&[2, 3], &[D, 3], &[3]],
            [&[2, 3], &[D, 3], &[1, 3]],
            [&[2, 3], &[D, 3], &[1]],
            [&[2, 3], &[2, 3], &[D, 3]],
            [&[D, 3], &[2, 3], &[2, 3]],
            [&[2, 3], &[3], &[D, 3]],
            [&[D, 3], &[D, 3], &[2, 3]],
            [&[3], &[D, 3], &[3]],
            [&[1, 3], &[D, 3], &[1, 3]],
            [&[D, 3], &[1, 3], &[1, 3]],
            [&[1, 3], &[1, 3], &[D, 3]],
            [&[4, 1, 3], &[D, 1], &[4, 1, 3]],
            [&[D, 3], &[D, 3], &[D, 3]],
            [&[D, 3], &[1, 3], &[3]],
            [&[2, 3], &[2, 3], &[2, 3]],
            [&[2, 3], &[3], &[]],
            [&[1, 3], &[2, 1], &[]],
            [&[D, 3], &[3], &[]],
            [&[2, 3], &[D, 3], &[2, 3]],
            [&[1, 1, 1, D], &[1, 4, 1, D], &[]],
            [&[D], &[D], &[D]],
            [&[], &[D], &[4, 1]],
        ];
        for [condition, a, b] in shapes {
            for element in [F16, Si32] {
                let types = [tensor(condition, Bool), tensor(a, element), tensor(b, element)];
                self.add("select", &types, |graph, x| graph.select(x[0], x[1], x[2]));
            }
        }
    }

    fn shapes(&mut self) {
        self.add("reshape", &[tensor(&[2, 6], F16)], |graph, x| {
            let shape = graph.ui32(&[3, 4]);
            graph.reshape(x[0], shape)
        });
        self.add("reshape to a computed shape", &[tensor(&[1, D, 8], F16)], |graph, x| {
            let shape = graph.get_shape(x[0])?;
            let (start, end, one) = (graph.si32(&[1]), graph.si32(&[2]), graph.si32(&[1]));
            let length = graph.slice(shape, start, end, one)?;
            let (axis, heads) = (graph.scalar(Scalar::Si32(0)), graph.ui32(&[4, 2]));
            let target = graph.concat(axis, &[length, heads])?;
            graph.reshape(x[0], target)
        });
        self.add("reshape to what follows", &[tensor(&[1, D, 8], F16)], |graph, x| {
            let shape = graph.si32(&[-1, 4]);
            graph.reshape(x[0], shape)
        });
        self.add("reshape with a declared type", &[tensor(&[D, 8], F16), tensor(&[2], Ui32)], |graph, x| {
            graph.reshape_as(x[0], x[1], &tensor(&[D, 4], F16))
        });
        for shape in [&[2, 3, 4][..], &[1, D, 4]] {
            self.add("transpose", &[tensor(shape, F16)], |graph, x| {
                let order = graph.ui32(&[0, 2, 1]);
                graph.transpose(x[0], order)
            });
            self.add("expand_dims", &[tensor(shape, F16)], |graph, x| {
                let axes = graph.si32(&[0, -1]);
                graph.expand_dims(x[0], axes)
            });
        }
        self.add("shrink_dims", &[tensor(&[1, D, 1], F16)], |graph, x| {
            let axes = graph.si32(&[0, -1]);
            graph.shrink_dims(x[0], axes)
        });
        self.add("broadcast_in_dims", &[tensor(&[1, 3, 1], F16)], |graph, x| {
            let (sizes, axes) = (graph.ui32(&[2, 4]), graph.si32(&[0, 2]));
            graph.broadcast_in_dims(x[0], sizes, axes)
        });
        self.add("broadcast_to", &[tensor(&[3, 1], F16)], |graph, x| {
            let shape = graph.ui32(&[2, 3, 4]);
            graph.broadcast_to(x[0], shape)
        });
        self.add(
            "broadcast_to a computed shape",
            &[tensor(&[3, 1], F16), tensor(&[D, 3, D], F16)],
            |graph, x| {
                let shape = graph.get_shape(x[1])?;
                graph.broadcast_to(x[0], shape)
            },
        );
        self.add("broadcast_shapes", &[tensor(&[2], Ui32), tensor(&[3], Ui32)], |graph, x| {
            graph.broadcast_shapes(x[0], x[1])
        });
    }

    fn pieces(&mut self) {
        for shape in [&[4, 6][..], &[D, 6]] {
            self.add("slice", &[tensor(shape, F16)], |graph, x| {
                let (start, end, stride) =
                    (graph.si32(&[1, -4]), graph.si32(&[i32::MAX, i32::MAX]), graph.si32(&[1, 2]));
                graph.slice(x[0], start, end, stride)
            });
        }
        self.add("slice with a declared type", &[tensor(&[1, D], Si32), tensor(&[1], Si32)], |graph, x| {
            let zero = graph.si32(&[0]);
            let (axis, ones) = (graph.scalar(Scalar::Si32(0)), graph.si32(&[1, 1]));
            let start = graph.concat(axis, &[zero, x[1]])?;
            let end = graph.si32(&[i32::MAX, i32::MAX]);
            graph.slice_as(x[0], [start, end, ones], &tensor(&[1, 1], Si32))
        });
        for (shape, update) in [(&[4, 6][..], &[2, 6][..]), (&[D, 6], &[D, 6])] {
            self.add("slice_update", &[tensor(shape, F16), tensor(update, F16)], |graph, x| {
                let (start, end, stride) =
                    (graph.si32(&[1, 0]), graph.si32(&[3, i32::MAX]), graph.si32(&[1, 1]));
                graph.slice_update(x[0], [start, end, stride], x[1])
            });
        }
        for shape in [&[2, 3][..], &[2, D]] {
            self.add("concat", &[tensor(shape, F16), tensor(shape, F16)], |graph, x| {
                let axis = graph.scalar(Scalar::Si32(-1));
                graph.concat(axis, &[x[0], x[1], x[0]])
            });
        }
        self.add("gather_nd", &[tensor(&[512, 8], F16), tensor(&[1, D, 1], Si32)], |graph, x| {
            graph.gather_nd(x[0], x[1])
        });
        self.add("gather_along_axis", &[tensor(&[512, 8], Si8), tensor(&[1, 8], Si32)], |graph, x| {
            let axis = graph.scalar(Scalar::Si32(0));
            graph.gather_along_axis(x[0], x[1], axis)
        });
        for shape in [&[2, 3][..], &[D, 3]] {
            self.add("pad", &[tensor(shape, F16)], |graph, x| {
                let (amounts, fill) = (graph.ui32(&[0, 0, 1, 2]), graph.scalar(Scalar::F16(-1.5)));
                graph.pad(x[0], amounts, fill)
            });
        }
        self.add("range to an input", &[tensor(&[], Ui32)], |graph, x| {
            let (zero, one) = (graph.scalar(Scalar::Ui32(0)), graph.scalar(Scalar::Ui32(1)));
            graph.range(zero, x[0], one)
        });
    }

    fn constants(&mut self) {
        for scalar in [Scalar::F16(0.1), Scalar::F32(0.1), Scalar::Si32(-7), Scalar::Ui32(7)] {
            self.add(&format!("{scalar:?}"), &[], |graph, _| Ok(graph.scalar(scalar)));
        }
        self.add("f32", &[], |graph, _| Ok(graph.f32(&[1.0, -0.0, f32::INFINITY])));
        for element in LITERALS {
            let ty = tensor(&[3], element);
            let width = element.inline_bytes() as usize;
            let bytes: Vec<u8> =
                (0..3 * width).map(|at| u8::from(at % width == 0 && at / width < 2)).collect();
            self.add(&format!("elements {element}"), &[], |graph, _| graph.elements(&ty, bytes.clone()));
            self.add(&format!("equal elements {element}"), &[], |graph, _| {
                graph.elements(&ty, vec![1; 3 * width])
            });
            self.add(&format!("zeros {element}"), &[], |graph, _| Ok(graph.zeros(&ty)));
        }
        for element in [F16, F32, Si4, Si8, Bool] {
            let ty = tensor(&[3, 101], element);
            self.add(&format!("blob {element}"), &[], |graph, _| graph.blob("weight/codes", &ty));
        }
        for (element, columns) in [(Si4, 64), (Si8, 64), (Si4, 32)] {
            self.add(&format!("blockwise_shift_scale {element} 8x{columns}"), &[], |graph, _| {
                let codes = graph.blob("weight/codes", &tensor(&[8, columns], element))?;
                let scale_type = tensor(&[8, columns / 32], F16);
                let scales = graph.blob("weight/scales", &scale_type)?;
                let code_offset = graph.zeros(&scale_type.with_element(element));
                let value_offset = graph.zeros(&scale_type);
                graph.blockwise_shift_scale(codes, scales, code_offset, value_offset)
            });
        }
    }

    fn states(&mut self) {
        let mut graph = AssetBuilder::new().function("main");
        let ty = tensor(&[2, D, 4], F16);
        let x = graph.input("x", &tensor(&[2, 1, 4], F16));
        let (keys, values) = (graph.state("keyCache", &ty), graph.state("valueCache", &ty));
        let token = graph.create_token();
        let (cache, read) = graph.read_handle(keys, token).unwrap();
        let starts = graph.si32(&[0, 0, 0]);
        let ends = graph.si32(&[i32::MAX, 1, i32::MAX]);
        let ones = graph.si32(&[1, 1, 1]);
        let changed = graph.slice_update(cache, [starts, ends, ones], x).unwrap();
        let written = graph.write_handle(keys, changed, read).unwrap();
        let (other, unchanged) = graph.read_handle(values, token).unwrap();
        let sum = graph.add(other, changed).unwrap();
        let module = graph.finish(&[written, unchanged], &[("sum", sum)]).unwrap().finish();
        self.cases.push(Case { name: "states".to_owned(), module });
    }

    /// The second function promises a blob of the first one, and a new one.
    fn functions(&mut self) {
        let mut asset = AssetBuilder::new();
        for (name, own) in [("main", "head"), ("prefill", "tail")] {
            let mut function = asset.function(name);
            let x = function.input("x", &tensor(&[D, 64], F16));
            let shared = function.blob("shared", &tensor(&[64, 64], F16)).unwrap();
            let hidden = function.matmul(x, shared).unwrap();
            let own = function.blob(own, &tensor(&[64, 8], F16)).unwrap();
            let y = function.matmul(hidden, own).unwrap();
            asset = function.finish(&[], &[("y", y)]).unwrap();
        }
        self.cases.push(Case { name: "functions".to_owned(), module: asset.finish() });
    }
}

/// Integer types that reductions take.
const INTEGERS: [Element; 8] = [Si8, Si16, Si32, Si64, Ui8, Ui16, Ui32, Ui64];

/// Element types of literals.
const LITERALS: [Element; 14] =
    [Bool, F64, F32, F16, Bf16, Si4, Si8, Si16, Si32, Si64, Ui8, Ui16, Ui32, Ui64];

/// All cases, in a fixed order.
pub fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    cases.elementwise();
    cases.binary();
    cases.matrix_products();
    cases.reductions();
    cases.selections();
    cases.shapes();
    cases.pieces();
    cases.constants();
    cases.states();
    cases.functions();
    cases.cases
}
