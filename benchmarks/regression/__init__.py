"""Two checkouts against each other: the guard that is run before and after a change.

``comparison`` is the benchmark. The other files are its workers: each is started as ``python FILE`` in a process of its
own, with one of the checkouts on PYTHONPATH. They use nothing but the public face of the library, with default
constants, so that they run in checkouts of any layout, and print one JSON object:

    {"where": the library's file, "measured": {name: cost}, "exact": {name: number}}
"""
