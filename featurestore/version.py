"""The version of the package, which segments record: what writes them need not import the front door for it."""

__version__ = "0.1.0"
