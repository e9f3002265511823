"""Scores of result files: labels out of answers, emotion wheels, metrics."""
