"""Reproducing a paper's table: `python -m memejax.reproduce table1`.

__main__.py  the command line
command.py   plan, runs and files of a table; `reproduce` for your own code
rows.py      the paper's rows: config, arm and published figures
runs.py      rows and seeds -> runs, one folder each, shared between rows and tables
features.py  the demo's stored features, from a run's encoders
figures.py   finished runs -> the table's figures
"""
