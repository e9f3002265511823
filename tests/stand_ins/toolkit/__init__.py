"""MERTools' `toolkit`, as far as features are read."""
