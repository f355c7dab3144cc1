//! Attributes: constants, names, locations.

use crate::types::TypeId;

/// Index of an interned [`Attribute`] of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct AttributeId(pub(crate) u32);

impl AttributeId {
    /// Position in the module's table of attributes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a resource (a named blob) of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ResourceId(pub(crate) u32);

impl ResourceId {
    /// Position in [`crate::Module::resources`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

macro_rules! enumerations {
    ($($variant:ident, $code:literal, $name:literal, [$($case:literal),*];)*) => {
        /// Attributes that select one of a few named cases (or carry one plain number).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(missing_docs)]
        pub enum Enumeration { $($variant),* }

        impl Enumeration {
            /// The attribute's code in the attribute/type section.
            pub fn code(self) -> u64 {
                match self { $(Enumeration::$variant => $code),* }
            }

            /// The enumeration with this code, if it is one.
            pub fn from_code(code: u64) -> Option<Self> {
                match code { $($code => Some(Enumeration::$variant),)* _ => None }
            }

            /// Name of the attribute in listings.
            pub fn name(self) -> &'static str {
                match self { $(Enumeration::$variant => $name),* }
            }

            /// Name of a case; `None` for a number without a known name.
            pub fn case(self, value: u64) -> Option<&'static str> {
                let cases: &[&str] = match self { $(Enumeration::$variant => &[$($case),*]),* };
                cases.get(usize::try_from(value).ok()?).copied()
            }
        }
    };
}

enumerations! {
    PaddingMode, 17, "padding_mode", ["circular", "constant", "reflect", "replicate", "symmetric"];
    LifecyclePhase, 18, "lifecycle_phase", [];
    Approximate, 19, "approximate", ["none", "tanh", "sigmoid"];
    ScatterMode, 20, "scatter_mode", ["update", "add", "sub", "mul", "div", "max", "min"];
    ScanCombiner, 25, "scan_combiner", ["sum", "product", "min", "max"];
    FourCc, 27, "fourcc", [];
    Compilation, 28, "compilation", ["full", "partial", "finalized"];
    InterpolationMode, 43, "interpolation_mode", ["linear", "nearest_neighbor"];
    Intent, 44, "intent", ["out", "inout", "return", "in", "param", "metadata"];
}

/// An attribute of the dialect, as in the attribute/type section.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Attribute {
    /// Text.
    String(String),
    /// An integer of at most 64 bits.
    Integer {
        /// Bits.
        width: u64,
        /// Whether the type is an explicitly unsigned one.
        unsigned: bool,
        /// Value; for widths up to 8 the low byte alone counts.
        value: i64,
    },
    /// A float, as its IEEE bits.
    Float {
        /// Bits: 16 (f16 and bf16), 32 or 64.
        width: u64,
        /// IEEE bits read as an integer of that width.
        bits: i64,
    },
    /// A type.
    Type(TypeId),
    /// A list.
    Array(Vec<AttributeId>),
    /// Bytes of a constant, stored in the attribute itself.
    DenseElements {
        /// Whether all elements are equal and only the first is stored.
        splat: bool,
        /// Row-major little-endian elements; a byte each for sub-byte types.
        bytes: Vec<u8>,
    },
    /// Bytes of a constant, stored as a blob in the resource section.
    DenseResource(ResourceId),
    /// A named entry with parameters.
    Opaque {
        /// Name.
        name: String,
        /// Parameters.
        parameters: Vec<AttributeId>,
    },
    /// Declaration of a type parameter.
    ParameterDeclaration {
        /// Name.
        name: String,
        /// Its type.
        ty: TypeId,
    },
    /// Path to a symbol, outermost name first.
    SymbolReference(Vec<String>),
    /// One case of an enumeration.
    Enumeration {
        /// Which enumeration.
        of: Enumeration,
        /// Number of the case.
        value: u64,
    },
    /// Debug information: a source file.
    File {
        /// File name, `-` when unknown.
        name: String,
        /// Directory.
        directory: String,
        /// Digest of its text, or empty.
        sha256: String,
    },
    /// Debug information: a place in a file.
    SourceLocation {
        /// A [`Attribute::File`].
        file: AttributeId,
        /// Start line, start column, end line, end column; all 0 when unknown.
        range: [u64; 4],
    },
    /// Debug information: how a module was compiled.
    CompileUnit {
        /// Source language.
        language: String,
        /// A [`Attribute::File`].
        file: AttributeId,
        /// Compiler.
        producer: String,
        /// Whether it was optimized.
        optimized: u64,
        /// Command line.
        flags: String,
        /// Further files.
        files: Vec<AttributeId>,
    },
    /// Debug information: payload of a metadata entry.
    MetadataData(AttributeId),
    /// Debug information: a named metadata entry.
    Metadata {
        /// Name.
        name: String,
        /// A [`Attribute::MetadataData`].
        data: AttributeId,
    },
    /// Debug information: a function.
    Subprogram {
        /// A [`crate::Type::DebugUnresolved`].
        ty: TypeId,
        /// A [`Attribute::CompileUnit`].
        unit: AttributeId,
        /// A [`Attribute::File`].
        file: AttributeId,
        /// Name.
        name: String,
        /// Name for the linker.
        linkage_name: String,
        /// Further entries; only empty lists were ever seen.
        entries: Vec<AttributeId>,
    },
    /// Location of an op or a block argument. The only kind that loaders accept.
    Location {
        /// A [`Attribute::SourceLocation`].
        source: AttributeId,
        /// Unit, or a scope.
        scope: AttributeId,
        /// Locations fused into this one.
        fused: Vec<AttributeId>,
        /// Entries of kind [`Attribute::Metadata`].
        metadata: Vec<AttributeId>,
    },
    /// Named entries, sorted by name.
    Dictionary(Vec<AttributeId>),
    /// Nothing but its presence.
    Unit,
}
