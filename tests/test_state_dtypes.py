"""The dtypes of ConvLSTM's states, the same ones fused, step by step and in a cell; and those of other cells' states."""

import pytest
import torch

from amstel import nn, ops, reference

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
X4, X5 = torch.randn(1, 3, 4, 4), torch.randn(2, 1, 3, 4, 4)
H4 = torch.zeros(1, 2, 4, 4)


def short(dtype):
    return str(dtype).removeprefix("torch.")


TYPES = [F64, F32, BF16, F16]
LAYERS = {
    "fused": lambda **how: nn.ConvLSTM(3, 2, **how),
    "plain": lambda **how: nn.ConvLSTM(3, 2, zoneout=0.1, **how),
    "full": lambda **how: nn.ConvLSTM(3, 2, peephole="full", feature_size=4, **how),
    "cell": lambda **how: nn.ConvLSTMCell(3, 2, **how),
}


def outcome(kind, weights, given, h, c, state_dtype):
    """The dtypes of h and c, or what the error is about."""
    x = X5.to(given)
    state = None if h is None else [torch.zeros(1, 1, 2, 4, 4, dtype=d) for d in (h, c)]
    try:
        if kind == "cell":
            state = None if state is None else tuple(s[0] for s in state)
            state = LAYERS[kind](dtype=weights, state_dtype=state_dtype)(x[0], state)
        else:
            _, state = LAYERS[kind](dtype=weights, state_dtype=state_dtype)(x, state)
    except ValueError as error:
        return str(error).replace("_0`", "`").split(" [")[0]
    return tuple(s.dtype for s in state)


@pytest.mark.parametrize("autocast", [None, BF16, F16])
@pytest.mark.parametrize("dtype", TYPES)
def test_states_are_of_the_same_dtypes_on_every_path(dtype, autocast):
    weights = dtype if autocast is None or dtype == F64 else F32
    gates = dtype if autocast is None or dtype == F64 else autocast
    wide = F64 if gates == F64 else F32
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        for state_dtype in (None, *TYPES):
            for h, c in [
                (None, None),
                *((dtype, c) for c in (*TYPES, torch.int64)),
                (F16, gates),
                (torch.int64, gates),
            ]:
                found = {kind: outcome(kind, weights, dtype, h, c, state_dtype) for kind in LAYERS}
                assert len(set(found.values())) == 1, (state_dtype, h, c, found)
                allowed = " or ".join(map(short, dict.fromkeys((gates, wide))))
                if state_dtype not in (None, gates, wide):
                    assert found["cell"].startswith("`state_dtype` must be None")
                    assert f"with gates in {short(gates)}, got {state_dtype}" in found["cell"]
                elif h is not None and h != gates and (autocast is None or gates == F64 or h == torch.int64):
                    assert found["cell"] == f"`h` must be {short(gates)}"
                elif c not in (None, gates, wide):
                    assert found["cell"] == f"`c` must be {allowed}"
                else:
                    assert found["cell"] == (gates, state_dtype or c or gates)


@pytest.mark.parametrize("state_dtype", [None, BF16, F32])
def test_the_reference_has_a_state_dtype_too(state_dtype):
    x, w_ih, w_hh = torch.randn(2, 1, 3, 4, 4), torch.randn(8, 3, 3, 3), torch.randn(8, 2, 3, 3)
    given = [t.bfloat16() for t in (x, w_ih, w_hh)]
    state = torch.zeros(1, 2, 4, 4, dtype=BF16), torch.zeros(1, 2, 4, 4)
    for start in (None, state):
        _, (_, fused) = ops.conv_lstm(*given, None, start, state_dtype=state_dtype)
        _, (_, plain) = reference.conv_lstm(*given, None, start, state_dtype=state_dtype)
        assert fused.dtype == plain.dtype == (state_dtype or (BF16 if start is None else F32))


def test_errors_say_a_dtype_once():
    x, w = X5, (torch.randn(8, 3, 3, 3), torch.randn(8, 2, 3, 3))
    with pytest.raises(ValueError, match=r"must be None or torch.float32 with gates in float32, got torch.f"):
        ops.conv_lstm(x, *w, state_dtype=F64)
    with pytest.raises(
        ValueError, match=r"must be None, torch.float16 or torch.float32 with gates in float16"
    ):
        ops.conv_lstm(x.half(), *(t.half() for t in w), state_dtype=BF16)
    gates = torch.zeros(1, 8, 4, 4, dtype=BF16)
    with pytest.raises(ValueError, match="`c` must be bfloat16 or float32 "):
        ops.conv_lstm_cell(gates, H4.double())
    with pytest.raises(ValueError, match="`peephole` must be bfloat16 or float32 "):
        ops.conv_lstm_cell(gates, H4, torch.zeros(3, 2, dtype=F64))


@pytest.mark.parametrize(
    "name, make, call",
    [
        ("h", lambda: nn.ConvGRUCell(3, 2, 3), lambda m, t: m(X4, t)),
        ("h", lambda: nn.ConvGRUCell(3, 2, 1), lambda m, t: m(X4, t)),
        ("h_0", lambda: nn.ConvGRU(3, 2), lambda m, t: m(X5, t[None])),
        ("h", lambda: nn.PredRNNCell(3, 2), lambda m, t: m(X4, (t, H4, H4))),
        ("c", lambda: nn.PredRNNCell(3, 2), lambda m, t: m(X4, (H4, t, H4))),
        ("m", lambda: nn.PredRNNCell(3, 2), lambda m, t: m(X4, (H4, H4, t))),
        ("h_0", lambda: nn.ConvLSTM3d(3, 2), lambda m, t: m(X5[:, :, :, None], (t[None, :, :, None], H4[None, :, :, None]))),
        ("c_0", lambda: nn.ConvLSTM3d(3, 2), lambda m, t: m(X5[:, :, :, None], (H4[None, :, :, None], t[None, :, :, None]))),
    ],
)  # fmt: skip
def test_states_of_other_cells(name, make, call):
    call(make(), H4)
    for wrong in (H4.double(), H4.bfloat16(), H4.long()):
        with pytest.raises(ValueError, match=f"`{name}` must be float32 .*got {short(wrong.dtype)}"):
            call(make(), wrong)
    with torch.autocast("cpu", BF16):
        for good in (H4, H4.bfloat16()):
            call(make(), good)
        with pytest.raises(ValueError, match=f"`{name}` must be bfloat16 .*got int64"):
            call(make(), H4.long())
