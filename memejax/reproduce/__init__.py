"""A paper's table -> runs -> one table: `python -m memejax.reproduce table1`.

__main__.py  the command line
command.py   does what is asked for: plan, runs, files; `reproduce` for your own code
rows.py      the paper's rows: which config, which arm, what was published
runs.py      rows and seeds -> runs, a folder each, shared between rows and tables
features.py  the demo's stored features, of a run's encoders
figures.py   finished runs -> the table's figures
"""
