"""A step as a function of tensors: what is remembered is an input and an output, as other runtimes need it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from kit.errors import KitError
from kit.models.continual.convert import State, Stepper


class PureStep(nn.Module):
    """A step of a network within a stream: ``(*frames, *remembered) -> (output, *remembered after it)``.

    A graph of another runtime has a fixed number of inputs and outputs, of fixed shapes. A step has them from the frame
    on with which every frame brings an output and all earlier frames that layers look at are there. What comes before
    has to run in PyTorch.

    >>> from kit.models.continual import PureStep, stepper
    >>> net, state = stepper(nn.Sequential(nn.Conv3d(3, 4, 3)).eval()), None
    >>> for frame in torch.rand(2, 1, 3, 8, 8):
    ...     out, state = net(frame, state)
    >>> step = PureStep(net, state)
    >>> out, *remembered = step(torch.rand(1, 3, 8, 8), *step.remembered)
    >>> out.shape
    torch.Size([1, 4, 6, 6])

    Args:
        net: from :func:`kit.models.continual.stepper`.
        state: after so many frames; ``remembered`` are its tensors, in order.
        streams: of frames that a step takes: 1, but for an outer region with several.

    Raises:
        KitError: in a call, no output is due after this state, or what is remembered after it has other shapes.
    """

    def __init__(self, net: Stepper, state: State, streams: int = 1) -> None:
        super().__init__()
        self.step, self.time, self.streams = net.step, net.layout.time, streams
        leaves, self.shape = tree_flatten(state.layers)
        self.others = [None if isinstance(x, Tensor) else x for x in leaves]
        self.remembered = tensors(leaves)
        self.eval()

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        frames, earlier = [x.unsqueeze(self.time) for x in given[: self.streams]], iter(given[self.streams :])
        before = tree_unflatten([next(earlier) if x is None else x for x in self.others], self.shape)
        out, after = self.step(frames[0] if self.streams == 1 else tuple(frames), before)
        leaves, shape = tree_flatten(after)
        if (
            out is None
            or shape != self.shape
            or [x for x in leaves if not isinstance(x, Tensor)] != [x for x in self.others if x is not None]
        ):
            raise KitError(
                "after this state a step brings no output, or leaves a state of another form: give a state of more "
                "frames, and a network without stride in time."
            )
        return out.squeeze(self.time), *tensors(leaves)


def tensors(leaves: Sequence[object]) -> list[Tensor]:
    """The tensors among the leaves of a state, in order."""
    return [x for x in leaves if isinstance(x, Tensor)]
