"""Moved: rows of a table in, changes in words out, is :mod:`invjax.recourse`."""

raise ImportError("invjax.explaining is now invjax.recourse (the command is still: invjax explain)")
