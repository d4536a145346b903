"""`amstel track evaluate`: the tracker on every sequence of a data set, and its scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import Force, Weights, folder_of, new, report
from amstel.cli._track import LAYOUTS, Origin, Plus, Preset, Redetect, app


@command(app, "evaluate", "eval", without=("seed",))
def evaluate(
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            parser=values.folder_there,
            help="folder with the sequences [default: $AMSTEL_DATA/tracking]",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="X",
            parser=values.choice(tuple(LAYOUTS)),
            help=f"{', '.join(LAYOUTS)} [default: otb]",
        ),
    ] = "otb",
    out: Annotated[
        Path,
        values.out("folder for the boxes [default: track_eval]"),
    ] = Path("track_eval"),
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="X",
            parser=values.choice(("otb", "got10k", "pysot")),
            help="otb, got10k, pysot [default: otb]",
        ),
    ] = "otb",
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            parser=values.writes(".png", ".svg", ".pdf"),
            help="write the success and precision plots",
        ),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            "--attributes",
            metavar="FILE",
            parser=values.file_there,
            help='score by attribute too: JSON as {"SEQUENCE": ["OCC", ...], ...}, or as pysot has it',
        ),
    ] = None,
    robustness: Annotated[
        str | None,
        typer.Option(
            "--robustness",
            metavar="X",
            parser=values.choice(("sre", "tre", "vot")),
            help="sre: 12 shifted or scaled first boxes; tre: 20 start frames; vot: runs from anchors, with EAO",
        ),
    ] = None,
    interval: Annotated[
        Any,
        typer.Option(
            "--interval",
            metavar="LOW,HIGH",
            parser=values.interval,
            help="run lengths to average EAO over [default: 115,755]",
        ),
    ] = None,
    sequences: Annotated[
        str | None,
        typer.Option("--sequences", metavar="A,B", help="sequences to track [default: all]"),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", metavar="N", parser=values.positive, help="sequences to track in parallel [default: 1]"
        ),
    ] = 1,
    origin: Origin = 0,
    truth_origin: Annotated[
        int | None,
        typer.Option(
            "--truth-origin",
            metavar="N",
            parser=values.integer(0, 1),
            help="number of the first pixel in the data [default: that of --data]",
        ),
    ] = None,
    plus: Plus = False,
    redetect: Redetect = None,
    preset: Preset = None,
    weights: Weights = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Track every sequence of a data set, and score the tracks."""
    from amstel import _files, tracking
    from amstel import data as readers
    from amstel import weights as shipped
    from amstel.apps import ranks as processes
    from amstel.apps.tracking import evaluate, predict
    from amstel.data._folders import data_folder
    from amstel.nn.sint import WEIGHTS

    if interval is not None and robustness != "vot":
        raise ValueError("--interval is for --robustness vot")
    if truth_origin is not None and data == "alov":
        raise ValueError("--truth-origin is not for --data alov")
    numbered = {} if truth_origin is None else {"origin": truth_origin}
    root = data_folder(root, "tracking", LAYOUTS[data])
    known = getattr(readers, LAYOUTS[data])(root, **numbered)
    wanted = known.names if sequences is None else [name.strip() for name in sequences.split(",")]
    chosen, failures = evaluate.readable(known, wanted, robustness)
    evaluate.apart(chosen, out=out, plot=plot, json=None if common.json == values.STDOUT else common.json)
    own = evaluate.with_attributes(chosen, attributes) if attributes else {}
    bars = plot.with_name(f"{plot.stem}_attributes{plot.suffix}") if plot and attributes else None
    if bars:
        _files.distinct(bars, *filter(None, (attributes, common.json)), argument="plot")
    new([plot, bars], force)
    # A folder holds one tracker's boxes: another one must not take them for its own.
    digest = hashlib.sha256((weights or shipped.path(WEIGHTS)).read_bytes()).hexdigest()
    record = out / "tracker.json"
    with processes.group(common.device) as ranks:
        tracker = predict.tracker(weights, ranks.device, plus, redetect, preset)
        settings = {"plus": plus, "redetect": tracker.redetect, "weights": digest, "origin": origin}
        settings["settings"] = json.loads(json.dumps(dataclasses.asdict(tracker.settings)))
        there = [run.name for run in chosen if (out / f"{run.name}.txt").exists()]
        evaluate.same_tracker(record, settings, there)
        out.mkdir(parents=True, exist_ok=True)
        if ranks.first:
            _files.write_json(record, settings)
        total = len(ranks.share(range(len(chosen))))
        with common.progress(total if ranks.first else 0, "sequences") as update:
            result = evaluate.evaluate_dataset(
                tracker, chosen, out, protocol, update, ranks, failures, jobs, origin
            )
        if not ranks.first:
            return 0
    common.say(result.table())
    if there:
        common.say(
            f"{counted(len(there), 'sequence')} read from {out}; to track again, name another folder with --out"
        )
    failed = report(failures, lambda item: item if isinstance(item, str) else chosen[item].name)
    found: dict[str, Any] = {**json.loads(result.to_json()), **failed}
    if robustness == "vot" and result.sequences:
        runs = [run for run in chosen if run.name in result.sequences]
        overlap = evaluate.expected_overlap(runs, out, origin, interval)
        common.say(
            f"EAO {overlap.eao:.3f}, accuracy {overlap.accuracy:.3f}, robustness {overlap.robustness:.3f}; "
            f"{overlap.failures} of {counted(overlap.runs, 'run')} failed"
        )
        found["vot"] = {**dataclasses.asdict(overlap), "curve": overlap.curve.tolist()}
    groups = {}
    if any(
        own.get(name) for name in result.sequences
    ):  # none of those that have attributes may have succeeded
        groups = tracking.by_attribute(result, own)
        common.say("\n" + evaluate.attributes_table(groups))
    if attributes:
        found["attributes"] = evaluate.attributes_record(groups)
    common.write_json(found)
    called, title = "SINT+" if plus else "SINT", f"{protocol} protocol"
    if plot and not result.sequences:
        common.say(f"{plot} is not written: no sequence has scores")
        plot = None
    if plot:
        folder_of(plot)
        with _files.replacing(plot) as temporary:
            tracking.plot({called: result}, temporary, title)
    if bars and groups:
        tracking.plot_attributes({called: groups}, bars, title)
    wrote = [f"wrote {path}" for path in (plot, bars if groups else None) if path]
    common.say("\n".join([f"the boxes are in {out}", *wrote]))
    return 1 if failed else 0
