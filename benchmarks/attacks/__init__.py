"""Attacks compared on images."""
