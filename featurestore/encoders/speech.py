"""Speech encoders as AffectGPT calls them: HUBERT_LARGE, WAVLM_LARGE, DATA2VEC_BASE.

Its numbers depend on four things that are easily lost (all tested):

* each window has its own mean removed first (a side effect of its mel transform, on the same memory);
* Wav2Vec2FeatureExtractor then gets all windows as one item, so they are normalised jointly;
* the mean of the last four hidden states is taken, where the last one is after the final LayerNorm.
  transformers 5 gives `hidden_states[-1]` before it, so `last_hidden_state` takes its place;
* then the mean over time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.frozen import form_of
from featurestore.encoders.hugging_face import HuggingFaceNetwork
from featurestore.encoders.weights import Published
from featurestore.errors import ValuesError

if TYPE_CHECKING:
    import torch

WINDOW = 32000  # samples: 2 s at 16 kHz
# Windows of one sample cannot be given to the network in parts from outside, as they are normalised jointly.
AT_ONCE = 16

_ALL: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "layer_norm_eps": 1e-5, "feat_extract_activation": "gelu", "conv_bias": False,
    "conv_dim": [512] * 7, "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "num_conv_pos_embedding_groups": 16,
}  # fmt: skip
_WAV2VEC2 = {**_ALL, "feat_extract_norm": "group", "num_conv_pos_embeddings": 128, "do_stable_layer_norm": False}
_LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip


class SpeechEncoder(HuggingFaceNetwork):
    """(windows, 32000) float32 of one sample, 16 kHz mono -> (windows, hidden_size)."""

    modality: ClassVar[str] = "audio"
    unused: ClassVar[tuple[str, ...]] = ("masked_spec_embed", "lm_head.", "classifier.", "projector.")

    def prepared_by(self, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "normalised": bool(preprocessor.get("do_normalize", True)),
            "output": "mean over time of the mean of the last 4 layers, the last after the final norm",
        }

    def off(self) -> dict[str, Any]:
        return {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # masks, and the vector that they put in

    def check(self, batch: Any) -> NDArray[np.float32]:
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or batch.shape[1:] != (WINDOW,):
            raise ValuesError(f"{self.name} encodes float32 windows of shape (n, {WINDOW}), not {form_of(batch)}")
        return batch

    def run(self, network: torch.nn.Module, batch: NDArray[np.float32], like: torch.Tensor) -> torch.Tensor:
        import torch  # loaded with the network

        windows = torch.from_numpy(normalise(batch, self.describe()["normalised"])).to(like.device, like.dtype)
        rows = []
        # For each layer transformers draws whether training would drop it, also where nothing is dropped.
        with torch.random.fork_rng(devices=[]):
            for part in torch.split(windows, AT_ONCE):
                output = network(part, output_hidden_states=True)
                layers = torch.stack([*output.hidden_states[-4:-1], output.last_hidden_state])
                rows.append(layers.mean(dim=0).mean(dim=1))
        return torch.cat(rows)


def normalise(windows: NDArray[np.float32], jointly: bool) -> NDArray[np.float32]:
    """Each window without its mean; then, if `jointly`, all of them together to mean 0 and variance 1.

    1e-7 is added to the variance, as Wav2Vec2FeatureExtractor does.  windows: (n, samples); returns the same shape.
    """
    windows = windows - windows.mean(axis=1, keepdims=True)
    if jointly:
        windows = (windows - windows.mean()) / np.sqrt(windows.var() + 1e-7)
    return windows.astype(np.float32, copy=False)


class HubertLarge(SpeechEncoder):
    """AffectGPT's acoustic encoder: TencentGameMate/chinese-hubert-large, -> (windows, 1024)."""

    model: ClassVar[str] = "HubertModel"
    config_class: ClassVar[str] = "HubertConfig"
    model_types: ClassVar[tuple[str, ...]] = ("hubert",)
    prefix: ClassVar[str] = "hubert."
    defaults: ClassVar[Mapping[str, Any]] = {**_WAV2VEC2, "feat_proj_layer_norm": True, "conv_pos_batch_norm": False}
    published_architecture: ClassVar[Mapping[str, Any]] = {**_LARGE, "conv_bias": True}

    @property
    def name(self) -> str:
        return "HUBERT_LARGE"

    @property
    def published(self) -> Published | None:
        return Published(
            "TencentGameMate/chinese-hubert-large", ("config.json", "preprocessor_config.json", "pytorch_model.bin")
        )


class WavlmLarge(SpeechEncoder):
    """microsoft/wavlm-large, -> (windows, 1024)."""

    model: ClassVar[str] = "WavLMModel"
    config_class: ClassVar[str] = "WavLMConfig"
    model_types: ClassVar[tuple[str, ...]] = ("wavlm",)
    prefix: ClassVar[str] = "wavlm."
    defaults: ClassVar[Mapping[str, Any]] = {**_WAV2VEC2, "num_buckets": 320, "max_bucket_distance": 800}
    published_architecture: ClassVar[Mapping[str, Any]] = _LARGE

    @property
    def name(self) -> str:
        return "WAVLM_LARGE"

    @property
    def published(self) -> Published | None:
        return Published("microsoft/wavlm-large", ("config.json", "preprocessor_config.json", "pytorch_model.bin"))


class Data2vecBase(SpeechEncoder):
    """facebook/data2vec-audio-base-960h without its CTC head, -> (windows, 768)."""

    model: ClassVar[str] = "Data2VecAudioModel"
    config_class: ClassVar[str] = "Data2VecAudioConfig"
    model_types: ClassVar[tuple[str, ...]] = ("data2vec-audio",)
    prefix: ClassVar[str] = "data2vec_audio."
    defaults: ClassVar[Mapping[str, Any]] = {**_ALL, "conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5}
    published_architecture: ClassVar[Mapping[str, Any]] = {}

    @property
    def name(self) -> str:
        return "DATA2VEC_BASE"

    @property
    def published(self) -> Published | None:
        return Published("facebook/data2vec-audio-base-960h")
