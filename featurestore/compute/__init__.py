"""Compute: from samples to features, one or very many at a time."""
