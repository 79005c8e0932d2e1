"""The command `python -m memejax.decide`: a threshold by a rule; see `decisions`."""
