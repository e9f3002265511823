"""What a process may have set in torch, and what holds instead while a network of ours, or an encoder, runs.

Features are those of their recipe whatever the caller is doing: a miss is often computed in the middle of a training
step, inside autocast, or in a notebook that has set a default dtype.  Number of threads, flushing of denormals and
deterministic cuDNN are left as they are: they change last bits only, and are a matter of the machine.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple


@contextmanager
def undisturbed() -> Iterator[None]:
    """float32 is float32 and every default is torch's own, whatever the caller has set; no gradients are recorded.

    Off: autocast on every device, TF32 and bfloat16 products, default dtype and device, inference mode, errors of
    deterministic algorithms, the search for the fastest convolution, limits on the kernels of attention.  Settings
    of the thread are set aside for this thread, those of the process for all of it: until the last one leaves.
    May be entered several times and by several threads, and be used as a decorator.
    """
    if sys.modules.get("torch") is None:  # nobody can have set anything, and what needs no torch is not to load it
        yield
        return
    import torch  # waits where another thread is still importing it

    with ExitStack() as stack:
        for kind in _kinds():
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_without_modes())
        stack.enter_context(torch.inference_mode(False))  # weights that are read in it could not be used outside
        stack.enter_context(torch.no_grad())
        stack.enter_context(_plain_process)
        yield


@contextmanager
def _without_modes() -> Iterator[None]:
    """Without what looks at every call of torch: a default device is such a mode.

    Another device on top would not do: where there is any mode, some layers take another path, with other last bits.
    """
    import torch.overrides  # loaded by the caller

    overrides: Any = torch.overrides
    modes = [overrides._pop_mode() for _ in range(overrides._len_torch_function_stack())]
    try:
        yield
    finally:
        for mode in reversed(modes):
            overrides._push_mode(mode)


@cache
def _kinds() -> tuple[str, ...]:
    import torch  # loaded by the caller

    supported: Any = torch._C._autocast_supported_devices()
    return tuple(supported)


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], None]
    plain: Any


@cache
def _settings() -> tuple[_Setting, ...]:
    import torch  # loaded by the caller

    backends: Any = torch.backends

    def attribute(of: Any, name: str, plain: Any) -> _Setting:
        return _Setting(lambda: getattr(of, name), lambda value: setattr(of, name, value), plain)

    def kernel(name: str) -> _Setting:
        cuda = backends.cuda  # where the flags of all devices are
        return _Setting(getattr(cuda, f"{name}_sdp_enabled"), getattr(cuda, f"enable_{name}_sdp"), True)

    # Otherwise convolutions on a GPU would use TF32 (10 bits of mantissa) unasked, and products of matrices
    # whatever `torch.set_float32_matmul_precision` was last told.
    products = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    halves = (
        ("allow_fp16_reduced_precision_reduction", True),
        ("allow_bf16_reduced_precision_reduction", True),
        ("allow_fp16_accumulation", False),
    )
    return (
        _Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        _Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
        *(attribute(place, "fp32_precision", "ieee") for place in products),
        *(attribute(backends.cuda.matmul, name, plain) for name, plain in halves),
        attribute(backends.cudnn, "benchmark", False),
        *map(kernel, ("flash", "mem_efficient", "math", "cudnn")),
        _Setting(
            backends.cuda.fp16_bf16_reduction_math_sdp_allowed, backends.cuda.allow_fp16_bf16_reduction_math_sdp, False
        ),
    )


class _PlainProcess:
    """The settings of the process as torch has them; as they were, when the last of all threads has left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._changed: list[tuple[_Setting, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                found = [(setting, setting.read()) for setting in _settings()]
                self._changed = [(setting, value) for setting, value in found if value != setting.plain]
                for setting, _ in self._changed:
                    setting.write(setting.plain)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for setting, value in reversed(self._changed):
                    setting.write(value)


_plain_process = _PlainProcess()
