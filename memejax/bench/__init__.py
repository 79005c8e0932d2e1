"""Benchmarks: one program each, run as `python -m memejax.bench.NAME`."""
