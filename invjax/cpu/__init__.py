"""Convolutions on CPU: lowering rules that replace XLA's slow forms. They know no lanes, batches or masks.

Every ``solve`` and ``fit`` on CPU installs them, for the whole process; :mod:`invjax.cpu.convolutions` says why, and
how to switch them off.
"""

from invjax.cpu.convolutions import install_canonical_convolutions, replaced_rule, uninstall_canonical_convolutions

__all__ = ["install_canonical_convolutions", "replaced_rule", "uninstall_canonical_convolutions"]
