"""Scripts that run another library on the rows of a benchmark, each in an environment of its own.

``benchmarks.counterfactuals.peer_comparison`` starts them as ``PYTHON SCRIPT.py EXCHANGE.npz OUT.npz --method NAME``;
this also works by hand. Nothing here imports invjax, and the benchmarks import only ``exchange``.
"""
