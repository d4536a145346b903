"""Folders of graphs with parts that are damaged or lead nowhere: an error names them, none is taken for absent."""

import json
import re

import numpy as np
import pytest

import amstel
from amstel.data import GraphFolder, Planetoid, TUDataset, convert_graph
from tests.test_graph_folder import ogb
from tests.test_planetoid import folder as planetoid  # noqa: F401
from tests.test_tu import FILES, write

HOW = pytest.mark.parametrize("how", ["link", "loop", "folder"])


def _nothing(path, how):
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    else:
        path.symlink_to("moved" if how == "link" else path.name)


@HOW
@pytest.mark.parametrize("part", [*FILES, "graph_attributes"])
def test_a_part_of_a_tu_data_set_that_leads_nowhere(tmp_path, part, how):
    """Without its node labels the data set had fewer features, and nothing said so."""
    write(tmp_path)
    path = tmp_path / f"TINY_{part}.txt"
    _nothing(path, how)
    with pytest.raises(OSError, match=rf"TINY_{part}\.txt") as error:
        TUDataset(tmp_path, "TINY")
    if how == "link":
        assert str(error.value) == f"{path} is a link to nothing; it should be a file"


@HOW
@pytest.mark.parametrize("form", ["csv.gz", "npz"])
def test_a_part_in_the_layout_of_ogb_that_leads_nowhere(tmp_path, form, how):
    """The graph had no features then."""
    place = tmp_path / "tiny"
    ogb(place, form)
    part = "raw/node-feat.csv.gz" if form == "csv.gz" else "raw/data.npz"
    for name in [part] if form == "npz" else [part, "raw/num-node-list.csv.gz", "split/time/valid.csv.gz"]:
        kept = (place / name).read_bytes() if (place / name).exists() else None
        _nothing(place / name, how)
        with pytest.raises(OSError, match=re.escape(name)):
            convert_graph(place, tmp_path / "out")
        (place / name).rmdir() if how == "folder" else (place / name).unlink()
        if kept is not None:
            (place / name).write_bytes(kept)
    assert convert_graph(place, tmp_path / "out")["features"] == 5


@HOW
def test_ally_of_nell_that_leads_nowhere(planetoid, how):  # noqa: F811
    for path in planetoid.glob("ind.tiny.*"):
        path.rename(planetoid / path.name.replace("tiny", "nell.0.001"))
    _nothing(planetoid / "ind.nell.0.001.ally", how)
    with pytest.raises(OSError, match=r"ind\.nell\.0\.001\.ally"):
        Planetoid(planetoid, "nell")


@pytest.mark.parametrize("lost", ["x_crow", "x_col", "x_value"])
def test_sparse_features_lack_none_of_their_parts(tmp_path, lost):
    """Without x_crow the folder was read as one without features; without another it was a KeyError."""
    data = amstel.data.block_model(nodes=400)
    data.features = data.features.to_sparse_csr()
    folder = GraphFolder.write(data, tmp_path / "blocks")
    facts = json.loads((folder / "graph.json").read_text())
    del facts["arrays"][lost]
    (folder / "graph.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"x_crow, x_col, x_value, or none of them; {lost} is missing"):
        GraphFolder(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("graph.json", "[" * 100_000, "is not the graph.json of a graph"),
        ("graph.json", ("(2,", [400]), "is not the graph.json of a graph"),
        ("y.npy", np.array(["a"] * 400), "blocks is damaged: "),
        ("y.npy", np.zeros(400, ">i8"), "blocks is damaged: "),
    ],
)
def test_what_torch_or_numpy_cannot_read_is_named(tmp_path, name, content, said):
    folder = GraphFolder.write(amstel.data.block_model(nodes=400), tmp_path / "blocks")
    facts = json.loads((folder / "graph.json").read_text())
    if isinstance(content, np.ndarray):
        np.save(folder / name, content)
        content = content.dtype.str, [400]
    if isinstance(content, tuple):
        facts["arrays"]["y"] = content
        content = json.dumps(facts)
    (folder / "graph.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        GraphFolder(folder)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 10**30])
def test_integers_beyond_64_bits_are_said_as_they_are(tmp_path, number):
    """They were said as 2^63 - 1, without the line."""
    place = tmp_path / "tiny"
    ogb(place, "csv")
    (place / "raw" / "edge.csv").write_text(f"0,1\n1,{number}\n")
    with pytest.raises(ValueError, match=rf"edge\.csv, line 2: must hold 2 integers >= 0, got '1,{number}'"):
        convert_graph(place, tmp_path / "out")
