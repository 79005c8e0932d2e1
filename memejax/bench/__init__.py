"""Benchmarks, one program each: `python -m memejax.bench.NAME`."""
