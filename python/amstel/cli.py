"""The command line: `amstel info | demo | bench | gcn`. Bad input: status 2 and one line on stderr."""

from __future__ import annotations

import argparse
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


def _progress(total: int, unit: str) -> tuple[Callable[[int], None], Callable[[], None]]:
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


def _info(args: argparse.Namespace) -> int:
    from amstel import info

    return info.main()


def _demo(args: argparse.Namespace) -> int:
    from amstel import demo

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
    from amstel.data import Planetoid, block_model
    from amstel.recipes import gcn

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


def _parser() -> argparse.ArgumentParser:
    from amstel.recipes.gcn import MODELS, STOPPING

    parser = _Parser(prog="amstel", description="Fused PyTorch operators for GCN, VideoLSTM, SINT and RIM.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
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
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
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
