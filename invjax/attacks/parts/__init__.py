"""Pieces that several attacks share."""
