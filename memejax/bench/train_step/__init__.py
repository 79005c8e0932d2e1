"""Training steps, beside PyTorch with transformers' modules; see `__main__`."""
