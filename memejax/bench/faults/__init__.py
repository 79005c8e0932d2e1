"""The benchmark `python -m memejax.bench.faults`: faults injected on purpose.

report.py       cases, and their table
runs.py         the small runs that the faults are injected into
kills.py, checkpoints.py, values.py, inputs.py, starts.py   a part or two each
"""
