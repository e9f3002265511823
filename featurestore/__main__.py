"""`python -m featurestore` is `fstore`, where scripts of the environment are not on the path."""

from __future__ import annotations

from featurestore.cli import main

if __name__ == "__main__":
    main()
