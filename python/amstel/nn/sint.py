"""SINT: one network that describes the target of the first frame and the candidates in later ones, and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, _checks, ops
from amstel._torch import autocast_dtype, wide
from amstel.nn._like import check_like_model
from amstel.nn._placed import Placed
from amstel.nn.backbone import VGG16Features, _normalized
from amstel.nn.efficientnet import EfficientNetLite

#: The weights that ship, see `amstel.weights`.
WEIGHTS = "sint_light"

#: What trains together: a factor on the learning rate, and parameters.
Trainable = list[tuple[float, list[nn.Parameter]]]


def _unit(x: Tensor) -> Tensor:
    """Rows of norm 1; a row of zeros stays, and has no gradient."""
    square = wide(x).square().sum(1, keepdim=True)
    return torch.where(square > 0, x * torch.where(square > 0, square, 1).rsqrt(), 0).to(x.dtype)


class _VGG16(VGG16Features):
    """conv4_3 and conv5_3 of VGG-16 with its first two poolings only, so that both have stride 4."""

    channels, strides = (512, 512), (4, 4)
    receptive_field = 42

    def __init__(self) -> None:
        super().__init__()
        # In place of the later poolings, so that the names of torchvision's parameters hold.
        for pool in (16, 23, 30):
            self.features[pool] = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        x = _normalized(x, next(self.parameters()))
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in (22, 29):  # the ReLUs
                maps.append(x)
        return maps

    def trainable(self) -> Trainable:
        return [(0.01, [p for n in (21, 24, 26, 28) for p in self.features[n].parameters()])]


class _Light(nn.Module):
    """EfficientNet-Lite0 at strides 4, 8 and 16, with a learned projection of each map.

    The projections are signed and have no mean: what all places share would otherwise make all cosines alike.
    """

    def __init__(self, taps: Sequence[int] = (2, 4, 7), channels: Sequence[int] = (24, 40, 64)):
        super().__init__()
        self.trunk = EfficientNetLite(taps)
        self.channels, self.strides = tuple(channels), self.trunk.strides
        self.receptive_field = self.trunk.receptive_field
        self.projections = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(self.trunk.channels, channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [project(m) for project, m in zip(self.projections, self.trunk(x), strict=True)]

    def trainable(self) -> Trainable:
        return [(0.3, list(self.trunk.parameters())), (1.0, list(self.projections.parameters()))]


class SINT(nn.Module, metaclass=Placed):
    """Describes boxes in an image so that boxes of the same object have a high inner product.

    The two streams of the paper share their parameters, so here they are one module: the same network describes the
    target in the first frame and the candidates in later ones.

        maps = backbone(image)
        description(box) = concat over maps of unit(roi_pool(map, box)),    unit(x) = x / |x|, 0 for x = 0
        score(box) = <description(box), query>

    A pooled map is flattened in the order (C, Ph, Pw). With L layers of unit norm, the score of a box with itself is
    L.

    Args:
        backbone:
            "light": the first stages of EfficientNet-Lite0 at strides 4, 8 and 16, each map projected to 24, 40 and
            64 channels: 6,272 numbers per box, 1 MB of weights, and milliseconds for a search window on one core.
            "vgg16": the paper's. VGG-16 with only its first two pooling layers, so at stride 4; conv4_3 and conv5_3
            are pooled, and fc6 (without ReLU) of the pooled conv5_3 is a third layer: 2 * 25,088 + 4,096 = 54,272
            numbers per box.
            A module that takes images [N, 3, H, W], RGB in [0, 1], and returns a list of maps. It has the attributes
            `channels` and `strides` (one per map) and `receptive_field` (see below), and optionally a method
            `trainable()` (see below).
        output_size: cells per side of a pooled map.

    Attributes:
        spatial_scales: 1 / stride of every map.
        receptive_field: pixels of context that a cell sees on either side. At least that far from its sides, a crop
            that begins at a multiple of the largest stride has the same maps as the whole image.
        layers: number of unit-norm parts in a description.
        size: length of a description.

    Differentiable in the parameters and the image, not in the boxes. Boxes are as for `amstel.ops.roi_pool`: [K, 5]
    (index of the image, x1, y1, x2, y2 in pixels, both ends inside), or a list of [L, 4], one per image; so are the
    errors.

    Source: R. Tao, E. Gavves and A. W. M. Smeulders, Siamese Instance Search for Tracking, CVPR 2016
    (arXiv 1605.05863), section 3 and figure 2. The authors' weights expected BGR minus the mean pixel; these expect
    RGB in [0, 1].

    Example:
        >>> model = amstel.nn.SINT()
        >>> boxes = torch.tensor([[0.0, 20, 20, 60, 80], [0, 25, 20, 65, 80]])
        >>> model(torch.rand(1, 3, 128, 128), boxes).shape
        torch.Size([2, 6272])
    """

    def __init__(self, backbone: str | nn.Module = "light", output_size: int = 7):
        super().__init__()
        self.output_size = _check.integer("output_size", output_size, 1)
        self.fc6: nn.Linear | None = None
        self.backbone: Any = backbone
        if isinstance(backbone, nn.Module):
            for name in ("channels", "strides", "receptive_field"):
                if not hasattr(backbone, name):
                    _check.fail("backbone", f"a module with the attribute {name}", type(backbone).__name__)
        elif backbone == "vgg16":
            self.backbone = _VGG16()
            self.fc6 = nn.Linear(512 * output_size**2, 4096)
        elif backbone == "light":
            self.backbone = _Light()
        else:
            _check.fail("backbone", "'light', 'vgg16' or a module", backbone)
        self.spatial_scales = tuple(1 / stride for stride in self.backbone.strides)
        self.receptive_field: int = self.backbone.receptive_field

    @classmethod
    def pretrained(cls) -> SINT:
        """The light network with the bundled weights, in evaluation mode. Needs the extra [track].

        Example:
            >>> model = amstel.nn.SINT.pretrained()
            >>> model.training, model.layers, model.size
            (False, 3, 6272)
        """
        from amstel import weights

        model = cls("light")
        state = weights.load(WEIGHTS)
        model.to(next(iter(state.values())).dtype).load_state_dict(state)  # whatever torch's default dtype is
        return model.eval()

    @property
    def layers(self) -> int:
        """Number of normalized descriptions that are concatenated."""
        return len(self.spatial_scales) + (self.fc6 is not None)

    @property
    def size(self) -> int:
        """Length of a box's description."""
        return self._pooled_size + (0 if self.fc6 is None else self.fc6.out_features)

    @property
    def _pooled_size(self) -> int:
        return sum(self.backbone.channels) * self.output_size**2

    def trainable(self) -> Trainable:
        """Parts to train, as (factor of the learning rate, parameters). Everything else stays frozen.

        "vgg16": 0.01 for conv4_3 to conv5_3 and 1 for fc6; "light": 0.3 for the trunk and 1 for the projections; a module
        without a `trainable()` of its own: 1 for all of it.
        """
        if hasattr(self.backbone, "trainable"):
            parts = list(self.backbone.trainable())
        else:
            parts = [(1.0, list(self.backbone.parameters()))]
        return parts if self.fc6 is None else [*parts, (1.0, list(self.fc6.parameters()))]

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps [N, C_l, H_l, W_l] of images [N, 3, H, W], RGB in [0, 1], in the dtype of the parameters.

        Example:
            >>> [tuple(maps.shape) for maps in amstel.nn.SINT().features(torch.rand(1, 3, 64, 96))]
            [(1, 24, 16, 24), (1, 40, 8, 12), (1, 64, 4, 6)]
        """
        expected = "floating-point [N, 3, H, W], RGB in [0, 1]"
        _check.dense("image", image, expected)
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point() or not image.numel():
            _check.fail("image", expected, image)
        if isinstance(self.backbone, (_VGG16, _Light)):
            check_like_model("image", image, self, narrower=isinstance(self.backbone, _VGG16))
        return self.backbone(image)

    def describe(self, features: Sequence[Tensor], boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """Descriptions [K, size] of boxes, from the maps that `features` returned.

        Example:
            >>> model = amstel.nn.SINT()
            >>> maps = model.features(torch.rand(1, 3, 64, 96))
            >>> found = model.describe(maps, torch.tensor([[0, 8.0, 8, 40, 40]]))
            >>> found.shape, round(found.square().sum().item(), 3)  # a unit vector for each of three layers
            (torch.Size([1, 6272]), 3.0)
        """
        self._check_maps(features)
        pooled = [
            ops.roi_pool(x, boxes, self.output_size, scale).flatten(1)
            for x, scale in zip(features, self.spatial_scales, strict=True)
        ]
        parts = [_unit(x) for x in pooled]
        if self.fc6 is not None:
            parts.append(_unit(self.fc6(pooled[-1])))
        return torch.cat(parts, 1)

    def _check_maps(self, features: Any) -> None:
        """Maps in another order would be pooled at the strides of others."""
        channels = tuple(self.backbone.channels)
        expected = f"a list of maps [N, C, H, W] of {', '.join(map(str, channels))} channels"
        if not isinstance(features, (list, tuple)):
            _check.fail_type("features", expected, features)
        for n, x in enumerate(features):
            _check.tensor(f"features[{n}]", x, "a map [N, C, H, W]")
        if tuple(x.shape[1] if x.dim() == 4 else -1 for x in features) != channels:
            _check.fail("features", expected, [list(x.shape) for x in features])

    def match(self, features: Sequence[Tensor], boxes: Tensor | Sequence[Tensor], query: Tensor) -> Tensor:
        """Scores [K]: inner products of the boxes' descriptions with a query [size], which is not normalized.

        Equal to `describe(features, boxes) @ query` up to rounding, but the descriptions are never written; of the
        pooled maps, only the input of fc6 is.

        Example:
            >>> model = amstel.nn.SINT()
            >>> maps = model.features(torch.rand(1, 3, 64, 96))
            >>> boxes = torch.tensor([[0, 8.0, 8, 40, 40], [0, 50.0, 20, 90, 60]])
            >>> query = model.describe(maps, boxes[:1])[0]
            >>> int(model.match(maps, boxes, query).argmax())  # the box that the query is of
            0
        """
        self._check_maps(features)
        if autocast_dtype(features[0]) is None:  # where the widest dtype counts
            _check.vector("query", query, self.size, features[0])
        maps, rest = query.split([self._pooled_size, self.size - self._pooled_size])
        scores = ops.roi_match(features, boxes, maps, self.output_size, self.spatial_scales)
        if self.fc6 is not None:
            pooled = ops.roi_pool(features[-1], boxes, self.output_size, self.spatial_scales[-1])
            scores = scores + (_unit(self.fc6(pooled.flatten(1))) * rest).sum(1)
        return scores

    def forward(self, image: Tensor, boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """`describe(features(image), boxes)`."""
        return self.describe(self.features(image), boxes)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load this module's state_dict or, with "vgg16", torchvision's: `features.*` and `classifier.0.*` (fc6, for
        output_size 7); other entries are ignored."""
        if self.fc6 is not None and "classifier.0.weight" in state_dict:
            own = {}
            for name, value in state_dict.items():
                if name.startswith("features."):
                    own[f"backbone.{name}"] = value
                elif name.startswith("classifier.0."):
                    own[name.replace("classifier.0", "fc6")] = value
            state_dict = own
        return super().load_state_dict(state_dict, strict, assign)


class MarginContrastiveLoss(nn.Module):
    """Pulls descriptors of the same target together, and pushes those of different targets apart by a margin.

        L = mean of 1/2 y d² + 1/2 (1 - y) max(0, margin - d²),   d² = |a - b|²

    There is no root in it, so the gradient is finite where a = b. Descriptors are not normalized. Those of `SINT`
    have norm 1 in each of their L layers, so d² = 2 L - 2 <a, b> is in [0, 4 L]. With `margin=1.0`, different
    targets no longer contribute once their mean cosine is below 1 - 1 / (2 L); with `margin=L` the limit is 1/2 for
    any number of layers.

    Args:
        margin: > 0.
        reduction: "mean", "sum" or "none" over the pairs.

    Shapes: a, b [..., D], which may broadcast (one query against many candidates); y [...], 1 or True for the same
    target, 0 for another. Result: a number, or [...], at least float32. Differentiable in a and b.

    Raises:
        ValueError: a and b differ in D; y has a wrong shape or values other than 0 and 1 (see `amstel.set_checks`);
        margin or reduction is not allowed.

    Source: R. Tao, E. Gavves and A. W. M. Smeulders, Siamese Instance Search for Tracking, CVPR 2016
    (arXiv 1605.05863), equation 1.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
        >>> amstel.nn.MarginContrastiveLoss(reduction="none")(a, b, torch.tensor([1, 0]))
        tensor([0.0000, 0.3000])
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__()
        self.margin = _check.number("margin", margin, "a finite number > 0", above=0)
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            _check.fail("reduction", "'mean', 'sum' or 'none'", reduction)
        self.reduction = reduction

    def forward(self, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """The loss, a number or [...], of a and b [..., D] and y [...], 1 for the same target."""
        for name, value in (("a", a), ("b", b), ("y", y)):
            _check.dense(name, value, "a tensor")
            if value.device != a.device:
                _check.fail(name, f"on {a.device} like `a`", value)
        if a.dim() < 1 or b.dim() < 1 or a.shape[-1] != b.shape[-1]:
            _check.fail("b", f"[..., {a.shape[-1] if a.dim() else 'D'}] as `a`", b)
        square = (wide(a) - wide(b)).square().sum(-1)
        if y.shape != square.shape:
            _check.fail("y", f"{list(square.shape)}, one number for a pair", y)
        if y.dtype != torch.bool:
            _checks.look("labels", y, lambda y: (y != 0) & (y != 1))
        loss = torch.where(y.bool(), square, (self.margin - square).clamp_min(0)) / 2
        return loss.mean() if self.reduction == "mean" else loss.sum() if self.reduction == "sum" else loss

    def extra_repr(self) -> str:
        return f"margin={self.margin}, reduction={self.reduction!r}"
