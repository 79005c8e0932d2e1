"""Explanations beside what is truly there; see __main__.py."""
