"""Attacks on images: all of them on the same pairs, and GSE beside its published table."""
