"""Compiled and exported programs: they hold the operators, give the values of eager calls, and can be trained.

Operators come from tests/operator_samples.py, in single precision.
"""

import pytest
import torch
from torch.testing import assert_close

import amstel
import amstel.interop.pyg
from amstel import nn, ops
from tests.module_samples import Estimate
from tests.module_samples import sample as module_sample
from tests.operator_samples import BOXES, GRAPH, SAMPLES

WITHOUT_OPERATOR = ("conv3x3",)  # PyTorch's convolution wherever somebody looks
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def single(sample, seed=0):
    return [t.to(torch.complex64 if t.is_complex() else torch.float32) for t in sample.make(seed)]


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(ops, *tensors)


def operators(program):
    return [str(n.target).split(".")[1] for n in program.graph.nodes if str(n.target).startswith("amstel.")]


#: One of every operator.
FEW = [
    s
    for s in SAMPLES
    if not s.name.startswith("spmm") or s.name in ("spmm-sym-1.0", "spmm-weights-sym_inout-1.0")
]


class Together(torch.nn.Module):
    """All samples of one operator in one program: a program costs a second before it does anything."""

    def __init__(self, name, samples):
        super().__init__()
        self.name = name
        self.samples = [s for s in samples if s.name.split("-")[0] == name]
        self.counts = [len(s.make()) for s in self.samples]

    def make(self, seed=0):
        return tuple(t for s in self.samples for t in single(s, seed))

    def forward(self, *tensors):
        results, begin = [], 0
        for sample, count in zip(self.samples, self.counts, strict=True):
            results.append(sample.function(ops, *tensors[begin : begin + count]))
            begin += count
        return tuple(results)


NAMES = list(dict.fromkeys(s.name.split("-")[0] for s in SAMPLES))
every = pytest.mark.parametrize("group", [Together(n, SAMPLES) for n in NAMES], ids=lambda g: g.name)
few = pytest.mark.parametrize("group", [Together(n, FEW) for n in NAMES], ids=lambda g: g.name)


def gradients(function, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    ys = function(*leaves)
    total = sum((y * torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)).abs().square().sum() for y in ys)
    return ys, torch.autograd.grad(total, leaves, materialize_grads=True)


@every
def test_export(group):
    """A program holds the operator, has a plain form without it, can be trained and be transformed."""
    tensors, others = group.make(), group.make(1)
    expected = group(*tensors)
    program = torch.export.export(group, tensors)
    held = operators(program)
    assert len(held) >= len(group.samples) if group.name not in WITHOUT_OPERATOR else not held
    assert operators(program.run_decompositions({})) == held
    module = program.module()
    assert_close(module(*tensors), expected, **TOLERANCE)
    plain = program.run_decompositions(ops.decompositions())
    assert not operators(plain)
    for given in (tensors, others):
        assert_close(plain.module()(*given), group(*given), **TOLERANCE)
    assert_close(gradients(module, tensors), gradients(group, tensors), **TOLERANCE)
    assert_close(torch.func.jvp(module, tensors, others), torch.func.jvp(group, tensors, others), **TOLERANCE)


@few
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compile(group, dynamic):
    """Sizes that change are in test_recompiles.py too, and in a plain run there alone."""
    tensors = group.make()
    torch.compiler.reset()
    compiled = torch.compile(group, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    expected, found = gradients(group, tensors), gradients(compiled, tensors)
    assert_close(found, expected, **TOLERANCE)
    with torch.no_grad():
        assert_close(compiled(*tensors), expected[0], **TOLERANCE)


def onnx_cases():
    """A few in a plain run, the others in a long one: the exporter takes up to 20 s for a small graph."""
    plain = {"spmm", "conv_lstm", "roi_pool", "rim_input", "conv_gru_cell"}
    for sample in FEW:
        operator = sample.name.split("-")[0]
        yield pytest.param(sample, id=sample.name, marks=[] if operator in plain else [pytest.mark.slow])
        plain.discard(operator)


@pytest.mark.parametrize("sample", list(onnx_cases()))
def test_onnx(sample, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    module, tensors = Module(sample.function), single(sample)
    torch.onnx.export(module, tuple(tensors), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for seed in (0, 1):
        given = single(sample, seed)
        arrays = [(torch.view_as_real(t) if t.is_complex() else t).numpy() for t in given]
        (found,) = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})
        expected = module(*given)
        expected = torch.view_as_real(expected) if expected.is_complex() else expected
        assert_close(torch.from_numpy(found), expected, **TOLERANCE)


@pytest.mark.parametrize("sample", FEW, ids=lambda s: s.name)
@pytest.mark.filterwarnings("ignore")
def test_legacy_onnx_is_refused(sample, tmp_path):
    if sample.name in WITHOUT_OPERATOR:
        return
    with pytest.raises(ValueError, match="dynamo=True"):
        torch.onnx.export(Module(sample.function), tuple(single(sample)), tmp_path / "m.onnx", dynamo=False)


@pytest.mark.parametrize("name", ["ConvLSTMCell", "ConvALSTM", "VideoLSTM"])
@pytest.mark.filterwarnings("ignore")
def test_legacy_onnx_of_models_is_refused(name, tmp_path):
    model, x = module_sample(name, dtype=torch.float32)
    with pytest.raises(ValueError, match="dynamo=True"):
        torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=False)


@pytest.mark.filterwarnings("ignore")
def test_layers_on_edge_lists_and_sparse_features_compile():
    """The list in one program; of sparse tensors torch.compile takes none, and goes around them."""
    edges, x = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 1, 2]]), torch.randn(5, 3)
    for layer in (amstel.nn.GCNConv(3, 2), amstel.interop.pyg.GCNConv(3, 2)):
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        assert_close(compiled(x, edges), layer(x, edges), **TOLERANCE)
    layer, sparse = amstel.nn.GCNConv(3, 2), x.to_sparse_csr()
    compiled = torch.compile(layer, backend="eager")
    results = [torch.autograd.grad(f(sparse, GRAPH).square().sum(), layer.weight) for f in (compiled, layer)]
    assert_close(*results, **TOLERANCE)


# ---- Sizes that are not known when a program is written: (operator, its arguments at two sizes, dimensions) ----

_auto = torch.export.Dim.AUTO


def _randn(*sizes):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(len(sizes)))


def _boxes(count, images):
    corners = torch.rand(count, 4, generator=torch.Generator().manual_seed(count)) * 8
    return torch.cat([torch.arange(count)[:, None] % images, corners], 1)


_W = _randn(8, 3, 3, 3), _randn(8, 2, 3, 3), _randn(8)
_MAPS = _randn(2, 6, 4, 2)
DYNAMIC = {
    "spmm": (lambda x, w: ops.spmm(GRAPH, x, w), lambda s: (_randn(s, 5, s + 2), _randn(7).abs()), ((0, 2), ())),
    "conv_lstm": (
        lambda x, n: ops.conv_lstm(x, *_W, lengths=n)[0],
        lambda s: (_randn(4, s, 3, s + 3, s + 4), torch.tensor([1, 3, 4, 2, 1])[:s]),
        ((1, 3, 4), (0,)),
    ),
    "conv_lstm_cell": (
        lambda g, c: torch.cat(ops.conv_lstm_cell(g, c)),
        lambda s: (_randn(s, 8, s, s + 1), _randn(s, 2, s, s + 1)),
        ((0, 2, 3), (0, 2, 3)),
    ),
    "conv_gru_cell": (
        ops.conv_gru_cell,
        lambda s: (_randn(s, 6, s, s + 1), _randn(s, 6, s, s + 1), _randn(s, 2, s, s + 1)),
        ((0, 2, 3),) * 3,
    ),
    "roi_pool": (
        lambda x, b: ops.roi_pool(x, b, 2, 0.5),
        lambda s: (_randn(s, 3, 2 * s, s + 3), _boxes(2 * s + 1, s)),
        ((0, 2, 3), (0,)),
    ),
    "roi_match": (
        lambda x, b, q: ops.roi_match([x], b, q, 2, [0.5]),
        lambda s: (_randn(s, 3, 2 * s, s + 3), _boxes(2 * s + 1, s), _randn(12)),
        ((0, 2, 3), (0,), ()),
    ),
    "rim_denoise_input": (
        lambda e, y, s: ops.rim_denoise_input(e, y, s, link="logistic"),
        lambda s: (_randn(s, 2, s, s + 1), _randn(s, 2, s, s + 1), _randn(s).abs() + 0.5),
        ((0, 2, 3), (0, 2, 3), (0,)),
    ),
    "rim_super_resolve_input": (
        lambda e, y: ops.rim_super_resolve_input(e, y, 2, 0.5),
        lambda s: (_randn(s, 2, 2 * s, 2 * s + 4), _randn(s, 2, s, s + 2)),
        ((0, 2, 3), (0, 2, 3)),
    ),
    "bicubic": (
        lambda x: ops.bicubic_down_adjoint(ops.bicubic_down(x, 3), 3),
        lambda s: (_randn(s, 2, 3 * s, 3 * s + 6),),
        ((0, 2, 3),),
    ),
    "mri_gradient": (
        lambda x, y, m: ops.mri_gradient(
            torch.view_as_complex(x), torch.view_as_complex(y), m, torch.view_as_complex(_MAPS)
        ).real,
        lambda s: (_randn(s, 6, 4, 2), _randn(s, 2, 6, 4, 2), torch.tensor([1.0, 0, 1, 1])),
        ((0,), (0,), ()),
    ),
}  # fmt: skip


class Free(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def dynamic_program(name):
    function, make, dims = DYNAMIC[name]
    free = (tuple({d: _auto for d in each} for each in dims),)
    return torch.export.export(Free(function), make(3), dynamic_shapes=free), function, make


@pytest.mark.parametrize("name", DYNAMIC)
def test_export_with_dynamic_shapes(name):
    program, function, make = dynamic_program(name)
    plain = program.run_decompositions(ops.decompositions())
    assert operators(program) and not operators(plain)
    for size in (3, 2, 5):
        for p in (program, plain):
            assert_close(p.module()(*make(size)), function(*make(size)), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMIC)
def test_onnx_with_dynamic_shapes(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    function, make, dims = DYNAMIC[name]
    free = (tuple({d: _auto for d in each} for each in dims),)
    torch.onnx.export(
        Free(function), make(3), tmp_path / "model.onnx", dynamo=True, verbose=False, dynamic_shapes=free
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in (3, 5):
        given = make(size)
        arrays = {i.name: t.numpy() for i, t in zip(session.get_inputs(), given, strict=True)}
        assert_close(torch.from_numpy(session.run(None, arrays)[0]), function(*given), **TOLERANCE)


def test_an_exported_program_checks_its_boxes():
    """What a trace has not seen: the operator itself looks, and no index -1 means the last image."""
    program = torch.export.export(
        Module(lambda ops, x, b: ops.roi_pool(x, b, 2)), (_randn(2, 1, 4, 4), BOXES.float())
    )
    for image in (-1, 2, 0.5, float("nan")):
        boxes = BOXES.float()
        boxes[1, 0] = image
        with pytest.raises((ValueError, RuntimeError), match=r"image|index|batch"):
            program.module()(_randn(2, 1, 4, 4), boxes)


def test_export_of_a_graph_built_inside():
    """An edge list as input: the structure is made in the program, with our operators and without."""

    class Layer(torch.nn.Module):
        def forward(self, x, edge_index):
            return ops.spmm(amstel.Graph.from_edge_index(edge_index, x.shape[0]), x, norm="sym_inout")

    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 1, 2]])
    program = torch.export.export(
        Layer(), (torch.randn(5, 3), edges), dynamic_shapes=({0: _auto}, {1: _auto})
    )
    plain = program.run_decompositions(ops.decompositions())
    x, more = torch.randn(6, 3), torch.tensor([[0, 5, 2, 2, 3, 1, 4], [1, 0, 1, 1, 2, 5, 4]])
    assert "spmm" in operators(program)
    for p in (program, plain):
        assert_close(p.module()(x, more), Layer()(x, more), **TOLERANCE)
        for nodes, count in ((9, 3), (30, 29), (1, 3), (2, 1), (4, 0)):  # more nodes than edges, too
            other, few = torch.randn(nodes, 3), torch.randint(nodes, (2, count))
            assert_close(p.module()(other, few), Layer()(other, few), **TOLERANCE)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "make, size",
    [
        (lambda: nn.ConvLSTM(4, 3, num_layers=2), (3, 2, 4, 5, 6)),
        (lambda: nn.ConvLSTM(4, 3, bidirectional=True), (3, 2, 4, 5, 6)),
        (lambda: nn.ConvGRUCell(4, 3, kernel_size=1), (3, 4, 5, 6)),
        (lambda: Estimate(nn.RIM(1, 8, 2)), (3, 1, 16, 16)),
    ],
)
def test_modules_with_parameters_that_learn_keep_their_first_size_free(make, size, strict):
    """Of the steps or the batch, in the default mode, where the program may be trained."""
    module, x = make(), torch.rand(size)
    program = torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=strict
    )
    assert operators(program)
    exported = program.module()
    for count in (5, 2):
        y = torch.rand(count, *size[1:])
        found, expected = (m(y) if isinstance(m(y), torch.Tensor) else m(y)[0] for m in (exported, module))
        assert_close(found, expected, **TOLERANCE)
    for m in (exported, module):
        result = m(x)
        (result if isinstance(result, torch.Tensor) else result[0]).sum().backward()
    found, expected = ({n: p.grad for n, p in m.named_parameters()} for m in (exported, module))
    assert found.keys() == expected.keys() and all(g is not None for g in found.values())
    assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spmm", "roi_pool", "conv_lstm", "rim_denoise_input"])
def test_ahead_of_time_inductor(name, tmp_path):
    program, function, make = dynamic_program(name)
    with torch.no_grad():
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        compiled = torch._inductor.aoti_load_package(package)
        for size in (3, 5):
            assert_close(compiled(*make(size)), function(*make(size)), **TOLERANCE)


# What a program without Python runs, csrc/common/conv_lstm_loop.cpp, beside what this process runs: kernel sizes of
# weight_ih and weight_hh, hidden and input channels, dilation, padding; Winograd's algorithm and not.
LOOPS = [
    ((3, 3), (3, 3), 9, 8, 1, "same"),
    ((3, 3), (3, 3), 8, 3, 1, "valid"),
    ((2, 4), (2, 3), 3, 2, 2, "same"),
]


@pytest.mark.parametrize("case", LOOPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_conv_lstm_without_python(case, dtype):
    k_ih, k_hh, hidden, inputs, dilation, padding = case
    op, randn = torch.ops.amstel.conv_lstm.default, lambda *sizes: _randn(*sizes).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    x, size = randn(4, 2, inputs, 9, 8), (9, 8) if padding == "same" else (7, 6)
    weights = randn(4 * hidden, inputs, *k_ih) / 3, randn(4 * hidden, hidden, *k_hh) / 3
    state = randn(2, hidden, *size).tanh(), randn(2, hidden, *size).to(wide)
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]], dtype=torch.bool)
    for more in ((None,) * 5, (randn(4 * hidden), *state, mask, randn(3, hidden))):
        for keep in ("last", "output"):
            given = (x, *weights, *more, dilation, padding, "auto", keep)
            found = op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *given)
            tolerance = {} if dtype.itemsize > 2 else {"rtol": 0, "atol": 3e-2}
            for one, other in zip(found, op(*given), strict=True):
                assert one.stride() == other.stride()
                assert_close(one, other, **tolerance)
    with pytest.raises(RuntimeError, match="`keep`"):
        op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *given[:-1], "gates")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_lstm_cell_without_python(layout):
    op = torch.ops.amstel.conv_lstm_cell.default
    gates, c = _randn(2, 12, 4, 5).contiguous(memory_format=layout), _randn(2, 3, 4, 5)
    for peephole in (None, _randn(3, 3)):
        found = op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, gates, c, peephole)
        for one, other in zip(found, op(gates, c, peephole), strict=True):
            assert one.stride() == other.stride() and torch.equal(one, other)


@pytest.mark.parametrize("name", ["spmm-weights-sym-1.0", "conv_lstm", "roi_pool", "rim_denoise_input"])
def test_compiled_transforms(name):
    sample = next(s for s in SAMPLES if s.name == name)
    tensors, tangents = tuple(single(sample)), tuple(single(sample, 1))
    many = [torch.stack([t, t + 1]) for t in tensors]

    def everything(*tensors):
        f = lambda *t: sample.function(ops, *t)  # noqa: E731
        loss = lambda *t: f(*t).square().sum()  # noqa: E731
        return (
            torch.func.grad(loss)(*tensors),
            torch.func.jvp(f, tensors, tangents)[1],
            torch.vmap(f)(*many),
            torch.vmap(torch.func.grad(loss))(*many),
        )

    torch.compiler.reset()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*tensors), everything(*tensors), **TOLERANCE)


@pytest.mark.filterwarnings("ignore")
def test_torch_jit():
    """A trace holds the operators and takes other values, edges among them; a script is refused with a way out."""
    model = amstel.nn.GCN(3, 4, 2, dropout=0.0).eval()
    x, edges = torch.randn(5, 3), torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 1, 2]])
    traced, others = torch.jit.trace(model, (x, edges), check_trace=False), torch.tensor([[4, 1], [0, 3]])
    others = torch.cat([others, edges[:, 2:]], 1)
    assert_close(traced(x + 1, others), model(x + 1, others), **TOLERANCE)
    for module in (model, torch.nn.Sequential(amstel.nn.RoIPool(2)), amstel.nn.ConvLSTM(2, 3)):
        with pytest.raises(TypeError, match=r"torch\.export"):
            torch.jit.script(module)
