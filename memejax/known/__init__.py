"""The command `python -m memejax.known`: a list of known memes; see `known_memes`."""
