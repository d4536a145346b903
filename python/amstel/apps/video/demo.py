"""The video part of `amstel demo`: which way a shape moves among others, and where the network looked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from amstel._words import counted
from amstel.apps.demo import Exhibit, Show
from amstel.apps.video.evaluate import evaluate
from amstel.apps.video.network import Network
from amstel.apps.video.predict import predict
from amstel.apps.video.settings import Settings
from amstel.apps.video.train import train
from amstel.data import generate_moving_shapes

CLASSES = ["right", "up", "left", "down"]
_TASK: dict = {"frames": 6, "size": 32, "distractors": 2, "speed": (2.0, 4.0), "noise": 0.02}


def learn(clips: Sequence, device: str, seed: int, progress: Callable[[int], None]) -> Network:
    """A network with soft attention, from scratch."""
    settings = Settings.from_scratch(
        model="convalstm",
        frame_size=32,
        steps=6,
        channels=(16, 32),
        hidden=16,
        dropout=0.2,
        shift=2,
        epochs=18,
        learning_rate=3e-3,
        seed=seed,
    )
    return train(clips, ["right", "up", "left", "down"], settings, device=device, progress=progress).network


def run(show: Show) -> None:
    clips, new = generate_moving_shapes(400, **_TASK), generate_moving_shapes(100, seed=1, **_TASK)
    show.say(
        f"  {counted(len(clips), 'clip')} to train on; the class is the direction in which the colored shape moves"
    )
    one = Settings.from_scratch(
        model="convlstm", frame_size=32, steps=1, channels=(16, 32), hidden=16, dropout=0.2, shift=2,
        epochs=6, learning_rate=3e-3, seed=show.seed,
    )  # fmt: skip
    with show.progress((18 + one.epochs) * len(clips), "clips") as update:
        network = learn(clips, show.device, show.seed, update)
        still = train(clips, CLASSES, one, device=show.device, progress=update).network
    accuracy, alone = evaluate(network, new).accuracy, evaluate(still, new, segments=1).accuracy
    show.figures |= {"accuracy": accuracy, "accuracy_from_one_frame": alone}
    show.say(
        f"  accuracy {accuracy:.1%} on {counted(len(new), 'new clip')}; {alone:.1%} from a single frame, 25.0% by chance"
    )
    shown = []
    with show.needs("video_lstm.gif"):
        from amstel.media.draw import annotate
        from amstel.media.writing import write

        pictures = []
        for clip in new[:4]:
            found = predict(network, clip.frames)
            best = int(found.probabilities.argmax())
            caption = f"{CLASSES[best]}, {found.probabilities[best]:.0%}"
            pictures.append(annotate(clip.frames, found.attention, found.boxes, clip.boxes, caption))
        shown.append(show.wrote(write(show.folder / "video_lstm.gif", torch.cat(pictures, 2), fps=4)))
    show.exhibits.append(
        Exhibit(
            "Which way does the colored shape move?",
            f"{accuracy:.1%}",
            f"accuracy on {counted(len(new), 'new clip')}; {alone:.1%} from a single frame, 25% by chance. "
            "Heat: attention. Blue: the box found from it. White: the true box, not used in training.",
            shown,
            [learn],
        )
    )
