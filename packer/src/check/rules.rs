//! Every rule, with its reason and its remedy. The code that applies them is in the modules beside this one.

use super::finding::Rule;
use super::finding::Severity::{Defect, Note};

macro_rules! rules {
    ($($name:ident, $severity:ident, $id:literal, $why:literal, $fix:literal;)*) => {
        $(pub(super) const $name: Rule = Rule { id: $id, severity: $severity, why: $why, fix: $fix };)*

        /// All rules that `check` applies, in the order of its catalog.
        pub const ALL: &[Rule] = &[$($name),*];
    };
}

rules! {
    // Files of any folder.
    FILE_SYMLINK, Defect, "files.symlink",
        "symbolic links are not followed on the device: the loader finds no file there",
        "cp -RL {path} COPY, then use COPY";
    FILE_IRREGULAR, Defect, "files.irregular",
        "loaders and uploads take regular files with UTF-8 names only",
        "rm {file}";
    FILE_EMPTY, Defect, "files.empty",
        "an empty file is what an interrupted copy leaves behind",
        "rm {file}, then copy or download it again, or {remake}";
    FILE_LEFTOVER, Note, "files.leftover",
        "it would be published and downloaded with the rest",
        "rm -r {file}";
    FILE_UNEXPECTED, Note, "files.unexpected",
        "no loader reads it, and it would be published with the rest",
        "rm -r {file}";

    // The manifest.
    MANIFEST_MISSING, Note, "manifest.missing",
        "without sizes and digests a partial or damaged copy goes unnoticed",
        "move {path} away, then {remake}";
    MANIFEST_UNREADABLE, Defect, "manifest.unreadable",
        "the files cannot be compared with what was written",
        "move {path} away, then {remake}";
    MANIFEST_FILE_MISSING, Defect, "manifest.file-missing",
        "the folder is an incomplete copy",
        "copy or download the folder again, or {remake}";
    MANIFEST_SIZE, Defect, "manifest.size",
        "the file is truncated or was changed after it was written",
        "copy or download the file again, or {remake}";
    MANIFEST_DIGEST, Defect, "manifest.digest",
        "the file was damaged or changed after it was written",
        "copy or download the file again, or {remake}";
    MANIFEST_UNLISTED, Note, "manifest.unlisted",
        "it was added after the folder was made, and nothing vouches for its content",
        "rm -r {file}";

    MANIFEST_GATE, Defect, "manifest.gate",
        "the bundle was compared with its checkpoint and does not agree with it",
        "{remake}";

    // metadata.json of a bundle.
    METADATA_MISSING, Defect, "metadata.missing",
        "the loader reads this file first and fails",
        "{remake}";
    METADATA_JSON, Defect, "metadata.not-json",
        "the loader fails to decode it",
        "{remake}";
    METADATA_VERSION, Defect, "metadata.version",
        "loaders refuse every other schema version",
        "set \"metadata_version\": \"0.2\" in {file}, or {remake}";
    METADATA_KIND, Defect, "metadata.kind",
        "the loader opens language bundles of this kind only",
        "set \"kind\": \"llm\" in {file}, or {remake}";
    METADATA_NAME, Defect, "metadata.name",
        "the loader requires a name",
        "{remake}";
    METADATA_NAME_DIFFERS, Note, "metadata.name-differs",
        "apps show one name and people look for the other",
        "rename the folder to the bundle's name";
    METADATA_ASSETS, Defect, "metadata.assets",
        "the loader fails with a decoding error that does not name the key",
        "{remake}";
    METADATA_ASSET_VALUE, Defect, "metadata.asset-value",
        "assets must map names to file names; the loader fails with a decoding error that does not name the key",
        "{remake}";
    METADATA_MAIN_ASSET, Defect, "metadata.main-asset",
        "the loader opens the graph named there",
        "{remake}";
    METADATA_ASSET_FILE, Defect, "metadata.asset-file",
        "the loader opens exactly this name: newer ones try no other suffix",
        "set assets.main in {file} to the name of the graph package, or {remake}";
    METADATA_ASSET_PLACE, Defect, "metadata.asset-place",
        "an asset outside of the bundle is not copied to the device with it",
        "{remake}";
    METADATA_ASSET_KIND, Defect, "metadata.asset-kind",
        "loaders open folders that end in .aimodel or .aimodelc",
        "{remake}";
    METADATA_LANGUAGE, Defect, "metadata.language",
        "the language engine cannot be set up without it",
        "{remake}";
    METADATA_VOCAB_SIZE, Defect, "metadata.vocab-size",
        "the loader needs a whole number and fails with a decoding error that does not name the key",
        "set language.vocab_size in {file} to the last axis of the logits, or {remake}";
    METADATA_MAX_CONTEXT, Defect, "metadata.max-context",
        "the loader needs a whole number and fails with a decoding error that does not name the key",
        "{remake}";
    METADATA_MAX_CONTEXT_STEP, Note, "metadata.max-context-step",
        "the engine starts its cache at 256 positions and doubles it: other limits waste memory or are not reached",
        "{remake}";
    METADATA_TOKENIZER, Defect, "metadata.tokenizer",
        "the loader requires the key, even where the tokenizer is embedded",
        "{remake}";
    METADATA_TOKENIZER_ID, Note, "metadata.tokenizer-id",
        "it is used as a Hub id where no tokenizer is embedded, and means nothing to others",
        "convert the checkpoint by its name on the Hub, OWNER/NAME, instead of a folder";
    METADATA_EMBEDDED, Defect, "metadata.embedded-tokenizer",
        "the loader then goes to the network for the tokenizer, silently",
        "set language.embedded_tokenizer in {file} to true, or {remake}";
    METADATA_FUNCTION_MAP, Defect, "metadata.function-map",
        "the engine looks for the graph function under this role",
        "set \"function_map\": {\"main\": [\"main\"]} under language in {file}, or {remake}";
    METADATA_FUNCTION_MAP_MISSING, Note, "metadata.function-map-missing",
        "the engine guesses the function's role from its name",
        "{remake}";
    METADATA_CHUNKING, Defect, "metadata.prefill-chunk",
        "engines cut prompts into chunks of this size, and fail where the graph takes another number of tokens (for graphs that \
         take one token, older engines need COREAI_CHUNK_THRESHOLD=1 in the environment besides)",
        "set the keys under language in {file} as described, or {remake}";
    METADATA_CHUNK_ONE, Note, "metadata.prefill-chunk-one",
        "the graph takes any number of tokens, and prompts are read at the speed of decoding",
        "set prefill_chunk_size under language in {file} to 512";
    METADATA_QUERY_LENGTH, Defect, "metadata.query-length",
        "hosts read there how many tokens a function takes",
        "{remake}";
    METADATA_EOS_IDS, Defect, "metadata.eos-token-ids",
        "newer engines end a reply at these tokens: without the one that ends a turn, replies run on",
        "{remake}";
    METADATA_EOS_IDS_MISSING, Note, "metadata.eos-token-ids-missing",
        "newer engines take the tokens that end a reply from here",
        "{remake}";
    METADATA_USER_DATA, Defect, "metadata.user-data",
        "user_data must map strings to strings; the loader fails with a decoding error that does not name the key",
        "write the value as a string in {file}, or {remake}";
    METADATA_ENGINE, Defect, "metadata.engine-inputs",
        "hosts choose how to fill the graph's inputs by this entry",
        "{remake}";
    METADATA_ENGINE_MISSING, Note, "metadata.engine-inputs-missing",
        "a host cannot tell from the metadata which engine the graph needs",
        "{remake}";
    METADATA_CACHE_PAIRS, Defect, "metadata.cache-pairs",
        "hosts read there how much memory the caches take",
        "{remake}";
    METADATA_SOURCE, Note, "metadata.source",
        "without it, the checkpoint of the weights is unknown",
        "{remake}";
    METADATA_SOURCE_ID, Note, "metadata.source-id",
        "a local path is not a model id and means nothing to others",
        "convert from the Hub, or {remake}";
    METADATA_COMPRESSION, Note, "metadata.compression",
        "the metadata should say how the weights are stored",
        "{remake}";

    // The graph package.
    PACKAGE_BARE, Note, "package.bare",
        "a graph package alone cannot be loaded as a language model: metadata.json and tokenizer/ are missing",
        "coreai-bundle convert SOURCE -o DIR";
    PACKAGE_PROGRAM, Defect, "package.program",
        "Apple's loader crashes without the program",
        "{remake}";
    PACKAGE_HASH_MISSING, Defect, "package.hash-missing",
        "the package is incomplete, and its program cannot be distinguished from a damaged one",
        "{remake}";
    PACKAGE_HASH, Defect, "package.hash",
        "the program is not the one that was written: it is damaged, or the hash was not updated",
        "copy or download the package again, or {remake}";
    PACKAGE_METADATA, Defect, "package.metadata",
        "the loader reads the version of the package from it",
        "{remake}";
    PACKAGE_ASSET_VERSION, Defect, "package.asset-version",
        "the loader refuses every other version",
        "{remake}";
    PACKAGE_PRODUCER, Defect, "package.producer",
        "packages must name what wrote them",
        "{remake}";
    PACKAGE_PAGE, Note, "package.page-multiple",
        "a program whose size is a multiple of 4096 is read into memory whole instead of being mapped",
        "{remake}";

    // The graph.
    GRAPH_UNREADABLE, Defect, "graph.unreadable",
        "loaders abort on a damaged program or on an unknown operation",
        "copy or download the package again, or {remake}";
    GRAPH_INVALID, Defect, "graph.invalid",
        "loaders verify every operation and abort on a program that breaks a rule of the format, or misread it",
        "copy or download the package again, or {remake}";
    GRAPH_FUNCTION, Defect, "graph.function",
        "the engine runs the function main",
        "{remake}";
    GRAPH_INPUT_IDS, Defect, "graph.input-ids",
        "the engine feeds token ids as int32, one a step or any number",
        "{remake}";
    GRAPH_POSITION_IDS, Defect, "graph.position-ids",
        "the engine feeds the whole ramp of positions as int32: the second axis must be dynamic",
        "{remake}";
    GRAPH_EXTRA_INPUT, Defect, "graph.extra-input",
        "the patched engines fill fixed-shape inputs: at most 2 per token, at most 4 bound once and by name",
        "{remake}";
    GRAPH_UNKNOWN_INPUT, Note, "graph.unknown-input",
        "no host is known to fill it",
        "{remake}";
    GRAPH_STATES, Defect, "graph.states",
        "the engine takes f16 states of rank 5: keyCache and valueCache, which it grows along axis 3, and after them perhaps \
         keyCacheFull and valueCacheFull, which it allocates for the whole context; engines that fill in tables take two",
        "{remake}";
    GRAPH_LOGITS, Defect, "graph.logits",
        "the engine samples from one output, f16 logits of each position that it feeds",
        "{remake}";
    GRAPH_PER_TOKEN_QUERY, Defect, "graph.per-token-query",
        "the engine that fills inputs at every step refuses graphs that take several tokens",
        "{remake}";
    GRAPH_PREFILL_INPUTS, Defect, "graph.prefill-inputs",
        "the engine refuses to load a prefill whose inputs are not those of main, in the same order",
        "{remake}";
    GRAPH_PREFILL_STATES, Defect, "graph.prefill-states",
        "the engine refuses to load a prefill whose states are not those of main",
        "{remake}";
    GRAPH_PREFILL_OUTPUTS, Defect, "graph.prefill-outputs",
        "Apple's engine refuses to load a prefill that has outputs",
        "{remake}";
    GRAPH_PREFILL_WIDTH, Defect, "graph.prefill-width",
        "Apple's engine feeds chunks of any length; the community's engine for gather tables feeds chunks of one length",
        "{remake}";
    GRAPH_PREFILL_IGNORED, Note, "graph.prefill-ignored",
        "the community's engine for gather tables uses a prefill only if it returns logits, and otherwise feeds prompts one token at a time",
        "{remake}";
    GRAPH_OTHER_FUNCTION, Note, "graph.other-function",
        "engines run main and prefill only",
        "{remake}";
    GRAPH_VOCABULARY, Defect, "graph.vocabulary",
        "the sampler reads past the logits or never sees the last tokens",
        "set language.vocab_size in metadata.json to the last axis of the logits, or {remake}";
    GRAPH_BLOCK, Defect, "graph.block-size",
        "only blocks of 32 along the input axis are fast and right on the GPU: one scale per channel produces garbage, \
         blocks of 16 are 3.2 times slower",
        "{remake}";
    GRAPH_WEIGHT_TYPE, Defect, "graph.weight-type",
        "only int4 and int8 weights were measured on the GPU; tables of values are 2.25 times slower",
        "{remake}";
    GRAPH_OFFSET, Defect, "graph.weight-offset",
        "weights are stored without offsets; others were never measured",
        "{remake}";
    GRAPH_SCALE, Defect, "graph.weight-scale",
        "one scale that is not a number spoils every logit",
        "copy or download the package again, or {remake}";
    GRAPH_SHARED_BLOB, Defect, "graph.shared-blob",
        "constants that read one blob as different types must have the same rows, or one of them reads another's",
        "{remake}";
    GRAPH_BYTE_TABLE, Note, "graph.byte-tables-not-run",
        "rows that are gathered as bytes and unpacked through a table have not been run on a Mac by this project",
        "compare it on a Mac with the procedure in docs/table-forms.md, or convert with --embedding f16 --per-layer int8";
    GRAPH_ROPE, Defect, "graph.rope-precision",
        "frequencies of rotary positions underflow in f16: long contexts fall apart",
        "{remake}";
    GRAPH_LOCATIONS, Defect, "graph.locations",
        "debug locations abort some loaders",
        "{remake}";
    GRAPH_STOCK, Note, "graph.stock-not-run",
        "a graph with its per-layer table inside has not been run on a Mac by this project",
        "verify it on a Mac with the procedure of the README";
    GRAPH_SPLIT_CACHES, Note, "graph.split-caches-not-run",
        "a graph with two pairs of caches has not been run on a Mac by this project",
        "verify it on a Mac with the procedure of the README, or convert without --cache split";
    GRAPH_LARGE, Note, "graph.needs-compiling",
        "on iPhone an int4 graph of 2 GB or more must be compiled ahead of time",
        "coreai-bundle aotc {path} --arch h18p";

    // An ahead-of-time compiled asset.
    COMPILED_PROGRAM, Defect, "compiled.program",
        "the compiler exits 0 without having made anything useful",
        "{remake}";
    COMPILED_ARCHITECTURE, Defect, "compiled.architecture",
        "there is no fallback on a device of another architecture",
        "{remake}";
    COMPILED_UNKNOWN, Defect, "compiled.unknown-architecture",
        "the compiler exits 0 for any architecture name, and no device loads the result",
        "coreai-bundle aotc SOURCE_BUNDLE --arch h18p";
    COMPILED_FILES, Defect, "compiled.files",
        "the compiled asset is incomplete",
        "{remake}";
    COMPILED_HASH, Defect, "compiled.hash",
        "the compiled program is damaged, or of another compiler run",
        "{remake}";
    COMPILED_TARGETS, Note, "compiled.targets",
        "the metadata should say which devices the bundle is for",
        "{remake}";
    COMPILED_STALE, Defect, "compiled.stale",
        "the compiled graph is not the one of the bundle beside it",
        "{remake}";

    // The tokenizer.
    TOKENIZER_MISSING, Defect, "tokenizer.missing",
        "the loader goes to the network for it, silently, or fails",
        "{remake}";
    TOKENIZER_FILE, Defect, "tokenizer.file-missing",
        "the tokenizer cannot be loaded without it",
        "{remake}";
    TOKENIZER_JSON, Defect, "tokenizer.not-json",
        "the tokenizer cannot be loaded",
        "{remake}";
    TOKENIZER_FILE_NOTE, Note, "tokenizer.incomplete",
        "other readers of the folder expect it",
        "{remake}";
    TOKENIZER_EOS, Defect, "tokenizer.eos-token",
        "the engine ends a reply at eos_token alone: replies run on past the end of the turn",
        "set eos_token in {file} to the token that ends a turn, or {remake}";
    TOKENIZER_EOS_MAP, Note, "tokenizer.eos-token-map",
        "readers of this file end replies at another token than the engine",
        "{remake}";
    TOKENIZER_STOPS, Note, "tokenizer.generation-stops",
        "readers of this file do not end replies at the end of a turn",
        "{remake}";
    TOKENIZER_TEMPLATE, Defect, "tokenizer.chat-template",
        "the engine cannot format a conversation",
        "copy chat_template.jinja from the checkpoint, and {remake}";
    TOKENIZER_INLINE, Defect, "tokenizer.template-not-inlined",
        "the engine reads the chat template from tokenizer_config.json only",
        "{remake}";
    TOKENIZER_TEMPLATE_DIFFERS, Defect, "tokenizer.template-differs",
        "readers of the one file format conversations differently from readers of the other",
        "{remake}";
    TOKENIZER_TEMPLATE_BROKEN, Defect, "tokenizer.template-broken",
        "the engine cannot format a conversation with it",
        "copy chat_template.jinja from the checkpoint, and {remake}";
    TOKENIZER_IDS, Defect, "tokenizer.ids",
        "the graph has no embedding for such a token and reads past its table",
        "{remake}";

    // Gather tables.
    TABLES_FILE, Defect, "tables.file-missing",
        "the host cannot compute the per-layer inputs without it",
        "{remake}";
    TABLES_META, Defect, "tables.meta",
        "hosts take the shapes of the raw files from it",
        "{remake}";
    TABLES_CONSTANT, Defect, "tables.constant",
        "every per-layer input would be scaled wrongly",
        "{remake}";
    TABLES_SIZE, Defect, "tables.size",
        "the file is truncated or of another checkpoint: rows are read from wrong places",
        "copy or download the file again, or {remake}";
    TABLES_SCALE, Defect, "tables.scale",
        "a row with such a scale produces no usable numbers",
        "copy or download the file again, or {remake}";
    TABLES_STAMP_MISSING, Note, "tables.stamp-missing",
        "tables of another checkpoint with the same shape pass the engine silently",
        "{remake}";
    TABLES_STAMP, Defect, "tables.stamp",
        "the stamp that ties tables and bundles together is not that of these files",
        "{remake}";
    TABLES_FOREIGN, Defect, "tables.foreign",
        "the engine checks only the byte length: tables of another checkpoint silently produce wrong replies",
        "coreai-bundle tables SOURCE -o DIR, with the SOURCE of the bundle";
    TABLES_SHAPE, Defect, "tables.shape",
        "the tables do not fit the graph's inputs",
        "coreai-bundle tables SOURCE -o DIR, with the SOURCE of the bundle";
    TABLES_NOT_FOUND, Note, "tables.not-found",
        "the bundle needs its gather tables to run; they were not compared",
        "coreai-bundle check {path} --tables DIR";
    TABLES_NOT_IN_RELEASE, Defect, "tables.not-in-release",
        "bundles of the release cannot run without their gather tables",
        "coreai-bundle tables SOURCE -o {path}/ios-frontend";

    // A release tree.
    RELEASE_CARD, Defect, "release.card",
        "the model card is what people and the Hub read first",
        "{remake}";
    RELEASE_CARD_FIELD, Defect, "release.card-field",
        "the Hub files and finds the release by these fields",
        "{remake}";
    RELEASE_LICENSE, Defect, "release.license",
        "the license of the source repository must come with its derivatives",
        "{remake}";
    RELEASE_MANIFEST, Defect, "release.manifest",
        "a release lists the SHA-256 of every file, so that partial downloads are noticed",
        "move {path} away, then {remake}";
    RELEASE_EMPTY, Defect, "release.no-bundle",
        "there is nothing to run in the release",
        "{remake}";
    RELEASE_NO_IPHONE, Note, "release.no-compiled-bundle",
        "on iPhone, graphs of 2 GB or more must be compiled ahead of time, and caches of 2048 positions or more are \
         miscompiled on the device",
        "coreai-bundle aotc BUNDLE --arch h18p on a bundle that the release was made of, then {remake}";
}
