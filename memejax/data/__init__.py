"""Memes on disk, built-in memes, plans and the pipeline. Nothing here imports jax."""
