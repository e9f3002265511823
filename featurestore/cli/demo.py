"""`fstore demo DIR`: write the demo dataset."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def demo(directory: Path) -> None:
    """Write a small dataset in the shape of MER2023, made in code, into the new or empty folder DIR.

    A dozen clips with sound, faces, wavs, MER-Factory files, labels, a manifest and a settings file.
    """
    # Drawing needs numpy, which `fstore --help` does not load.
    from featurestore.demo import CLIPS, write_dataset
    from featurestore.demo.dataset import ENCODER

    if directory.exists() and any(directory.iterdir()):
        raise click.UsageError(f"{directory} is not empty; name a folder that is, or that is not there yet")
    with click.progressbar(length=len(CLIPS), label="Drawing clips", file=click.get_text_stream("stderr")) as bar:
        write_dataset(directory, lambda done: bar.update(1))
    key = f"mer2023/frame/{ENCODER}/emotion_peak/8"
    where = f"--manifest {directory}/manifest.csv --store {directory}/features"
    click.echo(f"{directory}: {len(CLIPS)} clips. Next:")
    click.echo(f"  fstore extract {key} {where} --weights random:0")
    click.echo(f"  fstore verify {key} {where}")
