"""The model: features and a prompt in, an answer out."""
