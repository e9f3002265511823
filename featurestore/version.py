"""The version of the package, and that of the format: what writes segments need not import the front door."""

from __future__ import annotations

__version__ = "0.1.0"

FORMAT = 2  # on the disk, `docs/format.md`; the reader, which is copied alone, has it too


def require_format(found: object, where: object, needs: object = ()) -> None:
    """Raise FormatVersionError for what another version wrote, saying what to do; ValueError for no number.

    `needs` are names of what a reader must understand: this one understands none.
    """
    from featurestore.errors import FormatVersionError  # `import featurestore` takes twice as long with it

    if type(found) is not int or not isinstance(needs, list | tuple):
        raise ValueError(f"{where} has no number of a format")
    if found < FORMAT:
        raise FormatVersionError(
            f"{where} is format {found}, and {FORMAT} is read", advice="import the old store into a new one"
        )
    if found > FORMAT or needs:
        what = f"format {found}" if found > FORMAT else f"written with {', '.join(map(str, needs))}"
        raise FormatVersionError(f"{where} is {what}, this version reads up to {FORMAT}", advice="upgrade featurestore")
