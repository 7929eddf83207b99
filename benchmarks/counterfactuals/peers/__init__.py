"""Scripts that run another library on a benchmark's rows, each in an environment of its own.

Nothing here imports invjax, and the package imports only ``exchange``: a script is started as
``PYTHON SCRIPT.py EXCHANGE.npz OUT.npz --method NAME`` by ``benchmarks.counterfactuals.peer_comparison`` (or by hand).
"""
