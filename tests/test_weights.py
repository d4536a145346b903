"""amstel.weights: what each bundled file says, and files of one's own."""

import pytest
import torch

from amstel import weights

safetensors = pytest.importorskip("safetensors.torch")


@pytest.mark.parametrize("name", weights.names())
def test_every_file_says_what_it_is(name):
    said = weights.metadata(name)
    assert said["format"].startswith("amstel ") and said["seed"].isdecimal() and said["recipe"]
    assert said["license"].startswith("BSD-3-Clause")
    assert weights.path(name).with_suffix(".md").is_file()


def test_tensors_that_share_memory_are_saved(tmp_path):
    table = torch.randn(3, 4)
    tied = {"encoder": table, "decoder": table, "turned": table.T, "row": table[1]}
    weights.save(tmp_path / "tied.safetensors", tied, {"seed": "0"})
    found = safetensors.load_file(tmp_path / "tied.safetensors")
    assert found.keys() == tied.keys() and all(torch.equal(found[name], tied[name]) for name in tied)


def test_bad_input(tmp_path):
    file, state = tmp_path / "own.safetensors", {"weight": torch.eye(2)}
    with pytest.raises(
        TypeError, match=r"`state` must be a state_dict, tensors by name, got float32 \[2, 2\]"
    ):
        weights.save(file, torch.eye(2), {})
    with pytest.raises(TypeError, match=r"`state\['weight'\]` must be a tensor, got \[1\] \(list\)"):
        weights.save(file, {"weight": [1]}, {})
    with pytest.raises(TypeError, match=r"`said\['seed'\]` must be a string, got 0 \(int\)"):
        weights.save(file, state, {"seed": 0})
    for changed in {"state": {3: torch.eye(2)}}, {"said": {3: "a"}}:
        message = f"`{next(iter(changed))}` must be a dict whose keys are strings, got 3"
        with pytest.raises(TypeError, match=message):
            weights.save(file, **({"state": state, "said": {}} | changed))
    for argument in ("state", "said"):
        bad = {"state": state, "said": {}} | {
            argument: {"a\ud800": torch.eye(2) if argument == "state" else "b"}
        }
        message = rf"`{argument}` must be a dict whose keys are strings that UTF-8 can encode, got 'a\\ud800'"
        with pytest.raises(ValueError, match=message):
            weights.save(file, **bad)
    with pytest.raises(
        ValueError, match=r"`said\['seed'\]` must be a string that UTF-8 can encode, got '\\udcff'"
    ):
        weights.save(file, state, {"seed": "\udcff"})
    with pytest.raises(ValueError, match=r"`state` must be a dict without this key, .*, got '__metadata__'"):
        weights.save(file, {"__metadata__": torch.eye(2)}, {})
    eye = torch.eye(2)
    for value, message in (
        (eye.to_sparse(), r"`state\['a'\]` must be dense, a tensor, got sparse_coo"),
        (eye.to("meta"), r"`state\['a'\]` must be a tensor with values, got float32 \[2, 2\] on meta"),
        (
            eye.to(torch.complex128),
            "`state` must have tensors of the dtypes of safetensors, got torch.complex128",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            weights.save(file, {"a": value}, {})
    with pytest.raises(ValueError, match=r"`name` must be one of .*sint_light, got 'none'"):
        weights.load("none")
    assert not list(tmp_path.iterdir())
