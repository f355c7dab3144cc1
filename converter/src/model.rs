//! A checkpoint that was read and checked, plans for it, and the run that carries out a plan.

use std::path::{Path, PathBuf};

use aimodel::package::PackageMetadata;
use half::f16;
use output::WrittenFile;
use progress::Progress;

use crate::decoder::{Functions, GraphOptions, INLINE_ELEMENTS, InlineTensors, Variant};
use crate::embedding::{TableDecision, TableFacts, TableForms};
use crate::error::{ConvertError, PlanError};
use crate::graphs::{Destination, GraphPass};
use crate::head::HeadDecision;
use crate::journal::Journal;
use crate::ordered::for_each_in_order;
use crate::plan::GraphPlan;
use crate::recipe::{Override, PerLayerForm, Recipe, Treatment, overridden};
use crate::statistics::WeightStatistics;
use crate::stock::StockTable;
use crate::tables::{TableWriter, TablesPlan, WrittenTables};
use checkpoint::config::{CacheForm, DecoderConfig};
use checkpoint::source::{Source, SummedSource, TensorChecksums};
use checkpoint::{Checkpoint, Role};

/// A checkpoint with its configuration and its tensors, all checked.
#[derive(Debug)]
pub struct Model<'s> {
    /// Where the bytes are.
    pub source: &'s dyn Source,
    /// Typed facts of `config.json`.
    pub config: DecoderConfig,
    /// The decoder's tensors.
    pub checkpoint: Checkpoint,
}

/// What a conversion should do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Graphs to make, with their functions. Stock goes alone: its blobs are not those of the others.
    pub graphs: Vec<(Variant, Functions)>,
    /// The caches of every graph.
    pub caches: CacheForm,
    /// Whether to make the gather tables.
    pub tables: bool,
    /// How projections are stored.
    pub projections: Treatment,
    /// How some of the projections and the head are stored instead; the first that matches counts.
    pub overrides: Vec<Override>,
    /// How the head is stored; nothing if a sample of its blocks decides.
    pub head: Option<Treatment>,
    /// How the embedding and the per-layer table are stored.
    pub table_forms: TableForms,
}

/// Everything that a conversion will write.
#[derive(Debug)]
pub struct Plan {
    /// The graphs, in the order asked for.
    pub graphs: Vec<GraphPlan>,
    /// The gather tables, if asked for.
    pub tables: Option<TablesPlan>,
    /// Why the head is stored as it is.
    pub head: HeadDecision,
    /// How the embedding and the per-layer table are stored, and why.
    pub table_forms: TableDecision,
    /// Temporary space beside the outputs, in bytes.
    pub spool_bytes: u64,
    /// The part of it that the stock graph's table takes.
    stock_bytes: u64,
    /// Of the tensors that are stored in the program.
    checksums: TensorChecksums,
}

impl Plan {
    /// Bytes of all programs and tables, temporary space included.
    pub fn bytes(&self) -> u64 {
        let tables = self.tables.as_ref().map_or(0, TablesPlan::bytes);
        self.graphs.iter().map(GraphPlan::bytes).sum::<u64>() + tables + self.spool_bytes
    }

    /// Bytes of tensors that a run reads, for a bar. Each is read once, however many graphs and tables are made from it; the
    /// stock graph's table is read again from temporary space.
    pub fn input_bytes(&self) -> u64 {
        let graph: Vec<(&str, u64)> =
            self.graphs.first().map(|graph| graph.reads().collect()).unwrap_or_default();
        let is_new = |tensor: &str| !graph.iter().any(|(read, _)| *read == tensor);
        let tables = self.tables.iter().flat_map(TablesPlan::reads).filter(|(tensor, _)| is_new(tensor));
        let bytes = graph.iter().copied().chain(tables).map(|(_, bytes)| bytes).sum::<u64>();
        bytes + 2 * self.stock_bytes
    }
}

/// Where a run writes.
#[derive(Debug)]
pub struct Outputs<'p> {
    /// Package directories to make, one for each graph of the plan.
    pub packages: &'p [PathBuf],
    /// A folder for the tables, if the plan has them: empty, or that of the journal.
    pub tables: Option<&'p Path>,
    /// A folder on the outputs' file system for temporary files, which may stay in it.
    pub scratch: &'p Path,
    /// Metadata of the packages.
    pub metadata: &'p PackageMetadata,
}

/// What a run wrote.
#[derive(Debug)]
pub struct Written {
    /// Packages, in the order of the plan.
    pub packages: Vec<WrittenFile>,
    /// The tables.
    pub tables: Option<WrittenTables>,
    /// What quantization did to the weights.
    pub statistics: WeightStatistics,
    /// Of every tensor that was read, for this or for the plan.
    pub checksums: TensorChecksums,
}

impl<'s> Model<'s> {
    /// Reads the configuration and finds every tensor.
    ///
    /// # Errors
    /// If the configuration is not that of a Gemma 4 model that is converted, or a tensor is missing or of another shape or type.
    pub fn open(source: &'s dyn Source) -> Result<Self, ConvertError> {
        let config = DecoderConfig::read(source)?;
        let checkpoint = Checkpoint::new(&config, source.tensors())?;
        Ok(Model { source, config, checkpoint })
    }

    /// Plans a conversion. Reads the few tensors that are stored in the program, and a sample of weights if they decide the head's
    /// format; nothing else.
    ///
    /// # Errors
    /// If a matrix does not divide into blocks, or those tensors or the sample cannot be read.
    pub fn plan(&self, request: &Request) -> Result<Plan, ConvertError> {
        self.check_overrides(&request.overrides)?;
        let head = HeadDecision::new(
            self.source,
            &self.config,
            &self.checkpoint,
            request.projections,
            overridden(&request.overrides, Role::Head).or(request.head),
        )?;
        let overrides = request.overrides.clone();
        let published = Recipe { overrides, ..Recipe::new(request.projections, head.treatment) };
        let holds_table = request.graphs.iter().any(|(variant, _)| *variant == Variant::Stock);
        let facts = TableFacts {
            source: self.source,
            config: &self.config,
            checkpoint: &self.checkpoint,
            head: &head,
            rule: published.rule(),
            holds_table,
        };
        let table_forms = facts.decide(request.table_forms)?;
        let per_layer = table_forms.per_layer.as_ref().map_or(PerLayerForm::Int8, |chosen| chosen.form);
        let recipe = Recipe { embedding: table_forms.embedding.form, per_layer, ..published };
        let summed = SummedSource::new(self.source);
        let inline =
            if request.graphs.is_empty() { InlineTensors::new() } else { self.inline_tensors(&summed)? };
        let graphs = request.graphs.iter().map(|(variant, functions)| {
            let (variant, functions, caches) = (*variant, *functions, request.caches);
            let tied_head = self.checkpoint.head_is_tied();
            let options = GraphOptions { variant, recipe: recipe.clone(), tied_head, functions, caches };
            GraphPlan::new(&self.config, &self.checkpoint, &options, &inline)
        });
        let graphs = graphs.collect::<Result<Vec<_>, _>>()?;
        let tables =
            if request.tables { Some(TablesPlan::new(&self.config, &self.checkpoint)?) } else { None };
        let table = self.config.per_layer.filter(|_| holds_table && per_layer == PerLayerForm::Int8);
        let stock_bytes = table.map_or(0, |table| StockTable::spool_bytes(&self.config, table));
        let spool_bytes = stock_bytes + graphs.first().map_or(0, GraphPlan::spool_bytes);
        let checksums = summed.checksums.finished();
        Ok(Plan { graphs, tables, head, table_forms, spool_bytes, stock_bytes, checksums })
    }

    /// An override that is for nothing is a mistake.
    fn check_overrides(&self, overrides: &[Override]) -> Result<(), PlanError> {
        let is_of_none =
            |given: &&Override| !Role::needed(&self.config).any(|role| given.tensors.matches(role));
        match overrides.iter().find(is_of_none) {
            Some(given) => Err(PlanError::NoTensor { pattern: given.tensors.clone() }),
            None => Ok(()),
        }
    }

    /// Reads the tensors that are stored in the program, as half precision.
    fn inline_tensors(&self, source: &dyn Source) -> Result<InlineTensors, ConvertError> {
        let is_small = |role: &Role| {
            !role.is_projection() && role.shape(&self.config).iter().product::<usize>() < INLINE_ELEMENTS
        };
        let roles: Vec<Role> = Role::needed(&self.config).filter(is_small).collect();
        let readers = self.source.readers();
        let mut tensors = InlineTensors::new();
        for_each_in_order(
            roles.len(),
            readers,
            readers,
            |at| self.half_bytes(source, roles[at]),
            |at, bytes| {
                tensors.insert(roles[at], bytes);
                Ok::<_, ConvertError>(())
            },
        )?;
        Ok(tensors)
    }

    /// A whole tensor in half precision.
    fn half_bytes(&self, source: &dyn Source, role: Role) -> Result<Vec<u8>, ConvertError> {
        let tensor = self.checkpoint.require(role)?;
        let mut weights = bytemuck::zeroed_vec(tensor.weights() as usize);
        source.read_weights(tensor, 0, &mut weights)?;
        let mut halves = bytemuck::zeroed_vec::<f16>(weights.len());
        quantizer::to_f16(&weights, &mut halves)
            .map_err(|source| ConvertError::Element { tensor: tensor.name.clone(), source })?;
        Ok(bytemuck::cast_slice(&halves).to_vec())
    }

    /// Carries out a plan, or what is left of it according to the journal. The outputs are complete if this returns without an
    /// error, and unusable otherwise.
    ///
    /// # Errors
    /// If the checkpoint cannot be read or changes in the meantime, holds an element that cannot be converted, an output cannot be
    /// written, or it is cancelled.
    pub fn write(
        &self,
        plan: &Plan,
        outputs: &Outputs<'_>,
        threads: usize,
        progress: &dyn Progress,
        journal: &mut Journal,
    ) -> Result<Written, ConvertError> {
        let source = SummedSource::new(self.source);
        journal.set_checksums(source.checksums.clone());
        let stock = match plan.stock_bytes {
            0 => None,
            _ => Some(self.stock(&source, outputs, threads, progress, journal)?),
        };
        let destinations: Vec<Destination<'_>> = plan
            .graphs
            .iter()
            .zip(outputs.packages)
            .map(|(plan, directory)| Destination { plan, directory: directory.clone() })
            .collect();
        let pass = GraphPass {
            source: &source,
            checkpoint: &self.checkpoint,
            metadata: outputs.metadata,
            stock: stock.as_ref(),
            scratch: outputs.scratch,
            threads,
            progress,
        };
        let mut tables = plan
            .tables
            .as_ref()
            .zip(outputs.tables)
            .map(|(plan, directory)| TableWriter::new(plan, directory, journal))
            .transpose()?;
        let graphs = pass.write(&destinations, tables.as_mut(), journal)?;
        let tables = tables
            .map(|tables| tables.finish(&source, &self.checkpoint, threads, progress, journal))
            .transpose()?;
        self.source.verify_unchanged()?;
        let mut checksums = journal.checksums();
        checksums.extend(plan.checksums.clone());
        Ok(Written { packages: graphs.packages, tables, statistics: graphs.statistics, checksums })
    }

    fn stock(
        &self,
        source: &dyn Source,
        outputs: &Outputs<'_>,
        threads: usize,
        progress: &dyn Progress,
        journal: &mut Journal,
    ) -> Result<StockTable, ConvertError> {
        if let Some(file) = &journal.done.stock {
            progress.resume(self.checkpoint.require(Role::EmbedTokensPerLayer)?.byte_len());
            return StockTable::resume(&self.config, outputs.scratch, file);
        }
        let place = (journal.disk(), outputs.scratch);
        let table = StockTable::new(source, &self.config, &self.checkpoint, place, threads, progress)?;
        table.note(journal)?;
        Ok(table)
    }
}
