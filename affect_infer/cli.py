"""affect-infer: the command line.  Heavy modules are imported by the command that needs them.

Answers and reports go to stdout, progress and notes to stderr.  Exit codes: 0 done, 1 a part failed or was skipped,
2 usage or settings, 130 interrupted, 143 terminated, 129 hung up (answers so far stay).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import featurestore
from affect_infer.cli_options import PATH, pairs, settings_from, settings_options
from featurestore.cli.options import GivenPath
from featurestore.cli.output import echo_json
from featurestore.cli.program import Program, debug_option


class AffectInfer(Program):
    """Its errors and ends as those of `fstore`; an answer is kept when it is there."""

    kept = "what was answered stays, and the same command goes on"
    misuse = ("ConfigError", "InvalidNameError", "RecipeError")
    extra = "infer"


@click.group(cls=AffectInfer, params=[debug_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(featurestore.__version__, prog_name="affect-infer")
def main() -> None:
    """Multimodal emotion inference: frames from the store; face, audio and AU live."""


@main.command(short_help="Answer a question about every sample.")
@settings_options
@click.option(
    "--greedy/--sample", default=None, help="The likeliest token, or one drawn by the seed.  [default: drawn]"
)
@click.option("--seed", type=int, help="Of what is drawn; each sample's draw depends on its id too.  [default: 0]")
@click.option("--batch-size", metavar="N|auto", default="auto", help="Samples generated together.  [default: auto]")
@click.option(
    "--output", type=PATH, metavar="DIR", help="Of the results.  [default: the file's base_root, else output]"
)
@click.option("--on-missing", type=click.Choice(["error", "skip", "mask"]), help="[default: error]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def run(
    ctx: click.Context, /, greedy: bool | None, seed: int | None, batch_size: str, as_json: bool, **given: Any
) -> None:
    """Answer a question about every sample; run again to go on after an interruption."""
    from affect_infer.run.hybrid import run as run_all

    if batch_size != "auto":
        if not batch_size.isdecimal() or not int(batch_size):
            raise click.BadParameter(f"--batch-size {batch_size} is neither a number nor auto")
        given["batch_size"] = int(batch_size)
    settings = settings_from(generation={"greedy": greedy, "seed": seed}, **given)
    report = run_all(settings, tell=lambda line: click.echo(line, err=True))
    echo_json(report.as_dict()) if as_json else click.echo(report.text())
    if report.skipped:
        ctx.exit(1)


@main.command(short_help="Show what the model is given for one sample.")
@click.argument("sample")
@settings_options
@click.option("--tensors", type=PATH, metavar="FILE.npz", help="Write features and projected tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(sample: str, tensors: Path | None, as_json: bool, **given: Any) -> None:
    """Show what the model would be given for one SAMPLE, without generating.

    A SAMPLE that begins with "-" goes after all options and "--":

    \b
    affect-infer inspect --cfg-path run.yaml -- -6aNcD3dYJg_00
    """
    from affect_infer.run.inspection import inspect_sample

    found = inspect_sample(settings_from(**given), sample)
    if tensors is not None:
        found.write(tensors)
    echo_json(found.as_dict()) if as_json else click.echo(found.text())


@main.command(short_help="Compare stored frame features with live ones.")
@settings_options
@click.option("--samples", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Compare so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def parity(ctx: click.Context, /, samples: int, as_json: bool, **given: Any) -> None:
    """Compare stored frame features with live ones; the certificate says whether one run may mix them."""
    from dataclasses import asdict

    from affect_infer.run.parity import certify

    certificates = certify(settings_from(**given), samples)
    for certificate, path in certificates:
        if as_json:
            echo_json({**asdict(certificate), "file": str(path)})
        else:
            may = "may be mixed" if certificate.may_mix else "may NOT be mixed"
            click.echo(f"{certificate.key}: {certificate.stored[:8]} and {certificate.computed[:8]} {may}")
            click.echo(f"  {certificate.verdict()}\n  {path}")
    if not all(certificate.may_mix for certificate, _ in certificates):
        ctx.exit(1)


@main.command(short_help="Score results as MER-UniBench does.")
@click.argument("results", type=GivenPath(exists=True), nargs=-1, required=True)
@click.option(
    "--wheel-root", type=PATH, required=True, metavar="DIR", help="Folder of wheel1.xlsx and the other tables."
)
@click.option(
    "--manifest", "manifests", multiple=True, callback=pairs, metavar="DATASET=FILE", help="Labels of a dataset."
)
@click.option("--root", type=PATH, metavar="DIR", help="Of the datasets' files, for labels that no manifest gives.")
@click.option("--labels", type=click.Choice(["rules", "llm"]), default="rules", show_default=True,
              help="How answers become labels; llm reads what `affect-infer labels` wrote.")  # fmt: skip
@click.option("--partial", is_flag=True, help="Score what is answered, and say how much is not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(results: Sequence[Path], wheel_root: Path, manifests: dict[str, str], root: Path | None, labels: str,
             partial: bool, as_json: bool) -> None:  # fmt: skip
    """Score RESULTS (.jsonl files, or a folder of them) as MER-UniBench does."""
    from affect_infer.scores.evaluation import evaluate as evaluate_all
    from featurestore.untrusted_io.files import expand_path

    files = {name: expand_path(file) for name, file in manifests.items()}
    table = evaluate_all(results, wheel_root, files, root, labels, partial)
    echo_json(table.as_dict()) if as_json else click.echo(table.markdown())


@main.command(short_help="Turn answers into labels with a language model.")
@click.argument("results", type=GivenPath(exists=True), nargs=-1, required=True)
@click.option("--llm", metavar="DIR|HUB_ID", help="[default: Qwen/Qwen2.5-7B-Instruct, cached]")
@click.option("--device", metavar="NAME", help="[default: a GPU where there is one]")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]),
              help="Of the language model.  [default: float16 on a GPU, float32 on a CPU]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
def labels(results: Sequence[Path], llm: str | None, device: str | None, dtype: str | None, batch_size: int) -> None:
    """Turn the answers of RESULTS into lists of labels with a language model; goes on where it stopped."""
    from affect_infer.scores.labelling import label_results

    for path in label_results(results, llm, device, batch_size, dtype):
        click.echo(str(path))


@main.command("tiny-model", short_help="Write a tiny RANDOM model to try it with.")
@click.argument("directory", type=PATH)
@click.option("--visual", type=int, default=384, show_default=True, help="Features per frame or face (ViT-S-32: 384).")
def tiny_model(directory: Path, visual: int) -> None:
    """Write a tiny language model, checkpoint and encoders with RANDOM weights into DIRECTORY, to try the program."""
    from affect_infer.model.tiny import write_tiny_model
    from affect_infer.model.tiny_encoders import write_tiny_encoders

    llm, checkpoint = write_tiny_model(directory, visual=visual)
    click.echo(f"--ckpt {checkpoint} --llm {llm}")
    for name, folder in write_tiny_encoders(directory).items():
        click.echo(f"--weights {name}={folder}")
