"""`fstore demo DIR`: write the demo dataset."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from featurestore.cli.options import GivenPath


@click.command()
@click.argument("directory", type=GivenPath(file_okay=False), metavar="DIR")
def demo(directory: Path) -> None:
    """Write a small dataset in the shape of MER2023, made in code, into the new or empty folder DIR.

    A dozen clips with sound, faces, wavs, MER-Factory files, labels, a manifest and a settings file.
    """
    # Drawing needs numpy, which `fstore --help` does not load.
    from featurestore.demo import CLIPS, write_dataset
    from featurestore.demo.dataset import ENCODER

    if directory.exists() and any(directory.iterdir()):
        raise click.UsageError(f"{directory} is not empty; name a folder that is, or that is not there yet")
    click.echo(f"Drawing {len(CLIPS)} clips; this takes some seconds.", err=True)
    write_dataset(directory)
    key = f"mer2023/frame/{ENCODER}/emotion_peak/8"
    manifest, store = shlex.quote(str(directory / "manifest.csv")), shlex.quote(str(directory / "features"))
    where = f"--manifest {manifest} --store {store}"
    click.echo(f"{directory}: {len(CLIPS)} clips. Next:")
    click.echo(f"  fstore extract {key} {where} --weights random:0")
    click.echo(f"  fstore verify {key} {where}")
