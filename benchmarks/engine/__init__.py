"""What the engine costs beside the bare network."""
