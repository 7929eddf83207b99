"""Costs of the engine: time and memory beyond those of the bare network."""
