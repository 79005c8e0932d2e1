"""Files to features and probabilities, beside PyTorch; see __main__.py."""
