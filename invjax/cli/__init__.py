"""The command line: ``invjax demo``, ``invjax attack``, ``invjax explain``."""
