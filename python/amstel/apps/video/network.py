"""The network of action recognition: a backbone and one of the models of `amstel.nn` for each stream; its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel import nn as models
from amstel.apps.training import check_finite
from amstel.apps.video.settings import Settings

MODELS: dict[str, Any] = {
    "lstm": models.LSTMClassifier,
    "alstm": models.ALSTM,
    "convlstm": models.ConvLSTMClassifier,
    "convalstm": models.ConvALSTM,
    "videolstm": models.VideoLSTM,
    "cnn": models.FrameClassifier,
}


#: Frames that a frozen backbone reads at once: VGG-16 then takes about 1 GB for its largest maps.
AT_ONCE = 32


class _Stream(nn.Module):
    """A backbone and a recurrent model; VideoLSTM on RGB has a second backbone for its motion."""

    def __init__(self, settings: Settings, stream: str, num_classes: int):
        super().__init__()
        s = settings
        self.stream, self.frozen = stream, s.backbone == "vgg16"
        self.backbone = _backbone(s, 3 if stream == "rgb" else 2)
        self.takes_motion = s.model == "videolstm"
        self.motion = _backbone(s, 2) if self.takes_motion and stream == "rgb" else None
        side = s.frame_size // self.backbone.stride
        options: dict[str, Any] = {
            "feature_size": side,
            "attention_channels": s.attention,
            "head_channels": s.head,
            "dropout": s.dropout,
        }
        if s.model not in ("cnn", "lstm", "convlstm"):
            options["initial_state"] = s.initial_state
        self.model = MODELS[s.model](self.backbone.out_channels, s.hidden, num_classes, **options)

    def features(self, pixels: Tensor, of_motion: bool) -> Tensor:
        """Frames or motion [..., C, S, S] -> maps or vectors, by the backbone that reads them."""
        backbone = self.backbone if self.motion is None or not of_motion else self.motion
        if not self.frozen:
            return backbone(pixels if of_motion else pixels - 0.5)
        with torch.no_grad():
            flat = pixels.flatten(0, -4)
            # In parts: the maps of all frames of a batch would take tens of gigabytes.
            parts = [backbone(_flow_pixels(p) if of_motion else p) for p in flat.split(AT_ONCE)]
            return torch.cat(parts).unflatten(0, pixels.shape[:-3])

    def forward(
        self, frames: Tensor, motion: Tensor | None, lengths: Tensor | None, features: bool
    ) -> models.video_lstm.Returns:
        of_motion = self.stream == "flow"
        given = motion if of_motion else frames
        assert given is not None
        x = given if features else self.features(given, of_motion)
        if not self.takes_motion:
            return self.model(x, lengths)
        if self.motion is None:
            return self.model(x, x, lengths)
        assert motion is not None
        return self.model(x, motion if features else self.features(motion, True), lengths)


def _backbone(settings: Settings, channels: int) -> Any:
    if settings.backbone == "vgg16":
        return models.VGG16Features(layer=settings.layer).requires_grad_(False)
    return models.SmallBackbone(channels, settings.channels)


def _flow_pixels(motion: Tensor) -> Tensor:
    """Flow as the three channels of a picture, for a backbone trained on pictures."""
    both = (motion / 10 + 0.5).clamp(0, 1)
    return torch.cat([both, (motion.norm(dim=-3, keepdim=True) / 5).clamp(0, 1)], -3)


class Network(nn.Module):
    """Maps frames to class scores and attention for every stream; carries its settings and class names.

    Shapes: frames [T, N, 3, S, S] in [0, 1]; motion [T, N, 2, S, S] or None where no part of it uses motion; lengths
    None or [N]. With features=True frames and motion are what the backbones make of them instead, as `amstel video
    extract` wrote it. Returns {stream: (logits [T, N, K], attention [T, N, h, w] or None)}.
    """

    def __init__(self, settings: Settings, classes: Sequence[str]):
        super().__init__()
        self.settings, self.classes = settings, list(classes)
        if len(self.classes) < 2:
            _check.fail("classes", "two or more names", self.classes)
        self.streams = nn.ModuleDict({s: _Stream(settings, s, len(classes)) for s in settings.streams})

    def forward(
        self,
        frames: Tensor,
        motion: Tensor | None,
        lengths: Tensor | None = None,
        features: bool = False,
    ) -> dict[str, models.video_lstm.Returns]:
        return {name: stream(frames, motion, lengths, features) for name, stream in self.streams.items()}

    def load_backbone(self, state_dict: dict[str, Tensor]) -> None:
        """Load torchvision's VGG-16 weights into the backbones of all streams."""
        for module in self.modules():
            if isinstance(module, models.VGG16Features):
                module.load_state_dict(state_dict)


def read(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """The network in a checkpoint as it was trained, and everything else in the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not state["format"].startswith("amstel video_lstm"):
            raise ValueError("another format")
        settings = Settings(**{**state["settings"], "channels": tuple(state["settings"]["channels"])})
        network = Network(settings, state["classes"])
        network.load_state_dict(state["network"])
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel video train`") from error
    check_finite(path, network.state_dict())
    return network, state


def load(path: str | Path) -> Network:
    """The network in a checkpoint, in evaluation mode."""
    return read(path)[0].eval()
