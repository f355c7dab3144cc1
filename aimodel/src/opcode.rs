//! The ops of the dialect: names, properties, introduction dates.

use std::fmt;

/// Date of the oldest ops; also used for ops whose own date is not known.
const OLDEST: u32 = 20250707;

/// Properties of an op, in their order in the bytecode; `?` marks an optional one.
type Properties = &'static [&'static str];

const NONE: Properties = &[];

macro_rules! opcodes {
    ($($variant:ident, $name:literal, $since:expr, $properties:expr;)*) => {
        /// An op of the `aicode` dialect.
        ///
        /// Holds those that the Gemma graphs use, those that appear in their decompositions, and their close
        /// relatives whose rules are known. A package with any other op is refused by name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Opcode { $($variant),* }

        impl Opcode {
            /// Every known op.
            pub const ALL: &[Opcode] = &[$(Opcode::$variant),*];

            /// The name in the bytecode, without the dialect's prefix.
            pub fn name(self) -> &'static str {
                match self { $(Opcode::$variant => $name),* }
            }

            /// The op with this name.
            pub fn from_name(name: &str) -> Option<Opcode> {
                match name { $($name => Some(Opcode::$variant),)* _ => None }
            }

            /// When the op came into the dialect, as the decimal number YYYYMMDD.
            pub fn since(self) -> u32 {
                match self { $(Opcode::$variant => $since),* }
            }

            /// Names of its properties in bytecode order; `?` at the end marks an optional one.
            pub fn properties(self) -> &'static [&'static str] {
                match self { $(Opcode::$variant => $properties),* }
            }
        }
    };
}

opcodes! {
    Asset, "serialization.asset", OLDEST, &["source?", "version?"];
    Graph, "dataflow.graph_v1", OLDEST, &["argAttrs", "compositeDecl?", "externalize", "functionType",
        "isPrivate", "name", "noInline", "paramDecls", "resAttrs"];
    CreateToken, "dataflow.create_token_v1", OLDEST, NONE;
    ReadHandle, "dataflow.read_handle_v1", 20250819, NONE;
    WriteHandle, "dataflow.write_handle_v1", 20250819, NONE;
    Output, "dataflow.output_v1", OLDEST, NONE;
    Yield, "dataflow.yield_v1", OLDEST, NONE;

    Constant, "primitive.constant_v1", OLDEST, &["value"];
    Cast, "primitive.cast_v1", 20250723, NONE;
    GetShape, "primitive.get_shape_v2", 20260317, NONE;
    Reshape, "primitive.reshape_v2", 20260204, NONE;
    Transpose, "primitive.transpose_v1", 20250811, NONE;
    Slice, "primitive.slice_v1", 20250922, NONE;
    SliceUpdate, "primitive.slice_update_v1", 20250922, NONE;
    Concat, "primitive.concat_v1", 20250903, NONE;
    GatherNd, "primitive.gather_nd_v1", 20250723, NONE;
    GatherAlongAxis, "primitive.gather_along_axis_v1", 20251028, NONE;
    ShrinkDims, "primitive.shrink_dims_v1", 20251002, NONE;
    ExpandDims, "primitive.expand_dims_v1", 20250924, NONE;
    Pad, "primitive.pad_v1", 20250924, &["padding_mode"];
    Range, "primitive.range_v1", 20251017, NONE;
    BroadcastInDims, "primitive.broadcast_in_dims_v1", 20250826, NONE;
    BroadcastTo, "primitive.broadcast_to_v1", 20250911, NONE;
    BroadcastShapes, "primitive.broadcast_shapes_v1", 20250911, NONE;
    BlockwiseShiftScale, "primitive.blockwise_shift_scale_v2", 20260202, NONE;
    BatchMatmul, "primitive.batch_matmul_v1", OLDEST, NONE;
    Where, "primitive.where_v1", 20251024, NONE;
    Reduce, "primitive.reduce_v1", 20250926, NONE;
    Gelu, "primitive.gelu_v1", 20251024, &["approximate"];

    Rsqrt, "primitive.rsqrt_v1", 20250928, NONE;
    Exp, "primitive.exp_v1", 20250819, NONE;
    Tanh, "primitive.tanh_v1", 20250928, NONE;
    Sin, "primitive.sin_v1", 20250928, NONE;
    Cos, "primitive.cos_v1", 20250928, NONE;
    Not, "primitive.not_v1", 20250923, NONE;

    Add, "primitive.add_v1", 20250827, NONE;
    Sub, "primitive.sub_v1", 20250827, NONE;
    Mul, "primitive.mul_v1", 20250827, NONE;
    Divide, "primitive.divide_v1", 20250827, NONE;
    Pow, "primitive.pow_v1", 20250930, NONE;
    Maximum, "primitive.maximum_v1", 20250930, NONE;
    Minimum, "primitive.minimum_v1", 20250930, NONE;
    Greater, "primitive.greater_v1", 20251105, NONE;
    LogicalXor, "primitive.logical_xor_v1", 20251203, NONE;

    BroadcastingAdd, "broadcasting_add_v1", 20250827, NONE;
    BroadcastingSub, "broadcasting_sub_v1", 20250827, NONE;
    BroadcastingMul, "broadcasting_mul_v1", 20250827, NONE;
    BroadcastingDivide, "broadcasting_divide_v1", 20250827, NONE;
    BroadcastingPow, "broadcasting_pow_v1", 20250930, NONE;
    BroadcastingMaximum, "broadcasting_maximum_v1", 20250930, NONE;
    BroadcastingMinimum, "broadcasting_minimum_v1", 20250930, NONE;
    BroadcastingGreater, "broadcasting_greater_v1", 20251105, NONE;
    BroadcastingLogicalXor, "broadcasting_logical_xor_v1", 20251203, NONE;
    BroadcastingWhere, "broadcasting_where_v1", 20251024, NONE;
    BroadcastingBatchMatmul, "broadcasting_batch_matmul_v1", 20251202, NONE;
    ReduceSum, "reduce_sum_v1", 20250926, NONE;
    ReduceProduct, "reduce_product_v1", 20250926, NONE;
    ReduceMax, "reduce_max_v1", 20251023, NONE;
    ReduceMin, "reduce_min_v1", 20251023, NONE;
    ReduceMean, "reduce_mean_v1", OLDEST, NONE;
    Softmax, "softmax_v1", OLDEST, NONE;
    Relu, "relu_v1", 20251016, NONE;
    Sigmoid, "sigmoid_v1", 20250922, NONE;
    Silu, "silu_v1", 20250928, NONE;
}

impl Opcode {
    /// For a broadcasting op of two operands, the primitive that its decomposition ends in.
    pub fn broadcasts(self) -> Option<Opcode> {
        use Opcode::*;
        Some(match self {
            BroadcastingAdd => Add,
            BroadcastingSub => Sub,
            BroadcastingMul => Mul,
            BroadcastingDivide => Divide,
            BroadcastingPow => Pow,
            BroadcastingMaximum => Maximum,
            BroadcastingMinimum => Minimum,
            BroadcastingGreater => Greater,
            BroadcastingLogicalXor => LogicalXor,
            _ => return None,
        })
    }

    /// Whether the op is a composite: it carries its own decomposition as a region.
    pub fn is_composite(self) -> bool {
        use Opcode::*;
        self.broadcasts().is_some()
            || matches!(
                self,
                BroadcastingWhere
                    | BroadcastingBatchMatmul
                    | ReduceSum
                    | ReduceProduct
                    | ReduceMax
                    | ReduceMin
                    | ReduceMean
                    | Softmax
                    | Relu
                    | Sigmoid
                    | Silu
            )
    }

    /// Whether two uses with equal operands and properties have equal results: no state is touched.
    pub fn is_pure(self) -> bool {
        use Opcode::*;
        !matches!(self, Asset | Graph | CreateToken | ReadHandle | WriteHandle | Output | Yield)
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
