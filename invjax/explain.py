"""Moved: saliency maps and class activation maps are in :mod:`invjax.attribution`."""

raise ImportError("invjax.explain is now invjax.attribution (saliency maps, CAM, Grad-CAM)")
