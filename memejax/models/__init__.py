"""Encoders, arms and heads: Linen modules, pure in `init` and `apply`."""
