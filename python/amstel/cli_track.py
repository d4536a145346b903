"""`amstel track VIDEO`, `amstel track train` and `amstel track eval`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from amstel.cli import _device, _file, _positive, _progress

if TYPE_CHECKING:
    from amstel.tracking import SINTTracker

#: Readers of sequences, by the name of their layout.
LAYOUTS = {"otb": "OTB", "got10k": "GOT10k", "vot": "VOT", "alov": "ALOV"}
#: What the frames of a folder are shown at, in frames a second.
RATE = 25.0


def _box(text: str) -> list[float]:
    numbers = [float(number) for number in text.split(",")]
    if len(numbers) != 4:
        raise ValueError
    return numbers


_box.__name__ = "box x,y,w,h"  # argparse: "invalid box x,y,w,h value: '1,2'"


def _output(text: str) -> Path:
    if Path(text).suffix.lower() not in (".mp4", ".gif", ".txt"):
        raise argparse.ArgumentTypeError(f"{text} must end in .mp4, .gif or .txt")
    return _file(text)


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text} must end in .png, .svg or .pdf")
    return _file(text)


def _tracker(args: argparse.Namespace) -> SINTTracker:
    from amstel.apps.tracking import train as sint
    from amstel.nn import SINT
    from amstel.tracking import SINTTracker

    model = SINT.pretrained() if args.weights is None else sint.load(args.weights)
    return SINTTracker(model.to(args.device), plus=args.plus, redetect=args.redetect)


def _source(path: Path, box: list[float] | None) -> tuple[Any, list[float], torch.Tensor | None]:
    """Frames, the first box, and the true boxes where there are any."""
    from amstel.data import OTBSequence

    if (path / "img").is_dir():
        try:
            sequence = OTBSequence(path)
        except (ValueError, OSError):
            if box is None:
                raise
            return path / "img", box, None
        return sequence, box or sequence.ground_truth[0].tolist(), sequence.ground_truth
    if box is None and path.exists():
        raise ValueError(f"--box x,y,w,h is needed: {path} is no OTB sequence, which would have a first box")
    return path, box or [], None


def _track(args: argparse.Namespace) -> int:
    from amstel import tracking, video
    from amstel.tracking.frames import Frames, VideoWriter

    source, box, truth = _source(args.video, args.box)
    output = args.output or _output(f"{args.video.resolve().stem}_sint.mp4")
    kind = output.suffix.lower()
    frames, tracker = Frames(source), _tracker(args)
    rate = frames.rate or RATE
    boxes: list[np.ndarray] = []
    lost = 0

    def pictures() -> Iterable[np.ndarray]:
        """Tracks as it goes, and draws what it found."""
        nonlocal lost
        for number, frame in enumerate(frames):
            if number == 0:
                tracker.init(frame, box)
                boxes.append(np.asarray(box, dtype=np.float64))
            else:
                boxes.append(tracker.update(frame))
            update(1)
            lost += tracker.lost
            if kind == ".txt":
                continue
            found, true = (
                None if b is None else torch.as_tensor(b).view(1, 2, 2).cumsum(1).view(1, 4)
                for b in (boxes[-1], None if truth is None else truth[number])
            )
            caption = f"frame {number + 1}   similarity {tracker.similarity:.2f}" + "   lost" * tracker.lost
            yield video.annotate(torch.from_numpy(frame.copy())[None], None, found, true, caption)[0].numpy()

    update, close = _progress(frames.count, " frames")
    try:
        if kind == ".txt":
            for _ in pictures():
                pass
            tracking.write_boxes(output, np.stack(boxes))
        else:
            with VideoWriter(output, rate) as writer:
                for picture in pictures():
                    writer.write(picture)
    finally:
        close()
    said = f"{len(boxes)} frames" + (f", lost in {lost}" if args.redetect else "")
    if truth is not None:
        scores = tracking.evaluate(np.stack(boxes), truth)
        said += f"; AUC {scores.auc:.3f}, precision {scores.precision:.3f}, mean IoU {scores.mean_iou:.3f}"
    print(f"{said}\nwrote {output}")
    return 0


def _initial(given: str | None, settings: Any) -> Any:
    """What `train` begins from: the weights of a file, tried here so that an error names it."""
    from amstel.nn import SINT

    if given is None or given == "imagenet":
        return given
    if not Path(given).is_file():
        raise FileNotFoundError(f"the weights {given} do not exist")
    try:
        state = torch.load(given, map_location="cpu", weights_only=True)
        state = state["model"] if "model" in state else state
        SINT(settings.backbone, settings.output_size).load_state_dict(state)
    except Exception as error:
        raise ValueError(f"{given} does not hold weights for the backbone {settings.backbone}") from error
    return state


def _train(args: argparse.Namespace) -> int:
    from amstel import data
    from amstel.apps.tracking import train as sint

    given = {name: value for name in _TRAINING if (value := getattr(args, name)) is not None}
    if args.resume:
        if given.keys() - {"epochs"} or args.weights:
            raise ValueError("--resume goes on with the settings of the checkpoint: give none but --epochs")
        settings = dataclasses.replace(sint.read(args.out / sint.CHECKPOINT).settings, **given)
    else:
        settings = sint.Settings(**given)
    pairs: Any
    for root in args.root:
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist; it should be a folder of {args.data}")
    if args.data == "images":
        pairs = data.StillPairs(args.root)
    else:
        reader = getattr(data, LAYOUTS[args.data])
        pairs = data.SequencePairs([sequence for root in args.root for sequence in reader(root)])
    initial = _initial(args.weights, settings)
    # Under torchrun every process takes its share of each batch.
    grouped = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if grouped:
        torch.distributed.init_process_group()
    first = not grouped or torch.distributed.get_rank() == 0
    update, close = _progress(settings.epochs * len(pairs) if first else 0, " pairs")
    try:
        result = sint.train(
            pairs,
            settings,
            args.out,
            resume=args.resume,
            initial=initial,
            device=args.device,
            progress=update if first else None,
        )
    finally:
        close()
    if grouped:
        torch.distributed.destroy_process_group()
    if first:
        last = result.history[-1]
        print(
            f"SINT ({settings.backbone}) on {len(pairs)} pairs, {len(result.history)} epochs: loss {last['loss']:.3f}, "
            f"mean similarity {last['same']:.2f} of the target, {last['other']:.2f} of other boxes"
        )
        print(f"wrote {args.out / sint.CHECKPOINT}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from amstel import data, tracking, weights
    from amstel.nn.sint import WEIGHTS

    sequences = getattr(data, LAYOUTS[args.data])(args.root)
    # A folder holds one tracker's boxes: another one must not take them for its own.
    settings = {
        "plus": args.plus,
        "redetect": args.redetect,
        "weights": hashlib.sha256((args.weights or weights.path(WEIGHTS)).read_bytes()).hexdigest(),
    }
    record = args.out / "tracker.json"
    if record.is_file() and json.loads(record.read_text()) != settings:
        raise ValueError(f"{args.out} holds the boxes of another tracker, see {record}: give another --out")
    tracker = _tracker(args)
    args.out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings) + "\n")
    update, close = _progress(len(sequences), " sequences")
    try:
        result = tracking.evaluate_dataset(tracker.track, sequences, args.out, args.protocol, progress=update)
    finally:
        close()
    print(result.table())
    if args.json:
        args.json.write_text(result.to_json() + "\n")
    if args.plot:
        name = "SINT+" if args.plus else "SINT"
        tracking.plot({name: result}, args.plot, f"{args.protocol} protocol")
    return 0


#: Options of `track train` that are settings of the recipe, with their types.
_TRAINING: dict[str, Callable[[str], Any]] = {
    "backbone": str,
    "loss": str,
    "margin": float,
    "boxes": _positive,
    "mining": _positive,
    "optimizer": str,
    "learning_rate": float,
    "weight_decay": float,
    "epochs": _positive,
    "batch": _positive,
    "seed": int,
}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the three; `command(name, run, help)` makes a parser."""
    from amstel.apps.tracking import train as sint

    track = command("track", _track, "track an object in a video from its first box (SINT)")
    track.epilog = (
        "also: amstel track train, amstel track eval; a folder of one of these names is ./train, ./eval"
    )
    track.add_argument(
        "video", type=Path, metavar="VIDEO", help="a video, a folder of images, or an OTB sequence"
    )
    track.add_argument(
        "--box",
        type=_box,
        metavar="X,Y,W,H",
        help="the target in the first frame: top left corner, 0-based, and size in pixels (default: an OTB "
        "sequence's own)",
    )
    track.add_argument(
        "-o",
        "--output",
        type=_output,
        metavar="FILE",
        help=".mp4 or .gif with the boxes drawn, or .txt with a line x,y,w,h a frame (default: VIDEO_sint.mp4, here)",
    )
    evaluate = command("track eval", _evaluate, "track all sequences of a data set, and score the tracks")
    evaluate.add_argument(
        "--root", type=Path, metavar="DIR", help="folder of the sequences (default: $AMSTEL_DATA/tracking)"
    )
    evaluate.add_argument(
        "--data",
        choices=list(LAYOUTS),
        default="otb",
        metavar="X",
        help=f"one of {', '.join(LAYOUTS)} (default: otb)",
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path("track_eval"),
        metavar="DIR",
        help="folder of the boxes; sequences that are there already are not tracked again (default: track_eval)",
    )
    evaluate.add_argument(
        "--protocol",
        choices=["otb", "got10k", "pysot"],
        default="otb",
        metavar="X",
        help="one of otb, got10k, pysot (default: otb)",
    )
    evaluate.add_argument("--json", type=_file, metavar="FILE", help="write the table and the curves")
    evaluate.add_argument(
        "--plot", type=_picture, metavar="FILE", help="draw the success and precision plots"
    )
    for sub in (track, evaluate):
        sub.add_argument(
            "--plus", action="store_true", help="SINT+: candidates must agree with the optical flow"
        )
        sub.add_argument(
            "--redetect", action="store_true", help="search the whole frame where the similarity falls"
        )
        sub.add_argument(
            "--weights",
            type=Path,
            metavar="FILE",
            help="checkpoint of `track train` (default: the shipped weights)",
        )
    train = command("track train", _train, "train SINT's matching function on still images or sequences")
    train.add_argument("root", type=Path, nargs="+", metavar="ROOT", help="folders of images or of sequences")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    layouts = ["images", *LAYOUTS]
    train.add_argument(
        "--data",
        choices=layouts,
        default="images",
        metavar="X",
        help=f"what ROOT holds: {', '.join(layouts)} (default: images, of which pairs of frames are made)",
    )
    train.add_argument(
        "--weights",
        metavar="FILE",
        help="what to start from: a checkpoint or state_dict, torchvision's for vgg16, which needs it; or imagenet, as the "
        "shipped weights did (default: the shipped weights)",
    )
    choices = {"backbone": ["light", "vgg16"], "loss": ["ranking", "margin"], "optimizer": ["adam", "sgd"]}
    default = sint.Settings()
    for name, convert in _TRAINING.items():
        said = f"one of {', '.join(choices[name])} " if name in choices else ""
        train.add_argument(
            f"--{name.replace('_', '-')}",
            type=convert,
            choices=choices.get(name),
            metavar="X",
            help=f"{said}(default: {getattr(default, name)})",
        )
    for sub in (track, evaluate, train):
        sub.add_argument(
            "--device", type=_device, default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)"
        )
