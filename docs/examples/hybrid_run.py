"""Ask a language model about each clip, with frames from the store and faces, sound and action units live.

The model is a tiny one with random weights, so its answers mean nothing; the steps are those of a real run, in which
only the paths differ: --ckpt is then AffectGPT's checkpoint, and --llm and --weights are left out.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

KEY = "mer2023/frame/ViT-S-32.none/emotion_peak/8"
TINY = Path("demo/tiny")


def run(*command: str) -> None:
    """One of our commands, as typed in an environment that is activated; what it prints is not shown."""
    print("$", *command[:2], "...", flush=True)
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def main() -> None:
    # Twelve short clips, drawn by code, with all that MER2023 has beside its videos.
    run("fstore", "demo", "demo")
    run("affect-infer", "tiny-model", str(TINY))

    # Frames of eight clips beforehand; the run makes those of the other four, and keeps them.
    Path("eight.txt").write_text("".join(f"sample_{number:08}\n" for number in range(1, 9)), encoding="utf-8")
    frames = ("--manifest", "demo/manifest.csv", "--store", "demo/features", "--weights", "random:0")
    run("fstore", "extract", KEY, *frames, "--ids-from", "eight.txt")

    # Stopped at any moment, the same command goes on where it was.
    model = ("--ckpt", str(TINY / "checkpoint.pth"), "--llm", str(TINY / "llm"))
    weights = f"ViT-S-32.none=random:0,HUBERT_LARGE={TINY / 'hubert_large'},CLIP_TEXT={TINY / 'clip_text'}"
    how = ("--greedy", "--max-new-tokens", "8", "--output", "results")
    run("affect-infer", "run", "--cfg-path", "demo/mer2023.yaml", *model, "--weights", weights, *how)

    (results,) = Path("results").rglob("*.jsonl")
    _, *lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())  # the first says what was run
    print(len(lines), "answers in", results)
    print("frames from:", dict(Counter(line["inputs"]["frame"]["answer"] for line in lines)))
    first = lines[0]
    print(first["id"], "was shown its frames", first["inputs"]["frame"]["frame_indices"])


if __name__ == "__main__":
    main()
