"""Location: the folder that a store is, and which one was meant where there is none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from featurestore.errors import ConfigError, did_you_mean

# Also as `Path` writes it, with one slash.  A folder of such a name can be given as ./s3:/...
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def local(root: str | os.PathLike[str]) -> Path:
    """The root as a path; a relative one is fixed to the working directory of now.  ConfigError for a URL."""
    url = _URL.fullmatch(os.fspath(root))
    if url is not None:
        scheme, rest = url.groups()
        way = f"give the path, /{rest}" if scheme == "file" else "mount or copy what is behind it, and give the path"
        raise ConfigError(f"{scheme}://{rest} is a URL, and a store is a folder of this machine: {way}")
    return Path(os.path.abspath(root))


def missing(root: Path) -> str:
    """What to say of a root that is not there: with the store beside it that is called nearly so, if there is one."""
    try:
        beside = [each.name for each in os.scandir(root.parent) if os.path.isdir(f"{each.path}/data")]
    except OSError:
        beside = []
    hint = did_you_mean(root.name, beside)
    return f"there is no store {root}" + (f"; {hint}" if hint else "")
