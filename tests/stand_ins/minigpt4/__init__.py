"""Emotion-LLaMA-v2's package, as far as stored tokens are read."""
