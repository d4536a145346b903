"""What amstel._torch makes the same under every supported release of torch."""

import torch

from amstel._torch import is_exporting


class Tells(torch.nn.Module):
    def forward(self, x):
        return x + 1 if is_exporting() else x - 1


def test_is_exporting():
    x = torch.zeros(1)
    assert Tells()(x) == -1
    assert torch.compile(Tells(), backend="eager", fullgraph=True)(x) == -1
    for strict in (False, True):
        assert torch.export.export(Tells(), (x,), strict=strict).module()(x) == 1
    assert Tells()(x) == -1
