"""Benchmarks of single parts, each one command: `python -m loadtest bench NAME`."""
