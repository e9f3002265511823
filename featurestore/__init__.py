"""Features of videos, computed once, read for ever, and never wrong without saying so."""

__version__ = "0.1.0"
