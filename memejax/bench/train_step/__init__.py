"""Training steps against PyTorch with transformers' modules; see `__main__`."""
