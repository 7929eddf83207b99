"""Many images and many targets: the pairs, choosing images, running an attack, the table of it."""
