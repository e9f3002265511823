"""AffectGPT's package, as far as features that were extracted before are read."""
