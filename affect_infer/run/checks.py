"""Checks of what will be read: files, headers, descriptions, frame counts; on decode workers, decoding no frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from featurestore.compute.preparation import PREPARATIONS, Preparation
from featurestore.errors import MediaError, SampleError
from featurestore.features import Failure
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from featurestore.compute.extractor import Extractor
    from featurestore.sample import Sample


def check_media(
    key: FeatureKey | None, ids: Sequence[str], extractor: Extractor, samples: Mapping[str, Sample]
) -> dict[str, Failure]:
    """What is wrong with the media of these samples: {id: why}, empty where all is well.

    Video and face files are indexed, wavs are read, descriptions are parsed, and the sampler chooses its rows.
    Raises ConfigError, in one message, where the frame counts of descriptions and videos disagree.
    """
    if key is None:
        from affect_infer.run.inputs import Text

        texts = Text(samples).take(ids)
        return {id: outcome for id, outcome in texts.items() if isinstance(outcome, Failure)}
    found: dict[str, Failure] = {}
    present = [id for id in ids if _is_there(key, samples[id], found)]
    if not present:
        return found
    extractor.probe(key, present)
    encoder, sampling = extractor.encoder(key), extractor.sampling(key)
    size = encoder.size if encoder.modality == "frame" else (0, 0)
    waiting: dict[Future[Any], tuple[str, Preparation]] = {}
    for id in present:
        steps = PREPARATIONS[key.modality](samples[id], sampling, size, extractor.allow_corrupt)
        try:
            job = next(steps)
        except StopIteration:
            continue
        except SampleError as error:
            found[id] = Failure.of(error)
            continue
        waiting[extractor.pool().submit(*job)] = (id, steps)
        if len(waiting) >= 4 * extractor.workers:
            _finish(waiting, found)
    while waiting:
        _finish(waiting, found)
    return {id: found[id] for id in ids if id in found}


def _finish(waiting: dict[Future[Any], tuple[str, Preparation]], found: dict[str, Failure]) -> None:
    """Hand one result to its preparation, which chooses rows; stop where it would begin to decode."""
    future = next(iter(waiting))
    id, steps = waiting.pop(future)
    try:
        steps.send(future.result())
    except StopIteration:
        pass
    except SampleError as error:
        found[id] = Failure.of(error)
    finally:
        steps.close()


def _is_there(key: FeatureKey, sample: Sample, found: dict[str, Failure]) -> bool:
    """Whether the file is named and exists: the commonest problem, told without starting a worker."""
    column = {"frame": "video", "au": "au_json"}.get(key.modality, key.modality)
    path = getattr(sample, column)
    if path is not None and path.is_file():
        return True
    what = f"{path} does not exist" if path is not None else f"no {column} is given"
    how = {
        "au_json": "run MER-Factory on its video (python main.py VIDEO_DIR OUTPUT_DIR --type AU)",
        "face": "run OpenFace on its video and pack the crops into one .npy",
        "audio": "extract the audio (ffmpeg -i VIDEO -ac 1 -ar 16000 FILE.wav)",
        "video": "copy or download it",
    }[column]
    found[sample.id] = Failure.of(MediaError(f"sample {sample.id!r}: {what}; {how}"))
    return False
