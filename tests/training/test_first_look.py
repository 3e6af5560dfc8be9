"""What is tried before a run begins: every stage of an augmentation set by name, and no trace left."""

import pytest
import torch

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import open_source
from bt_multimodal.training.first_look import check_augmentations
from encoders.audio.modality import AUDIO
from encoders.audio.views import SpectrogramViews
from encoders.image.modality import IMAGES
from encoders.image.views import DigitViews


class Digits(AugmentationSet):
    """A set that works, of which each case breaks one member."""

    draws = 2

    def decode(self, raw):
        return torch.from_numpy(raw).float()

    def draw(self, u, view):
        return {"gain": u[:, 0], "offset": u[:, 1]}

    def on_record(self, decoded, parameters):
        return decoded * parameters["gain"]

    def on_batch(self, data, parameters, view):
        return data + parameters["offset"][:, None, None]

    def clean_batch(self, data):
        return data


def ragged(self, decoded, *parameters):
    return decoded[: 1 + int(decoded.sum()) % 7]


CASES = {
    "too few random numbers": ({"draws": 1}, r"draw\(u \[4, 1\], 0\) fails: IndexError: .*more random"),
    "no dict": ({"draw": lambda self, u, view: u}, "draw returns a dict of tensors by name, not a Tensor"),
    "parameters of another batch": (
        {"draw": lambda self, u, view: {"gain": u[:1, 0], "offset": u[:, 1]}},
        r"draw: the first axis of 'gain' must be the 4 samples, got \[1\]",
    ),
    "a parameter that is no tensor": (
        {"draw": lambda self, u, view: {"gain": u[:, 0], "offset": 0.5}},
        "draw: the first axis of 'offset' must be the 4 samples, got float",
    ),
    "ragged records": ({"on_record": ragged}, r"samples of different shapes, such as .*on_record"),
    "ragged clean records": ({"clean": ragged}, r"samples of different shapes, such as .*clean"),
    "a parameter that is not drawn": (
        {"on_record": lambda self, decoded, p: decoded * p["gian"]},
        r"in the worker's stage, fails: KeyError: 'gian'",
    ),
    "the device's stage": (
        {"on_batch": lambda self, data, p, view: data + p["offset"][:3]},
        "in the device's stage, fails: RuntimeError: The size of tensor",
    ),
    "an attribute": ({"clean": lambda self, decoded: self.sise}, r"clean fails: AttributeError: .*sise"),
    "the clean batch": (
        {"clean_batch": lambda self, data: data.reshape(3, 3)},
        r"clean_batch fails: RuntimeError: shape '\[3, 3\]' is invalid",
    ),
}  # fmt: skip


def records_for(augmentations, source="sklearn:digits", modality=IMAGES):
    return DecodedRecords(open_source(source, modality).train, augmentations.decode)


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_named_by_its_stage(case):
    members, message = CASES[case]
    augmentations = type("Broken", (Digits,), members)()
    with pytest.raises(ValueError, match=message) as caught:
        check_augmentations(augmentations, records_for(augmentations))
    assert "Broken" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("augmentations", [Digits(), DigitViews()], ids=lambda it: type(it).__name__)
def test_a_set_that_works_passes(augmentations):
    check_augmentations(augmentations, records_for(augmentations))


def test_what_a_set_remembers_is_as_before():
    augmentations = SpectrogramViews(memory=8, mean=0.0, std=1.0)
    records = records_for(augmentations, "synthetic", AUDIO)
    check_augmentations(augmentations, records)
    assert augmentations.get_extra_state() == {"past": None, "given": 0}
    augmentations.set_extra_state({"past": torch.ones(8, 1, 64, 101), "given": 8})
    check_augmentations(augmentations, records)
    state = augmentations.get_extra_state()
    assert torch.equal(state["past"], torch.ones(8, 1, 64, 101))
    assert state["given"] == 8
