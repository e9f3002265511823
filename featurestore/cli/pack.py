"""`fstore pack`: a feature set as one Zarr group, for an archive and for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.options import GivenPath, json_option, read_key, stored_option
from featurestore.cli.output import counted, echo_json, size_text
from featurestore.cli.progress import Bar


@click.command()
@click.argument("key", metavar="KEY[@RECIPE]")
@click.option("-o", "--output", type=GivenPath(), required=True, metavar="DIR", help="Where to; not there yet.")
@stored_option
@json_option
def pack(key: str, output: Path, store: Path, as_json: bool) -> None:
    """Write all samples under KEY as one Zarr v3 group.

    \b
    fstore pack mer2023/frame/CLIP_VIT_LARGE/uniform/8 -o uniform.zarr
    fstore pack mer2023/frame/CLIP_VIT_LARGE/uniform/8@9756228b -o uniform.zip

    It is compressed and has checksums, and zarr-python, xarray and tensorstore open it: `values` with the
    coordinates id, frame_index, timestamp_s and provenance. DIR appears whole or not at all; one that ends
    in .zip becomes one file.
    """
    from featurestore.packs import pack as write
    from featurestore.store import FeatureStore

    parsed, prefix = read_key(key, store)
    opened = FeatureStore(store, read_only=True)
    samples = opened.info(parsed, fingerprint=prefix).samples
    with Bar(samples, str(parsed)) as bar:
        packed = write(opened, parsed, output, fingerprint=prefix, progress=bar)
    if as_json:
        echo_json(packed.as_json())
    else:
        where = f"{packed.key}@{packed.fingerprint[:8]}"
        click.echo(f"{counted(packed.samples, 'sample')} of {where} in {output}, {size_text(packed.bytes)}.")
