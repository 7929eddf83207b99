"""How convolutions are lowered on CPU: rules for XLA that know neither batches nor lanes."""
