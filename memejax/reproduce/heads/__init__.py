"""The comparison of heads on stored features: one protocol for all of them.

protocol.py    trials: which memes train, choose and test; overlaps; the bootstrap
methods.py     the heads and the linear baselines, and the settings of their search
command.py     plan, measure, and write the table
"""
