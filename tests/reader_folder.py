"""The files that the examples of the documentation read: tiny, in the layouts of the real data sets."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from amstel import video
from amstel.media import images


def write(root: Path) -> None:
    (root / "photographs").mkdir()
    images.write(root / "photographs" / "one.png", np.zeros((321, 481, 3), np.uint8))
    frames, boxes = _moving_square()
    video.write(root / "clip.mp4", torch.from_numpy(frames[:8]))
    _tracking(root, frames, boxes)
    _actions(root, frames)
    _graphs(root)
    _mri(root)


def _moving_square(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [T, 72, 96, 3], and boxes x, y, w, h from 0: a textured square that goes one pixel a frame to the right."""
    rng = np.random.default_rng(0)
    frames = np.full((count, 72, 96, 3), 90, np.uint8)
    square = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    boxes = np.array([[20 + t, 24, 20, 20] for t in range(count)])
    for frame, (x, y, w, h) in zip(frames, boxes, strict=True):
        frame[y : y + h, x : x + w] = square
    return frames, boxes


def _frames(folder: Path, frames: np.ndarray, name: str = "{:04d}.jpg") -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        images.write(folder / name.format(number), frame)


def _lines(file: Path, rows: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")  # type: ignore[attr-defined]


def _tracking(root: Path, frames: np.ndarray, boxes: np.ndarray) -> None:
    from_one = boxes + np.array([1, 1, 0, 0])
    _frames(root / "OTB100" / "Crossing" / "img", frames)
    _lines(root / "OTB100" / "Crossing" / "groundtruth_rect.txt", from_one)
    _frames(root / "OTB100" / "Jogging" / "img", frames[:3])
    for target in (1, 2):
        _lines(root / "OTB100" / "Jogging" / f"groundtruth_rect.{target}.txt", from_one[:3])
    (root / "OTB100.json").write_text(json.dumps({"Crossing": ["SV", "OCC"], "Jogging-1": ["OCC"]}))
    got = root / "GOT-10k" / "val" / "GOT-10k_Val_000001"
    _frames(got, frames[:3], "{:08d}.jpg")
    _lines(got / "groundtruth.txt", from_one[:3])
    _lines(got / "absence.label", [[0], [0], [1]])
    _frames(root / "vot2018" / "bag", frames[:2], "{:08d}.jpg")
    _lines(root / "vot2018" / "bag" / "groundtruth.txt", [[40, 20, 60, 40, 40, 60, 20, 40], [30, 30, 20, 20]])
    alov, name = root / "ALOV300++", "01-Light_video00001"
    _frames(alov / "imagedata++" / "01-Light" / name, frames[:6], "{:08d}.jpg")
    file = alov / "alov300++_rectangleAnnotation_full" / "01-Light" / f"{name}.ann"
    file.parent.mkdir(parents=True)
    file.write_text("1 40 25 21 25 21 44 40 44\n6 45 25 26 25 26 44 45 44\n")


def _actions(root: Path, frames: np.ndarray) -> None:
    small = torch.from_numpy(frames[:4, 4:68, 8:72].copy())
    for label in ("bend", "wave"):
        (root / "weizmann4" / label).mkdir(parents=True)
        for person in ("daria", "ido"):
            video.write(root / "weizmann4" / label / f"{person}_{label}.png", small)
    (root / "moving_shapes" / "down").mkdir(parents=True)
    video.write(root / "moving_shapes" / "down" / "0.png", torch.zeros(32, 64, 64, 3, dtype=torch.uint8))
    for group in (1, 8):
        name = f"v_Diving_g{group:02d}_c01"
        _frames(root / "UCF-101" / "Diving" / name, frames[:2])
        part = "test" if group < 8 else "train"
        end = " 1" if part == "train" else ""
        _lines(root / "ucfTrainTestlist" / f"{part}list01.txt", [[f"Diving/{name}.avi{end}"]])
    _lines(root / "ucfTrainTestlist" / "classInd.txt", [["1 Diving"]])
    name = "Diving/v_Diving_g01_c01"
    _frames(root / "ucf101_clip" / name, frames[:3])
    tube = {"sf": 0, "ef": 2, "label": 0, "boxes_xywh": [[20, 24, 20, 20], [21, 24, 20, 20]]}
    (root / "ucf101_clip" / "boxes.json").write_text(
        json.dumps({name: {"numf": 3, "label": 0, "annotations": [tube]}})
    )
    _frames(root / "TH14_test_set_mp4" / "video_test_0000004", frames[:2])
    for action in ("Diving", "CliffDiving"):
        _lines(root / "annotation" / f"{action}_test.txt", [["video_test_0000004 12.1 14.0"]])
    (root / "tvl1_gpu").mkdir()
    for axis, value in (("x", 255), ("y", 0)):
        images.write(root / "tvl1_gpu" / f"flow_{axis}_0001.jpg", np.full((8, 8), value, np.uint8))


def _graphs(root: Path) -> None:
    tu = root / "data" / "MUTAG"
    for part, rows in {
        "A": [[1, 2], [2, 1], [3, 4], [4, 3]],
        "graph_indicator": [[1], [1], [2], [2], [2]],
        "graph_labels": [[-1], [1]],
        "node_labels": [[0], [1], [0], [2], [0]],
    }.items():
        _lines(tu / f"MUTAG_{part}.txt", rows)
    planetoid = root / "data" / "planetoid"
    planetoid.mkdir()
    one_hot, x = np.eye(2, dtype=np.int32), sp.csr_matrix(np.eye(4, 3, dtype=np.float32))
    parts = {
        "x": x[:2],
        "y": one_hot,
        "allx": x,
        "ally": one_hot[[0, 1, 0, 1]],
        "tx": x[:1],
        "ty": one_hot[:1],
        "graph": {0: [1, 2], 1: [0], 2: [0, 4], 3: [], 4: [2]},
    }
    for part, value in parts.items():
        (planetoid / f"ind.cora.{part}").write_bytes(pickle.dumps(value, protocol=2))
    _lines(planetoid / "ind.cora.test.index", [[4]])
    ogb = root / "ogbn_products"
    for file, text in {
        "raw/edge": "0,1\n1,2\n",
        "raw/num-node-list": "3\n",
        "raw/node-feat": "0.5,1\n1,0\n0,0\n",
        "raw/node-label": "0\n1\n0\n",
        "split/sales_ranking/train": "0\n",
        "split/sales_ranking/valid": "1\n",
        "split/sales_ranking/test": "2\n",
    }.items():
        place = ogb / f"{file}.csv.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(text.encode()))


def _mri(root: Path) -> None:
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(8, 16, 12)) + 1j * rng.normal(size=(8, 16, 12))).astype(np.complex64)
    np.save(root / "full_kspace.npy", kspace)
    half = kspace.copy()
    half[:, :, ::2] = 0
    np.save(root / "half_kspace.npy", half)
    # BART's: the first dimension varies fastest.
    (root / "maps.hdr").write_text("# Dimensions\n16 12 1 8\n")
    kspace.transpose(1, 2, 0)[:, :, None].ravel("F").tofile(root / "maps.cfl")
    np.save(root / "chest_train_100.npy", rng.random((2, 8, 8)))
