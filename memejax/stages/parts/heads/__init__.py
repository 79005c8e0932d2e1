"""Heads on stored features: from a config and a feature store to a trained head.

kinds.py      the heads by name: their features, and how they are fitted
stored.py     a store's columns as data; extraction within a run
training.py   gradient descent for all seeds in one program
closed.py     heads that are fitted without a learning rate
serving.py    P(hateful) of pictures and captions by encoders and a head
"""
