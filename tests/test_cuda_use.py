"""Operators as they are used on a GPU: compiled, on streams, captured, by two threads, out of memory, beyond 2^31.

Every test has a variant on the CPU, which runs everywhere and walks the same code, and one that needs a GPU:
`pytest -m cuda -n 6`. Models and command lines are in test_cuda_families.py.
"""

import contextlib
import threading

import pytest
import torch

import amstel
from amstel import ops
from amstel.testing import assert_close
from tests.cuda_cases import OPERATORS, make, normal, step

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
each = pytest.mark.parametrize("name", OPERATORS)
pytestmark = [pytest.mark.parametrize("device", DEVICES), pytest.mark.usefixtures("exact")]


@pytest.fixture
def exact():
    """float32 as float32, and one algorithm for one convolution: what the promises of equal bits are about."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def side_stream(device):
    """Another stream than the default one as the current; on the CPU nothing."""
    return torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else contextlib.nullcontext()


def keep_busy(device):
    """Some milliseconds of work on the current stream, so that what does not wait for it comes too early."""
    if device == "cuda":
        torch.cuda._sleep(20_000_000)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@each
def test_agrees_with_the_cpu_in_float64(name, device):
    """Proves: values and gradients on the device are those of the CPU in float64, within float32's tolerance."""
    expected = step(*make(name, "cpu", torch.float64))
    for ours, theirs in zip(step(*make(name, device)), expected, strict=True):
        assert ours.device.type == device
        assert_close(ours, theirs)


@each
def test_same_bits_again(name, device):
    """Proves: values and gradients are bit-identical from run to run."""
    first = step(*make(name, device))
    for _ in range(3):
        assert equal(first, step(*make(name, device)))


@each
def test_compiled(name, device):
    """Proves: torch.compile without a graph break gives the eager bits, forward and backward."""
    function, leaves = make(name, device)
    torch._dynamo.reset()
    compiled = torch.compile(
        function, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager"
    )
    for ours, theirs in zip(step(compiled, leaves), step(function, leaves), strict=True):
        assert_close(ours, theirs.double())


@each
def test_on_a_side_stream(name, device):
    """Proves: an operator runs on the current stream: it waits for work queued there, and for none elsewhere."""
    function, leaves = make(name, device)
    expected = step(function, leaves)
    late = [torch.zeros_like(t) for t in leaves]
    synchronize(device)
    keep_busy(device)  # on the default stream
    with side_stream(device):
        keep_busy(device)
        for t, value in zip(late, leaves, strict=True):
            t.copy_(value.detach())
        found = step(function, [t.detach().requires_grad_() for t in late])
        copies = [t.clone() for t in found]
    synchronize(device)
    assert equal(copies, expected)


def capture(device, call):
    """call() captured, its outputs, and the replay; on the CPU a replay calls again."""
    if device == "cpu":
        outputs = call()

        def replay():
            for t, value in zip(outputs, call(), strict=True):
                t.copy_(value)

        return outputs, replay
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # what is made once is made
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    graph.replay()
    return outputs, graph.replay


@each
def test_captured(name, device):
    """Proves: forward and backward are captured in a graph without a synchronization, and replay with new values."""
    function, leaves = make(name, device)
    outputs, replay = capture(device, lambda: step(function, leaves))
    synchronize(device)
    assert equal(outputs, step(function, leaves))
    with torch.no_grad():
        for seed, t in enumerate(leaves):
            t.copy_(normal(*t.shape, seed=20 + seed).to(device))
    replay()
    synchronize(device)
    assert equal(outputs, step(function, leaves))


@each
def test_two_threads_on_two_streams(name, device):
    """Proves: two threads on two streams do not disturb each other."""
    function, leaves = make(name, device)
    expected = step(function, leaves)
    synchronize(device)
    found, errors = [], []

    def work():
        try:
            with side_stream(device):
                mine = [t.detach().clone().requires_grad_() for t in leaves]
                results = [step(function, mine) for _ in range(5)]
            synchronize(device)
            found.extend(results)
        except Exception as error:  # raised again in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert len(found) == 10 and all(equal(results, expected) for results in found)


def too_much():
    """Calls whose inputs are small and whose results are some hundred gigabytes."""
    rows = 2_000_000

    def spmm(device):
        graph = amstel.Graph.from_csr(
            torch.zeros(rows + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), num_cols=1
        )
        x = torch.ones(1, 60_000, device=device)
        return ops.spmm(graph.to(device), x, norm="none", self_loops=0)

    def roi_pool(device):
        boxes = torch.zeros(1, 5, device=device).expand(rows, 5)
        return ops.roi_pool(torch.ones(1, 512, 4, 4, device=device), boxes, 14)

    def conv_lstm(device):
        x = torch.ones(1, 1, device=device).expand(2_000, 60, 1, 256, 256)
        return ops.conv_lstm(
            x, torch.ones(128, 1, 1, 1, device=device), torch.ones(128, 32, 1, 1, device=device)
        )

    return {"spmm": spmm, "roi_pool": roi_pool, "conv_lstm": conv_lstm}


@pytest.mark.parametrize("call", too_much().values(), ids=too_much())
def test_out_of_memory_and_recovery(call, device):
    """Proves: a failed allocation is torch.OutOfMemoryError, and the operator works afterwards."""
    function, leaves = make("spmm", device)
    expected = step(function, leaves)
    if device == "cpu" and call.__name__ == "conv_lstm":
        pytest.skip(
            "on the CPU the system grants memory that nothing has touched; spmm and roi_pool ask for more"
        )
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            call(device)
        assert equal(step(function, leaves), expected)
    finally:
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()


def needs(device, gigabytes):
    """Whether the device has so much memory left; a machine that has not is a reason to leave the test out."""
    if device == "cuda" and torch.cuda.mem_get_info()[0] < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes} GB of free device memory")


BEYOND = 2**31 + 2**20  # elements; a small number on the CPU, where the same code runs


def test_spmm_beyond_32_bits(device):
    """Proves: features of more than 2^31 elements are addressed by 64 bits."""
    needs(device, 12)
    width = 256
    rows = BEYOND // width if device == "cuda" else 3000
    index = torch.stack([torch.arange(rows).flip(0), torch.arange(rows)]).to(device)
    graph = amstel.Graph.from_edge_index(index, rows)
    x = torch.zeros(rows, width, dtype=torch.bfloat16, device=device)
    x[0], x[-1] = 1.0, 2.0
    y = ops.spmm(graph, x, norm="none", self_loops=0)
    assert float(y[-1].min()) == float(y[-1].max()) == 1.0
    assert float(y[0].min()) == float(y[0].max()) == 2.0 and float(y[1:-1].abs().max()) == 0


def test_roi_pool_beyond_32_bits(device):
    """Proves: a result of more than 2^31 elements is addressed by 64 bits."""
    needs(device, 12)
    channels = 1024
    boxes = BEYOND // (channels * 49) if device == "cuda" else 40
    x = normal(2, channels, 5, 6).bfloat16().to(device)
    rois = torch.tensor([[0.0, 0, 0, 5, 4]], device=device).repeat(boxes, 1)
    rois[-1, 0] = 1
    y = ops.roi_pool(x, rois, 7)
    assert torch.equal(y[0], y[-2]) and torch.equal(y[-1:], ops.roi_pool(x, rois[-1:], 7))


def test_gates_beyond_32_bits(device):
    """Proves: gates of more than 2^31 elements are addressed by 64 bits."""
    needs(device, 24)
    side = 1024 if device == "cuda" else 16
    items = BEYOND // (3 * 64 * side * side) + 1 if device == "cuda" else 2
    gates = torch.zeros(items, 3 * 64, side, side, dtype=torch.bfloat16, device=device)
    h = torch.zeros(items, 64, side, side, dtype=torch.bfloat16, device=device)
    gates[-1, -1, -1, -1] = 1.0
    new = ops.conv_gru_cell(gates, gates, h)
    expected = ops.conv_gru_cell(gates[-1:].contiguous(), gates[-1:].contiguous(), h[-1:].contiguous())
    assert torch.equal(new[-1:], expected) and float(expected[0, -1, -1, -1]) > 0.3
    assert float(new[:-1].abs().max()) == 0
