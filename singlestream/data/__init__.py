"""From datasets to batches: sources, tokeniser, patches, rows, the Grain pipeline. No jax here but the contract's."""
