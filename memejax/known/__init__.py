"""The command `python -m memejax.known`: known memes; see `data.known_memes`."""
