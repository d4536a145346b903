"""Recurrent inference machines (RIM) for any inverse problem y = A x + noise."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, relu

from amstel import _check
from amstel._torch import is_exporting
from amstel._words import counted
from amstel.nn._like import check_like_model
from amstel.nn._physics import likelihood_of, sigma_of
from amstel.nn._placed import Placed
from amstel.nn._recompute import recomputed
from amstel.nn.conv_gru import ConvGRUCell
from amstel.nn.unet import Conv3x3, RecurrentUNet, activated
from amstel.ops._raw import channels_last
from amstel.reference.rim import as_complex, psi

State = tuple[Tensor | None, Tensor | None]

#: The networks, and how many features each has unless it is told.
WIDTHS = {"conv": 64, "unet": 16}
#: Names of the bundled weights.
PRETRAINED = ("gray", "gray_conv", "color", "3task", "sr", "mri", "complex")
#: Of those, and of old ones, which are not named as their file.
_FILES = {"gray": "gray_unet", "grey": "gray_conv", "colour": "color"}
#: Names of the last release, and where to look now.
_OLD = {"grey": "'gray', a better network (this one is 'gray_conv')", "colour": "'color'"}
#: What only "conv" can be told, and the values that "unet" takes for it.
_OF_CONV = {
    **{"stride": 1, "kernel_sizes": (5, 3, 3), "gru_kernel_size": 1, "dilation": 1},
    **{"padding_mode": "zeros", "reset": "after", "state_relu": False},
}


class RIM(nn.Module, metaclass=Placed):
    r"""A learned iteration that turns the gradient of the log-likelihood into updates of the estimate.

    .. code-block:: text

        x_t = Ψ(η_t)      g_t = Ψ'(η_t) ⊙ A^H (A x_t - y) / σ²
        η_{t+1} = η_t + h(g_t, η_t, s_t)      s_{t+1} = h*(g_t, η_t, s_t)

    where h is a small network that sees the forward model A only through the gradient. There are two networks:

    * "conv", the network of the paper, with two convolutional GRUs: convolution 5x5, ReLU, GRU, convolution 3x3,
      ReLU, GRU, convolution 3x3.
    * "unet", `amstel.nn.unet.RecurrentUNet`, which has a much larger receptive field for the same time: a U-Net with
      four scales and no biases, with a GRU at an eighth of the size. It passes its last features on to the next step.
      It reads η_t, σ² g_t and a map of σ, with σ = `physics.sigma`, a number, a tensor [N] or a map [N, 1, H, W]; 1
      if the physics has none.

    Args:
        channels: C of the images; 2 for complex images, as real and imaginary part.
        features: channels of "conv" and of its two states, default 64; channels of "unet" at full size, default 16,
            with two, four and eight times as many at the coarser scales.
        steps: T, the number of estimates.
        link: Ψ, "identity", or "logistic" for images between 0 and 1, Ψ(η) = 1 / (1 + exp(-η)).
        detach_gradient: in training, stop the gradient at g_t, so that the gradient of the forward model is not
            needed. It still flows through η_t and the states.
        network: "conv" or "unet". All further arguments except memory, use_estimate, recurrent, depth and
            gradient_step are for "conv" only.
        stride: of the first convolution; the last one turns one pixel into stride². The network is about stride²
            times as fast, and its receptive field stride times as large.
        memory: what is kept for the gradient; the results are bit-identical. "store": everything; "recompute": η and
            the two states of each step, about a sixth, and repeats the forward pass by half steps (at its peak,
            training with 10 steps takes 1.3 times the memory of these states); "chunked": those of every
            sqrt(T)-th step, and repeats the forward pass twice; a number k: those of every k-th step.
        use_estimate: whether the network sees η_t, or g_t alone.
        recurrent: whether there are states. False: each GRU is replaced by two convolutions with ReLU and as many
            weights; in "unet" it is left out.
        kernel_sizes: of the three convolutions, odd. gru_kernel_size: of the GRUs.
        dilation: of the second convolution.
        gradient_step: α of a plain gradient step, added to that of the network: η_{t+1} = η_t - α g_t + h(g_t, η_t, s_t).
        depth: number of convolutions with ReLU between the two GRUs; for "unet", of residual blocks per scale, on the
            way down and on the way up.
        padding_mode: of the three convolutions, "zeros", "replicate" or "reflect".
        reset: of the GRUs, see `amstel.nn.ConvGRUCell`.
        state_relu: whether a GRU's output goes through a ReLU on its way to the next convolution.

    `model(y, physics, steps=None, initial=None)` returns the list of estimates x_1 ... x_T, the last of which is the
    result, in the shape and dtype of `physics.adjoint(y)`: [N, C, H, W], or complex [N, H, W] with C = 2.

    * y: measurements.
    * physics: a model of `amstel.inverse`, or anything with `.adjoint(y)`, `.gradient(x, y)`, and perhaps `.prepare(y)`.
    * steps: T for this call. Running many more steps than in training diverges, so `trained_steps`, which
      `pretrained` sets, is the largest T that the model accepts; None: any.
    * initial: x_0; None: `physics.adjoint(y)`. With the logistic link it is clamped to [0.01, 0.99] first, so that η_0
      is finite and Ψ' there is not 0.

    `step(given, state)` is h alone. Differentiable in y, initial and the parameters. Works under torch.compile, in
    DistributedDataParallel, and under autocast, where η and the physics keep the dtype of `initial`.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: with C' features, 50 C C' + 9 C'² + 9 C C' + 12 C'² multiplications per pixel and step; "unet" about
    190 C'² + 36 C C'.

    Source: P. Putzky, M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv 1706.04008,
    equations 7-9 and section 4.1.

    Example:
        >>> physics = amstel.inverse.Denoising(sigma=25 / 255)
        >>> model = amstel.nn.RIM(channels=1, features=8, steps=3)
        >>> estimates = model(torch.rand(2, 1, 16, 16), physics)
        >>> len(estimates), estimates[-1].shape
        (3, torch.Size([2, 1, 16, 16]))
    """

    def __init__(
        self,
        channels: int = 1,
        features: int | None = None,
        steps: int = 10,
        link: str = "identity",
        detach_gradient: bool = False,
        *,
        network: str = "conv",
        stride: int = 1,
        memory: str | int = "store",
        use_estimate: bool = True,
        recurrent: bool = True,
        kernel_sizes: tuple[int, int, int] = (5, 3, 3),
        gru_kernel_size: int = 1,
        dilation: int = 1,
        depth: int = 1,
        gradient_step: float = 0.0,
        padding_mode: str = "zeros",
        reset: str = "after",
        state_relu: bool = False,
    ):
        super().__init__()
        #: The most steps that forward takes; None: any number.
        self.trained_steps: int | None = None
        #: Lowest and highest standard deviation of the noise that the weights were trained with, where that is known.
        self.trained_sigma: tuple[float, float] | None = None
        #: What the weights were trained for: "gray", "color", "3task", "sr", "mri" or "complex", where that is known.
        self.trained_task: str | None = None
        _check.choice("network", network, tuple(WIDTHS))
        features = WIDTHS[network] if features is None else features
        #: The arguments, from which the model can be built again.
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        counts = ("channels", "features", "steps", "stride", "gru_kernel_size", "dilation", "depth")
        self.options |= {name: _check.integer(name, self.options[name], 1) for name in counts}
        numbers = (self.options[n] for n in counts)
        channels, features, steps, stride, gru_kernel_size, dilation, depth = numbers
        _check.choice("link", link, ("identity", "logistic"))
        if not isinstance(memory, str) or memory not in ("store", "recompute", "chunked"):
            _check.integer("memory", memory, 1, "'store', 'recompute', 'chunked' or an integer >= 1")
        if not isinstance(kernel_sizes, (tuple, list)):
            _check.fail_type("kernel_sizes", "three odd numbers", kernel_sizes)
        self.options["kernel_sizes"] = sizes = tuple(kernel_sizes)
        if len(sizes) != 3 or not all(isinstance(k, int) and k > 0 and k % 2 for k in sizes):
            _check.fail("kernel_sizes", "three odd numbers", kernel_sizes)
        _check.choice("padding_mode", padding_mode, ("zeros", "replicate", "reflect"))
        self._least = 1 + max(sizes[0] // 2, stride * max(dilation * (sizes[1] // 2), sizes[2] // 2))
        self.channels, self.features, self.steps, self.link = channels, features, steps, link
        self.network, self.stride, self.memory = network, stride, memory
        self.gradient_step = float(_check.number("gradient_step", gradient_step, "a number"))
        self.options["gradient_step"] = self.gradient_step
        names = "detach_gradient", "use_estimate", "recurrent", "state_relu"
        flags = (_check.flag(name, self.options[name]) for name in names)
        self.detach_gradient, self.use_estimate, self.recurrent, self.state_relu = flags

        if network == "unet":
            for name, usual in _OF_CONV.items():
                if self.options[name] != usual:
                    _check.fail(name, f"{usual!r}, which it always is in network='unet'", self.options[name])
            inputs = channels * (2 if use_estimate else 1) + 1
            self.unet = RecurrentUNet(inputs, channels, features, depth, self.recurrent)
            with torch.no_grad():
                self.unet.tail.weight.mul_(0.1)  # begin near the measurement
            return

        def conv(inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
            padding = dilation * (size // 2)
            options: Any = {"padding_mode": padding_mode}
            plain = size == 3 and stride == dilation == 1 and padding_mode == "zeros"
            kind = Conv3x3 if plain and inputs == outputs == features else nn.Conv2d
            return kind(inputs, outputs, size, stride, padding, dilation, **options)

        def unit() -> nn.Module:
            if recurrent:
                # The gates of a 1x1 GRU follow from its input and its state, which are there in any case.
                kept = "store" if memory == "store" or gru_kernel_size > 1 else "recompute"
                return ConvGRUCell(features, features, gru_kernel_size, reset=reset, memory=kept)
            size: Any = {"kernel_size": gru_kernel_size, "padding": "same"}
            return nn.Sequential(
                nn.Conv2d(features, 3 * features, **size),
                nn.ReLU(),
                nn.Conv2d(3 * features, features, **size),
                nn.ReLU(),
            )

        self.conv1 = conv(2 * channels if use_estimate else channels, features, sizes[0], stride)
        self.gru1 = unit()
        self.conv2 = conv(features, features, sizes[1], dilation=dilation)
        self.deep = nn.ModuleList(
            conv(features, features, sizes[1], dilation=dilation) for _ in range(depth - 1)
        )
        self.gru2 = unit()
        self.conv3 = conv(features, channels * stride**2, sizes[2])
        # Gradients are a few times larger than images, and a first step of the size of the image would be far too long.
        with torch.no_grad():
            self.conv1.weight[:, -channels:] *= 0.1
            self.conv3.weight.mul_(0.1)
            self.conv3.bias.zero_()  # type: ignore[union-attr]

    @classmethod
    def pretrained(cls, name: str) -> RIM:
        """A network with bundled weights, "gray", "color", "3task", "sr", "mri" or "complex", in evaluation mode.

        "gray" and "color" are denoisers, and "complex" is a denoiser for complex images, as two channels. "sr"
        enlarges a gray image by 2, 3 or 4. "mri" reconstructs complex images from several coils. "3task" denoises,
        inpaints and enlarges. All are U-Nets except "gray_conv", the gray denoiser of the previous release. See their
        cards. Needs the extra [restore].

        Example:
            >>> physics, y = amstel.inverse.Denoising(sigma=25 / 255), 0.5 + 25 / 255 * torch.randn(1, 1, 32, 32)
            >>> bool(amstel.nn.RIM.pretrained("gray")(y, physics)[-1].std() < y.std() / 3)
            True
        """
        from amstel import weights

        if name in _OLD:
            warnings.warn(f"RIM.pretrained({name!r}) is now {_OLD[name]}", DeprecationWarning, stacklevel=2)
        if name not in (*PRETRAINED, *_OLD):
            _check.fail("name", f"one of {', '.join(PRETRAINED)}", name)
        file = f"rim_{_FILES.get(name, name)}"
        said = weights.metadata(file)
        model = cls(**json.loads(said["options"]))
        state = weights.load(file)
        model.to(next(iter(state.values())).dtype).load_state_dict(state)  # whatever torch's default dtype is
        model.trained_steps = int(said.get("trained_steps", model.steps))
        settings = json.loads(said.get("settings", "{}"))
        task = settings.get("task")
        model.trained_task = {"grey": "gray", "colour": "color"}.get(task, task)
        if model.trained_task in ("gray", "color", "3task", "complex"):
            low, high = settings["sigma"]
            model.trained_sigma = low / 255, high / 255
        return model.eval()

    def step(
        self, given: Tensor, state: State = (None, None), sigma: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The update of η from the network's input, [η_t, g_t] or g_t alone, and the next state.

        `sigma`, [N] or [N, 1, H, W], is for the U-Net, which reads σ² g_t and σ; None: 1.
        """
        if self.network == "unet":
            return self.unet(self._levelled(given, sigma), state)
        h1 = self._first(given, state[0])
        update, h2 = self._second(h1, state[1], given.shape[2:])
        return update, (h1, h2) if self.recurrent else (None, None)

    def _first(self, given: Tensor, h1: Tensor | None) -> Tensor:
        """The half of a step up to its first state."""
        return self._unit(self.gru1, activated(self.conv1, given), h1)

    def _second(self, h1: Tensor, h2: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The other half: the update and the second state."""
        x = self._passed(h1)
        for conv in (self.conv2, *self.deep):
            x = activated(conv, x)
        h2 = self._unit(self.gru2, x, h2)
        update = self.conv3(self._passed(h2))
        if self.stride > 1:
            update = pixel_shuffle(update, self.stride)[:, :, : size[0], : size[1]]
        return update, h2

    def _levelled(self, given: Tensor, sigma: Tensor | None) -> Tensor:
        """[η, σ² g, σ]: all in the units of the image, so that the U-Net need not learn to divide by σ²."""
        n, _, height, width = given.shape
        level = given.new_ones(n) if sigma is None else sigma.to(given)
        level = level if level.dim() == 4 else level.reshape(-1, 1, 1, 1)
        c = given.shape[1] - self.channels
        parts = [given[:, :c], given[:, c:] * level.square(), level.expand(n, 1, height, width)]
        return channels_last(torch.cat(parts, 1))

    def _unit(self, unit: nn.Module, x: Tensor, h: Tensor | None) -> Tensor:
        return unit(x, h) if self.recurrent else unit(x)

    def _passed(self, h: Tensor) -> Tensor:
        return relu(h) if self.state_relu else h

    def forward(
        self, y: Tensor, physics: Any, steps: int | None = None, initial: Tensor | None = None
    ) -> list[Tensor]:
        """The estimate after every step, images as of `physics.adjoint(y)`, which is also x_0 where initial is None."""
        steps = self.steps if steps is None else steps
        steps = _check.integer("steps", steps, 1)
        if self.trained_steps is not None and steps > self.trained_steps:
            expected = f"at most {self.trained_steps}, as these weights were trained; more steps diverge"
            _check.fail("steps", expected, steps)
        if not (hasattr(physics, "adjoint") and hasattr(physics, "gradient")):
            raise TypeError(f"`physics` must have .adjoint and .gradient, got {_check.describe(physics)}")
        name = "initial" if initial is not None else "physics.adjoint(y)"
        x = self._images(name, physics.adjoint(y) if initial is None else initial)
        complex_ = x.is_complex()
        eta = torch.view_as_real(x.resolve_conj()).permute(0, 3, 1, 2) if complex_ else x
        if self.link == "logistic":
            eta = torch.logit(eta, 0.01)
        sigma = sigma_of(physics, x) if self.network == "unet" else None
        run = self._run(likelihood_of(y, physics, complex_), sigma)
        etas = run(eta, None, None, steps)[:-2]
        estimates = [psi(e, self.link) for e in etas]
        if complex_:
            return [as_complex(e) for e in estimates]
        return estimates

    def _run(
        self, network_input: Callable[[Tensor, str], Tensor], sigma: Tensor | None
    ) -> Callable[..., Any]:
        """(η, h1, h2, k) -> k times the next η, and the states after them."""

        def moved(eta: Tensor, update: Tensor, given: Tensor) -> Tensor:
            update = update.to(eta.dtype)
            if self.gradient_step:
                update = update - self.gradient_step * given[:, -self.channels :].to(eta.dtype)
            return eta + update

        def once(eta: Tensor, h1: Tensor | None, h2: Tensor | None) -> tuple:
            given = self._given(eta, network_input)
            update, state = self.step(given, (h1, h2), sigma)
            return moved(eta, update, given), *state

        def first(eta: Tensor, h1: Tensor | None) -> tuple:
            given = self._given(eta, network_input)
            return self._first(given, h1), given[:, -self.channels :] if self.gradient_step else given[:0]

        def halves(eta: Tensor, h1: Tensor | None, h2: Tensor | None) -> tuple:
            h1, gradient = recomputed(first, eta, h1)
            update, h2 = recomputed(self._second, h1, h2, eta.shape[2:])
            return moved(eta, update, gradient), h1, h2

        # Between the halves there is a state, which is kept anyway: so the second pass holds the gates of one GRU at a time.
        own = getattr(self.step, "__func__", None) is RIM.step
        again = halves if own and self.network == "conv" and self.recurrent else partial(recomputed, once)

        def store(eta: Tensor, h1: Any, h2: Any, steps: int, kept: bool = True) -> tuple:
            etas = []
            for _ in range(steps):
                eta, h1, h2 = once(eta, h1, h2) if kept else again(eta, h1, h2)
                etas.append(eta)
            return *etas, h1, h2

        def chunked(eta: Tensor, h1: Any, h2: Any, steps: int) -> tuple:
            size = self.memory if isinstance(self.memory, int) else math.isqrt(steps - 1) + 1
            etas: list[Tensor] = []
            for first in range(0, steps, size):
                count = min(size, steps - first)
                *found, h1, h2 = recomputed(store, eta, h1, h2, count, False)
                etas += found
                eta = etas[-1]
            return *etas, h1, h2

        if self.memory == "store" or not torch.is_grad_enabled() or is_exporting():
            return store
        return chunked if self.memory != "recompute" else partial(store, kept=False)

    def _given(self, eta: Tensor, network_input: Callable[[Tensor, str], Tensor]) -> Tensor:
        """The network's input."""
        c = self.channels
        if not self.detach_gradient:
            given = network_input(eta, self.link)
            return given if self.use_estimate else given[:, c:]
        with torch.no_grad():
            gradient = network_input(eta, self.link)[:, c:]
        if not self.use_estimate:
            return gradient
        return channels_last(torch.cat([eta, gradient], 1))

    def _images(self, name: str, x: Tensor) -> Tensor:
        expected = f"floating-point [N, {self.channels}, H, W]" + (
            ", or complex [N, H, W]" if self.channels == 2 else ""
        )
        _check.dense(name, x, expected)
        if x.is_complex():
            fits = x.dim() == 3 and self.channels == 2
        else:
            fits = x.dim() == 4 and x.shape[1] == self.channels and x.is_floating_point()
        if not fits:
            _check.fail(name, f"{expected} in this RIM of {counted(self.channels, 'channel')}", x)
        check_like_model(name, x, self)
        if self.options["padding_mode"] == "reflect" and min(x.shape[-2:]) < getattr(self, "_least", 1):
            _check.fail(name, f"at least {self._least} high and wide for padding_mode='reflect'", x)
        return x

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
