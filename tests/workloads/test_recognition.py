"""Recognition: what the trained network tells of a clip, from memory or from a file."""

from pathlib import Path

import pytest
import torch

from kit import clips
from kit.errors import ClipError
from kit.models import trained_two_stream
from kit.workloads.recognition import halves, recognise


@pytest.mark.parametrize(("texture", "motion", "seed"), [("rings", "left", 1), ("stripes", "down", 2)])
def test_a_clip_of_known_labels_is_recognised_also_from_a_file(
    texture: str, motion: str, seed: int, tmp_path: Path
) -> None:
    clip = clips.labelled(texture, motion, seed=seed)
    told = recognise(clip, trained_two_stream())
    assert (told.texture[0].name, told.motion[0].name) == (texture, motion)
    for guesses, names in ((told.texture, clips.TEXTURES), (told.motion, clips.MOTIONS)):
        assert {guess.name for guess in guesses} == set(names)
        assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=1e-5)
        assert list(guesses) == sorted(guesses, key=lambda guess: -guess.probability)
    clips.save(clip, tmp_path / "clip.mp4")
    filed = recognise(tmp_path / "clip.mp4")
    assert (filed.texture[0].name, filed.motion[0].name) == (texture, motion)


def test_the_scores_are_those_of_the_whole_network() -> None:
    clip, model = clips.labelled("dots", "up", seed=3), trained_two_stream()
    frame, flow = (torch.from_numpy(x) for x in clips.two_stream_inputs(clip, size=96))
    with torch.inference_mode():
        texture, motion = halves(model(frame, flow))
    told = recognise(clip, model)
    assert dict(told.texture)["dots"] == pytest.approx(float(texture[0, clips.TEXTURES.index("dots")]), abs=1e-5)
    assert dict(told.motion)["up"] == pytest.approx(float(motion[0, clips.MOTIONS.index("up")]), abs=1e-5)


def test_every_stage_has_its_time_and_words() -> None:
    told = recognise(clips.generate(frames=11, height=64, width=64))
    assert list(told.stages_ms) == ["decode", "flow", "spatial", "temporal", "fusion"]
    assert all(ms >= 0 for ms in told.stages_ms.values())
    assert "generated scene, seed 0" in str(told)
    assert "temporal" in str(told)
    plain = told.to_dict()
    assert plain["motion"][0].keys() == {"name", "probability"}


def test_a_clip_too_short_is_refused() -> None:
    with pytest.raises(ClipError, match="needs 11 frames, but there are 3"):
        recognise(clips.generate(frames=3, height=64, width=64))
