"""Other libraries beside ours: an interpreter that has them, a process that answers, and turns on the same machine.

``environments`` and ``worker`` run here. The other modules run in the peer's interpreter, as scripts that find each
other because they lie in one folder; they import neither invjax nor ``benchmarks``.
"""
