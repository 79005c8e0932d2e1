"""Memes on disk, memes built in, plans and the pipeline. Nothing here imports jax."""
