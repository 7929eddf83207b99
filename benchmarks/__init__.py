"""Benchmarks as programs: ``python -m benchmarks NAME`` prints a table and writes JSON.

Times are taken with ``block_until_ready``, compilation apart. On a busy machine trust the ratios, which are measured
side by side in one run, and the evaluations, which are exact.
"""
