"""Benchmarks, run from a checkout: ``python -m benchmarks NAME`` prints a table and writes JSON.

Times are taken after ``block_until_ready``, compilation apart. On a busy machine trust the ratios, whose two sides are
measured in one run, and the evaluations, which are exact.
"""
