"""The command line: `amstel info | demo | bench | gcn | videolstm | track | restore`. Bad input: status 2 and one line on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is in --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _progress(total: int | None, unit: str) -> tuple[Callable[[int], None], Callable[[], None]]:
    """`update(n)` and `close()` of a progress bar; silent where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return (lambda n: None), (lambda: None)
    bar = tqdm(total=total, unit=unit, unit_scale=True, leave=False, file=sys.stderr, disable=None)
    return bar.update, bar.close


def _file(text: str) -> Path:
    """A file to write, in a folder that exists: better said before an hour of training than after."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(
            f"cannot write {text}: {path.parent} is not a folder, or it is one itself"
        )
    return path


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "integer >= 1"  # argparse: "invalid integer >= 1 value: '0'"


def _device(text: str) -> str:
    """A device that is there, as torch names it."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise argparse.ArgumentTypeError(f"torch has no device {text} here") from None
    return text


def _info(args: argparse.Namespace) -> int:
    from amstel import info

    return info.main()


def _demo(args: argparse.Namespace) -> int:
    from amstel.apps import demo

    demo.run(args.output)
    return 0


def _bench(args: argparse.Namespace) -> int:
    from amstel import bench

    print(f"{args.nodes} nodes, mean degree {args.degree:g}, float32, {torch.get_num_threads()} threads; ms")
    rows = bench.spmm_rows(args.nodes, args.degree, args.features, args.repeats)
    heads = f"{'operation':10s} {'pass':19s} {'features':>8s} {'amstel':>9s}"
    print(f"{heads} {'torch.sparse.mm':>16s} {'ratio':>6s}")
    for row in rows:
        ratio = row["torch.sparse.mm"] / row["amstel"]
        print(
            f"{row['operation']:10s} {row['pass']:19s} {row['features']:8d} {row['amstel']:9.3f} "
            f"{row['torch.sparse.mm']:16.3f} {ratio:5.1f}x"
        )
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")
    return 0


def _gcn(args: argparse.Namespace) -> int:
    from amstel.apps.graphs import train as gcn
    from amstel.data import Planetoid, block_model

    if args.plot:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise ImportError('--plot needs matplotlib: pip install "amstel[cli]"') from None
    data = block_model() if args.dataset == "block-model" else Planetoid(args.root, args.dataset)
    given = {
        name: value
        for name in ("epochs", "early_stopping", "hidden", "dropout", "weight_decay", "learning_rate")
        if (value := getattr(args, name)) is not None
    }
    settings = gcn.Settings.for_data(data.name, **given)
    model = "cheb2" if args.model == "cheb" else args.model
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    update, close = _progress(args.seeds * settings.epochs, " epochs")
    try:
        result = gcn.study(data, model, seeds, settings, progress=update)
    finally:
        close()
    print(
        f"{result.dataset} {result.model}: test accuracy {100 * result.mean:.2f} ± {100 * result.std:.2f} % "
        f"over {args.seeds} seeds, early stopping {settings.early_stopping}, {result.seconds:.1f} s"
    )
    if args.json:
        args.json.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    if args.plot:
        _plot(args.plot, result)
    return 0


def _plot(path: Path, result: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    percent = [100 * a for a in result.accuracy]
    axes.hist(percent, bins=min(20, max(5, len(percent) // 5)), color="#0072B2", edgecolor="white")
    axes.axvline(
        100 * result.mean, color="#D55E00", label=f"mean {100 * result.mean:.2f} ± {100 * result.std:.2f}"
    )
    axes.set(xlabel="test accuracy, %", ylabel="seeds", title=f"{result.dataset}, {result.model}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    figure.savefig(path, dpi=120)


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() not in (".gif", ".mp4"):
        raise argparse.ArgumentTypeError(f"{text} must end in .gif or .mp4")
    return _file(text)


def _videolstm_train(args: argparse.Namespace) -> int:
    import os

    from amstel.apps.video import train as video_lstm
    from amstel.data import ClipFolder

    clips = ClipFolder(args.root)
    given = {
        name: value for name in _TRAINING if name != "epochs" and (value := getattr(args, name)) is not None
    }
    record = args.out / "training.json"
    if args.resume:
        if given or args.backbone or args.hold_out is not None:
            raise ValueError("--resume goes on with the settings of the checkpoint: give none but --epochs")
        settings = video_lstm.load(args.out / video_lstm.CHECKPOINT).settings
        held = json.loads(record.read_text())["held_out"]
        missing = sorted(set(held) - set(clips.names))
        if missing:
            raise ValueError(f"{args.root} lacks {missing[0]}, which was held out when the training began")
        if args.epochs:
            settings = dataclasses.replace(settings, epochs=args.epochs)
    else:
        given |= {"epochs": args.epochs} if args.epochs else {}
        if args.backbone == "vgg16":
            settings = video_lstm.Settings(**{"backbone": "vgg16", "frame_size": 224, **given})
        else:
            settings = video_lstm.Settings.from_scratch(**given)
        fraction = 0.2 if args.hold_out is None else args.hold_out
        held = [clips.names[i] for i in video_lstm.split(clips.labels, fraction, settings.seed)[1]]
    test = [i for i, name in enumerate(clips.names) if name in set(held)]
    train = [i for i in range(len(clips)) if i not in set(test)]
    weights = None
    if settings.backbone == "vgg16" and not args.resume:
        if args.weights is None:
            raise ValueError("--backbone vgg16 needs --weights FILE, torchvision's vgg16 state_dict")
        weights = torch.load(args.weights, map_location="cpu", weights_only=True)
    # Under torchrun every process takes its share of each batch.
    grouped = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if grouped:
        torch.distributed.init_process_group()
    first = not grouped or torch.distributed.get_rank() == 0
    if first:
        args.out.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"held_out": held}) + "\n")
    update, close = _progress(settings.epochs * len(train) if first else 0, " clips")
    try:
        result = video_lstm.train(
            video_lstm.Subset(clips, train),
            clips.classes,
            settings,
            out=args.out,
            resume=args.resume,
            backbone_weights=weights,
            device=args.device,
            progress=update if first else None,
        )
    finally:
        close()
    if grouped:
        torch.distributed.destroy_process_group()
    if not first:
        return 0
    last = result.history[-1]
    print(
        f"{settings.model} ({settings.stream}) on {len(train)} clips of {len(clips.classes)} classes, "
        f"{len(result.history)} epochs: loss {last['loss']:.3f}, training accuracy {100 * last['accuracy']:.1f} %"
    )
    found: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "history": result.history,
        "held_out": held,
    }
    if test:
        evaluation = video_lstm.evaluate(result.network, video_lstm.Subset(clips, test))
        found["held_out_accuracy"] = evaluation.accuracy
        print(f"accuracy on {len(test)} clips that were held out: {100 * evaluation.accuracy:.1f} %")
    record.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {args.out / video_lstm.CHECKPOINT} and {record}")
    return 0


def _videolstm_predict(args: argparse.Namespace) -> int:
    from amstel import video
    from amstel.apps.video import train as video_lstm

    network = video_lstm.load(args.checkpoint).to(args.device)
    frames = video.read(args.video)
    found = video_lstm.predict(network, frames)
    order = found.probabilities.argsort(descending=True).tolist()
    width = max(map(len, network.classes))
    for k in order:
        print(f"{network.classes[k]:{width}s} {100 * found.probabilities[k]:5.1f} %")
    best = order[0]
    caption = f"{network.classes[best]}  {100 * found.probabilities[best]:.0f} %"
    pictures = video.annotate(frames, found.attention, found.boxes, caption=caption)
    file = args.output or _picture(f"{args.video.stem}_{network.settings.model}.gif")
    print(f"wrote {video.write(file, pictures)}")
    return 0


def _videolstm_study(args: argparse.Namespace) -> int:
    from amstel.apps.video import studies as video_studies

    found = video_studies.STUDIES[args.study](args.root)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


#: Options of `videolstm train` that are settings of the recipe, with their types.
_TRAINING: dict[str, Callable[[str], Any]] = {
    "stream": str,
    "motion": str,
    "frame_size": _positive,
    "hidden": _positive,
    "steps": _positive,
    "stride": _positive,
    "epochs": _positive,
    "batch": _positive,
    "optimizer": str,
    "learning_rate": float,
    "dropout": float,
    "shift": int,
    "brightness": float,
    "flip": bool,
    "model": str,
    "initial_state": str,
    "seed": int,
}


def _parser() -> argparse.ArgumentParser:
    from amstel import cli_restore, cli_track
    from amstel.apps.graphs.train import MODELS, STOPPING
    from amstel.apps.video import studies as video_studies
    from amstel.apps.video import train as video_lstm

    parser = _Parser(prog="amstel", description="Fused PyTorch operators for GCN, VideoLSTM, SINT and RIM.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help: str, among: Any = None
    ) -> argparse.ArgumentParser:
        sub = (among or commands).add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument(
            "--threads", type=_positive, metavar="N", help="CPU threads (default: torch's choice)"
        )
        return sub

    command("info", _info, "versions, instruction set, build and libraries of this installation")

    demo = command("demo", _demo, "train on data that comes along, print what it reached, write pictures")
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("amstel_demo"),
        metavar="DIR",
        help="folder of the pictures (default: amstel_demo)",
    )

    bench = command("bench", _bench, "this library beside PyTorch on this machine")
    bench.add_argument("--nodes", type=_positive, default=20000, metavar="N", help="(default: 20000)")
    bench.add_argument(
        "--degree", type=float, default=10.0, metavar="D", help="mean number of neighbours (default: 10)"
    )
    bench.add_argument(
        "--features",
        type=_positive,
        nargs="+",
        default=[16, 64, 256],
        metavar="F",
        help="widths (default: 16 64 256)",
    )
    bench.add_argument("--repeats", type=_positive, default=10, metavar="N", help="(default: 10)")
    bench.add_argument("--json", type=_file, metavar="FILE", help="write the table")

    gcn = command("gcn", _gcn, "Kipf and Welling's node classification, all seeds of a study together")
    gcn.add_argument(
        "--dataset", required=True, help="cora, citeseer, pubmed, nell, or block-model, which needs no file"
    )
    gcn.add_argument(
        "--root", type=Path, metavar="DIR", help="folder of the ind.* files (default: $AMSTEL_DATA/planetoid)"
    )
    gcn.add_argument(
        "--model",
        choices=[*MODELS, "cheb"],
        default="gcn",
        metavar="M",
        help=f"one of {', '.join(MODELS)} (default: gcn); cheb is cheb2",
    )
    gcn.add_argument(
        "--seeds", type=_positive, default=100, metavar="N", help="how many seeds (default: 100)"
    )
    gcn.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first of them (default: 0)")
    gcn.add_argument(
        "--early-stopping",
        choices=STOPPING,
        default="none",
        help="stop on the validation cost (kipf, as his code) or cross-entropy (loss); default: none",
    )
    for name, kind in (
        ("epochs", int),
        ("hidden", int),
        ("dropout", float),
        ("weight-decay", float),
        ("learning-rate", float),
    ):
        gcn.add_argument(f"--{name}", type=kind, metavar="X", help="(default: the paper's)")
    gcn.add_argument("--json", type=_file, metavar="FILE", help="write accuracies and settings")
    gcn.add_argument("--plot", type=_file, metavar="FILE", help="write a histogram of the accuracies")

    help = "action recognition, and where it happens: train on clips, predict on a video"
    videos = commands.add_parser("videolstm", help=help, description=help).add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_Parser
    )
    train = command("train", _videolstm_train, "train on a folder of clips, one subfolder a class", videos)
    train.add_argument("root", type=Path, metavar="ROOT", help="clips: videos, folders of frames, png strips")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    train.add_argument(
        "--backbone",
        choices=["small", "vgg16"],
        help="small: trained from scratch, with the defaults below (default); vgg16: frozen, the paper's settings",
    )
    train.add_argument("--weights", type=Path, metavar="FILE", help="torchvision's state_dict, for vgg16")
    train.add_argument(
        "--hold-out",
        type=float,
        metavar="SHARE",
        help="share of the clips of every class to test on (default: 0.2)",
    )
    choices = {
        "model": list(video_lstm.MODELS),
        "stream": video_lstm.STREAMS,
        "motion": video_lstm.MOTIONS,
        "optimizer": ("rmsprop", "adam"),
        "initial_state": ("first", "mean", "zeros"),
    }
    default = video_lstm.Settings.from_scratch()
    for name, convert in _TRAINING.items():
        option = f"--{name.replace('_', '-')}"
        if convert is bool:
            train.add_argument(option, action="store_true", default=None, help="classes look alike mirrored")
        else:
            train.add_argument(
                option,
                type=convert,
                choices=choices.get(name),
                metavar="X",
                help=_explained(name, choices, default),
            )
    predict = command("predict", _videolstm_predict, "classes, attention and box of one video", videos)
    predict.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint.pt of a training")
    predict.add_argument("video", type=Path, metavar="VIDEO", help="a video, a folder of frames, a png strip")
    predict.add_argument(
        "-o", "--output", type=_picture, metavar="FILE", help=".gif or .mp4 (default: VIDEO_model.gif, here)"
    )
    for sub in (train, predict):
        sub.add_argument(
            "--device", type=_device, default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)"
        )
    study = command(
        "study", _videolstm_study, "the experiments whose results are in benchmarks/results", videos
    )
    study.add_argument(
        "study", choices=list(video_studies.STUDIES), metavar="NAME", help=", ".join(video_studies.STUDIES)
    )
    study.add_argument(
        "--root", type=Path, metavar="DIR", help="folder of the real clips (default: $AMSTEL_DATA/video)"
    )
    study.add_argument("--json", type=_file, metavar="FILE", help="write settings and results")

    cli_track.add(command)
    cli_restore.add(command)
    return parser


def _explained(name: str, choices: dict[str, Any], settings: Any) -> str:
    said = f"one of {', '.join(choices[name])} " if name in choices else ""
    return f"{said}(default: {getattr(settings, name)})"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Commands of their own, beside `track VIDEO` and `restore INPUT`.
    if arguments[:1] in (["track"], ["restore"]) and arguments[1:2] in (["train"], ["eval"]):
        arguments[:2] = [" ".join(arguments[:2])]
    args = _parser().parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"amstel {args.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
