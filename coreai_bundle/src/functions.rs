//! What the functions of a package cost for each token: computed from the graph, not measured.

use aimodel::Dim;
use aimodel::package::Package;
use aimodel::view::Function;
use report::FunctionWork;

/// The functions, if the engine reads prompts in chunks of this many tokens where one takes any number.
pub(crate) fn of_package(package: &Package, chunk: u64) -> Vec<FunctionWork> {
    Function::all(&package.bytecode.module)
        .flatten()
        .map(|function| of_function(package, &function, chunk))
        .collect()
}

/// One function.
pub(crate) fn of_function(package: &Package, function: &Function<'_>, chunk: u64) -> FunctionWork {
    let tokens = match function.query_length() {
        Some(Dim::Fixed(tokens)) => tokens,
        Some(Dim::Dynamic) => chunk,
        None => 1,
    };
    let work = package.work(function);
    FunctionWork {
        name: function.name.unwrap_or("?").to_owned(),
        tokens,
        multiply_adds: work.multiply_adds,
        weight_bytes: work.bytes_per_position(tokens).round() as u64,
    }
}
