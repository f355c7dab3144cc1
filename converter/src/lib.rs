//! Checkpoint to bundle content: source, configuration, plan, quantization, decoder graph, tables.
