"""`affect-infer` with a stub for the language model, as a process of its own that may be sent signals."""

from __future__ import annotations

import time
from collections.abc import Sequence

import encoders_quick

from affect_infer.cli import main
from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.run import hybrid


class Slow:
    """A quarter of a second for each batch."""

    batch_size_limit: int | None = None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        time.sleep(0.25)
        return [Answer(request.id, 1) for request in requests]


if __name__ == "__main__":
    encoders_quick.register()
    hybrid.check_model_files = lambda *_: None
    hybrid.load_for = lambda settings, plans: (Slow(), [])
    main()
