"""A step as a function of tensors."""

import pytest
import torch
from torch import nn

from kit.equality import compare_outputs
from kit.errors import KitError
from kit.models.continual import PureStep, SlidingAttention, shallow_two_stream_3d, stepper
from kit.models.init import keep_signal


def test_what_is_remembered_goes_in_and_comes_out() -> None:
    model = keep_signal(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.MaxPool3d((2, 1, 1), 1)), 0).eval()
    net, clip = stepper(model), torch.randn(2, 3, 12, 6, 6)
    with torch.no_grad():
        _, state = net.over(clip[:, :, :5])
        step, whole = PureStep(net, state), model(clip)
        remembered = step.remembered
        for t in range(5, 12):
            before = [x.clone() for x in remembered]
            out, *after = step(clip[:, :, t], *remembered)
            assert all(map(torch.equal, before, remembered))
            assert compare_outputs(whole[:, :, t - net.delay], out).equal
            assert [x.shape for x in after] == [x.shape for x in remembered]
            remembered = after


def test_of_tokens_and_of_streams() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net, tokens = stepper(SlidingAttention(layer, 3).eval()), torch.randn(1, 6, 8)
    two, streams = (
        stepper(shallow_two_stream_3d(width=8)),
        (torch.randn(1, 3, 18, 64, 64), torch.randn(1, 2, 18, 64, 64)),
    )
    with torch.no_grad():
        _, state = net.over(tokens[:, :5])
        step = PureStep(net, state)
        assert torch.equal(step(tokens[:, 5], *step.remembered)[0], net(tokens[:, 5], state)[0])
        _, state = two.over(tuple(x[:, :, :17] for x in streams))
        step, frames = PureStep(two, state, streams=2), tuple(x[:, :, 17] for x in streams)
        assert torch.equal(step(*frames, *step.remembered)[0], two(frames, state)[0])


@pytest.mark.parametrize(("model", "frames"), [(nn.Conv3d(3, 4, 3), 2), (nn.Conv3d(3, 4, 3, padding=(2, 0, 0)), 1)])
def test_a_state_too_early_is_refused(model: nn.Module, frames: int) -> None:
    net, state = stepper(model), None
    with torch.no_grad():
        for _ in range(frames - 1):
            _, state = net(torch.randn(1, 3, 6, 6), state)
        step = PureStep(net, state or net.start())
        with pytest.raises(KitError, match="state of more frames"):
            step(torch.randn(1, 3, 6, 6), *step.remembered)


def test_a_stride_in_time_is_refused() -> None:
    net = stepper(nn.Conv3d(3, 4, 2, stride=2))
    with torch.no_grad():
        _, state = net.over(torch.randn(1, 3, 3, 6, 6))
        step = PureStep(net, state)
        with pytest.raises(KitError, match="without stride in time"):
            step(torch.randn(1, 3, 6, 6), *step.remembered)
