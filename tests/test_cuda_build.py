"""What nvcc makes of the CUDA kernels, on a machine without a GPU: no warnings, no spills, no local memory,
and nothing in tests/cuda_emulator/figures.json that got worse. It does not time anything."""

import os

import pytest

from tests.cuda_emulator import build, ptx, toolchain

pytestmark = pytest.mark.nvcc


UPDATE = "python -m tests.cuda_emulator.toolchain --update"


@pytest.fixture(autouse=True, scope="module")
def nvcc_required():
    reason = toolchain.missing("nvcc", "nvdisasm")
    if reason:
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", toolchain.ARCHITECTURES)
@pytest.mark.parametrize("stem", toolchain.stems())
def test_kernels_are_built_well(stem, architecture):
    figures = toolchain.inspect(stem, architecture)
    assert figures, f"{toolchain.source_of(stem).name} has no test instance"
    spilled = [name for name, f in figures.items() if f["stack"] or f["spill_stores"] or f["local"]]
    assert not spilled, f"local memory in {spilled}"
    known = toolchain.read_figures().get(toolchain.release())
    if known is None and os.environ.get("AMSTEL_REQUIRE_NVCC") != "1":
        pytest.skip(f"no figures for nvcc {toolchain.release()} to compare with: {UPDATE}")
    assert known and stem in known, f"no figures for {stem}, nvcc {toolchain.release()}: {UPDATE}"
    changes = toolchain.worse(known[stem].get(architecture, {}), figures)
    assert not changes, "\n".join([*changes, f"if this is meant: {UPDATE}"])


@pytest.mark.parametrize("stem", toolchain.stems())
def test_every_instance_has_ptx(stem):
    """PTX has each instance by the emulator's name; it is that which the tests of the kernels run."""
    names = [kernel.symbol for kernel in build.load(toolchain.source_of(stem)).values()]
    text = ptx.compile_ptx(toolchain.source_of(stem), "90")
    assert names and all(f".entry {name}(" in text for name in names)


# ---- The gate itself, on the sample kernels ----


@pytest.fixture(scope="module")
def samples():
    return toolchain.inspect("planted_bugs", "80")


@pytest.mark.parametrize("instance", ["float", "__half", "__nv_bfloat16"])
def test_vector_access_is_seen(samples, instance):
    figures = samples[f"sample::scale<{instance}>"]
    assert figures["ldg128"] == figures["stg128"] == 1
    assert figures["threads"] == 128 and figures["occupancy"] == 1.0 and figures["local"] == 0


def test_shared_memory_and_occupancy(samples):
    assert samples["sample::block_sum<double, 256>"]["shared"] == 256 * 8
    assert samples["sample::iota"]["ldg128"] == 0
    # Of 2048 threads, 65536 registers, 164 (sm_80) or 228 KiB of shared memory, 1 KiB of it lost to a block.
    rows = [[256, 32, 0], [256, 64, 0], [256, 32, 41 << 10], [1024, 64, 0]]
    assert toolchain.occupancies("80", rows) == [1.0, 0.5, 0.375, 0.5]
    assert toolchain.occupancies("90", rows) == [1.0, 0.5, 0.625, 0.5]


def test_spills_fail(tmp_path, monkeypatch):
    source = tmp_path / "spill.cu"
    source.write_text(
        'extern "C" __global__ void spill(float* x, int n) {\n'
        "  float a[64]; for (int i = 0; i < 64; ++i) a[i] = x[i * n];\n"
        "  for (int i = 0; i < 64; ++i) x[i] = a[(i * n) % 64];\n}\n"
    )
    monkeypatch.setattr(toolchain, "source_of", lambda stem: source)
    with pytest.raises(toolchain.ToolchainError, match=r"[Ll]ocal memory|stack"):
        toolchain.inspect("spill", "80")


def test_changes_for_the_worse():
    old = {"k": {"registers": 32, "occupancy": 1.0, "ldg128": 2, "stg128": 1}, "gone": {}}
    new = {"k": {"registers": 40, "occupancy": 0.75, "ldg128": 0, "stg128": 2}, "added": {}}
    assert toolchain.worse(old, new) == [
        "added: not in figures.json",
        "gone: in figures.json but not built",
        "k: ldg128 went from 2 to 0",
        "k: occupancy went from 1.0 to 0.75",
        "k: registers went from 32 to 40",
    ]
