"""`amstel demo`: what this library does, on data that it carries, in under two minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def _pictures(folder: Path, stem: str, animated: bool, *arguments: object, **options: object) -> None:
    """An SVG always, a PNG or GIF too where matplotlib and pillow are installed."""
    from amstel import draw

    written = [draw.svg(folder / f"{stem}.svg", *arguments, **options)]  # type: ignore[arg-type]
    try:
        file = folder / f"{stem}.{'gif' if animated else 'png'}"
        written.append(draw.raster(file, *arguments, **options))  # type: ignore[arg-type]
    except ImportError as error:
        print(f"  ({error})")
    print("  wrote " + ", ".join(str(file) for file in written))


def gcn(folder: Path) -> None:
    """Node classification on a made-up citation graph."""
    from amstel.apps.graphs.train import study
    from amstel.data import block_model
    from amstel.nn import GCN

    data = block_model()
    assert data.features is not None
    print(f"GCN: {data.num_nodes} documents, {data.graph.num_edges // 2} citations, {len(data.train)} labels")
    alone = study(data, "mlp", seeds=range(1)).mean
    torch.manual_seed(0)
    model = GCN(data.num_features, 16, data.num_classes)
    first, second = model.parameters()
    groups: list[dict] = [{"params": [first], "weight_decay": 5e-4}, {"params": [second]}]
    adam = torch.optim.Adam(groups, lr=0.01)
    for _ in range(200):
        adam.zero_grad()
        logits = model(data.features, data.graph)
        nn.functional.cross_entropy(logits[data.train], data.labels[data.train]).backward()
        adam.step()
    with torch.no_grad():
        logits = model.eval()(data.features, data.graph)
    accuracy = (logits.argmax(1) == data.labels)[data.test].float().mean().item()
    print(
        f"  accuracy {accuracy:.1%} on the {len(data.test)} test documents; "
        f"from their words alone {alone:.1%}"
    )
    centred = logits - logits.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    _pictures(
        folder,
        "gcn_embedding",
        False,
        (centred @ axes.T)[None],
        data.labels,
        captions=[f"GCN outputs, principal components; test accuracy {accuracy:.1%}"],
    )


def karate(folder: Path) -> None:
    """The slides' example, animated."""
    from amstel.apps.graphs.karate import train

    data, embeddings, accuracy = train()
    print("karate club: a GCN with two outputs a member learns from one label a group")
    before, after = accuracy[0], accuracy[-1]
    print(f"  accuracy on the other {len(data.test)} members: {before:.0%} untrained, {after:.0%} trained")
    every = list(range(0, len(embeddings), 6))
    _pictures(
        folder,
        "karate",
        True,
        embeddings[every],
        data.labels,
        edges=data.graph.to_edge_index()[0],
        captions=[f"epoch {t}, accuracy {accuracy[t]:.0%}" for t in every],
        marked=data.train.tolist(),
        rescale=True,
    )


def video_lstm(folder: Path) -> None:
    """Which way a shape goes among others, and where the network looked to find out."""
    from amstel.apps.video.evaluate import evaluate
    from amstel.apps.video.predict import predict
    from amstel.apps.video.settings import Settings
    from amstel.apps.video.train import train
    from amstel.data import generate_moving_shapes

    classes = ["right", "up", "left", "down"]
    task: dict = {"frames": 6, "size": 32, "distractors": 2, "speed": (2.0, 4.0), "noise": 0.02}
    clips, new = generate_moving_shapes(400, **task), generate_moving_shapes(100, seed=1, **task)
    print(
        f"ConvALSTM: {len(clips)} clips of a coloured shape among grey ones; the class is where it is going"
    )
    common: dict = {
        "frame_size": 32,
        "channels": (16, 32),
        "hidden": 16,
        "learning_rate": 3e-3,
        "dropout": 0.2,
        "shift": 2,
    }
    settings = Settings.from_scratch(model="convalstm", steps=6, epochs=26, **common)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # frames this small gain nothing from a second one
    network = train(clips, classes, settings).network
    still = train(
        clips, classes, Settings.from_scratch(model="convlstm", steps=1, epochs=6, **common)
    ).network
    accuracy, alone = evaluate(network, new).accuracy, evaluate(still, new, segments=1).accuracy
    torch.set_num_threads(threads)
    print(f"  accuracy {accuracy:.1%} on {len(new)} new clips; from one frame {alone:.1%}, by chance 25.0%")
    try:
        from amstel import video

        pictures = []
        for clip in new[:4]:
            found = predict(network, clip.frames)
            best = int(found.probabilities.argmax())
            caption = f"{classes[best]}, {found.probabilities[best]:.0%}"
            pictures.append(video.annotate(clip.frames, found.attention, found.boxes, clip.boxes, caption))
        file = video.write(folder / "video_lstm.gif", torch.cat(pictures, 2), fps=4)
        print(f"  wrote {file}")
    except ImportError as error:
        print(f"  (no video_lstm.gif: {error})")


def sint(folder: Path) -> None:
    """One object followed from its first box, through a time in which it is hidden."""
    from amstel.tracking import SINTTracker, evaluate, generate_sequence

    frames, truth, hidden = generate_sequence()
    count = int(hidden.sum())
    print(
        f"SINT: an object in {len(frames)} frames, known by its box in the first; a pillar hides it in {count}"
    )
    try:
        tracker = SINTTracker(redetect=True)
    except ImportError as error:
        print(f"  ({error})")
        return
    images = frames.numpy()
    tracker.init(images[0], truth[0])
    boxes, captions = [truth[0]], ["frame 1"]
    for number, image in enumerate(images[1:], start=2):
        boxes.append(torch.from_numpy(tracker.update(image)))
        state = (
            "lost: the whole frame is searched" if tracker.lost else f"similarity {tracker.similarity:.2f}"
        )
        captions.append(f"frame {number}   {state}")
    found = torch.stack(boxes)
    iou = evaluate(found, truth).iou
    print(f"  mean IoU {iou[~hidden].mean():.2f} where it is visible", end="; ")
    back = int(hidden.nonzero().max()) + 1
    again = (iou[back:] > 0.5).nonzero()
    print(f"found {int(again[0])} frames after it is back" if len(again) else "it is not found again")
    try:
        from amstel import video
        from amstel.tracking.frames import VideoWriter

        found, truth = (b.view(-1, 2, 2).cumsum(1).view(-1, 4) for b in (found, truth))
        pictures = video.annotate(frames, None, found, truth, captions, scale=1)
        with VideoWriter(folder / "sint.gif") as writer:
            for picture in pictures.numpy():
                writer.write(picture)
        print(f"  wrote {writer.path}")
    except ImportError as error:
        print(f"  (no sint.gif: {error})")


def rim(folder: Path) -> None:
    """A photograph denoised, one enlarged, and an image reconstructed from a quarter of its k-space."""
    print("RIM: an image is refined step by step, from what was measured of it and a recurrent network")
    try:
        from amstel.apps.restoration import demo as demonstration

        for example in demonstration.examples():
            print("  " + example.said())
            try:
                print(f"  wrote {example.draw(folder / f'rim_{example.name}.png')}")
            except ImportError as error:
                print(f"  ({error})")
    except ImportError as error:
        print(f"  ({error})")


#: One function a family; each prints what it found and writes its pictures to the folder.
DEMOS: list[Callable[[Path], None]] = [gcn, karate, video_lstm, sint, rim]


def run(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for demo in DEMOS:
        demo(folder)
