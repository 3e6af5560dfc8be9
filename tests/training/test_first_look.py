"""What is tried before a run begins: every stage of an augmentation set by name, and no trace left."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import open_source
from bt_multimodal.training.first_look import _check_views, check_augmentations
from encoders.audio.modality import AUDIO
from encoders.audio.views import SpectrogramViews
from encoders.audio.waveform_views import WaveformViews
from encoders.image.modality import IMAGES
from encoders.image.views import DigitViews, ReferenceViews, SmallImageViews
from encoders.text.views import TextViews


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


class Given:
    """Records of given contents."""

    classes: list[str] = []  # noqa: RUF012

    def __init__(self, contents):
        self.contents, self.labels = contents, torch.full((len(contents),), -1)

    def __len__(self):
        return len(self.contents)

    def raw(self, i):
        return self.contents[i]

    def name(self, i):
        return f"record {i}"


def looked_at(contents, views):
    views.learn(contents)
    check_augmentations(views, DecodedRecords(Given(contents), views.decode))


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format="WAV")
    return buffer.getvalue()


RNG = np.random.default_rng(0)
PICTURES = [png(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(8)]
SOUNDS = [wav(RNG.uniform(-0.5, 0.5, 20_000)) for _ in range(8)]
BLACK, SILENCE = png(np.zeros((9, 9, 3), np.uint8)), wav(np.zeros(20_000))
FLAT = [png(np.full((9, 9, 3), (30 * i, 7, 200), np.uint8)) for i in range(8)]
NOTHING = {
    "black pictures": ([BLACK] * 8, SmallImageViews, "8 records that were looked at are all the same"),
    "flat pictures": (FLAT, SmallImageViews, "is constant"),
    "flat pictures of several sizes": (
        [png(np.full((9, 9 + i, 3), 10 * i, np.uint8)) for i in range(8)], ReferenceViews, "is constant"),
    "black digits": ([png(np.zeros((9, 9), np.uint8))] * 8, DigitViews, "all the same"),
    "one picture": ([PICTURES[0]] * 100, ReferenceViews, "64 records that were looked at are all the same"),
    "silence": ([SILENCE] * 8, SpectrogramViews, "all the same"),
    "silence of several lengths": (
        [wav(np.zeros(9000 + i)) for i in range(8)], WaveformViews, "is constant"),
    "one sound": ([SOUNDS[0]] * 8, WaveformViews, "all the same"),
    "one text": ([b"the same text"] * 8, TextViews, "all the same"),
    "empty texts": ([b""] * 8, lambda: TextViews("bytes"), "all the same"),
}  # fmt: skip
SOMETHING = {
    "some black pictures": ([BLACK] * 7 + PICTURES, SmallImageViews),
    "black pictures first": ([BLACK] * 30 + PICTURES * 5, ReferenceViews),
    "silence first": ([SILENCE] * 30 + SOUNDS, WaveformViews),
    "flat and one other": (FLAT + PICTURES[:1], SmallImageViews),
    "one text first": ([b"the same"] * 5 + [b"another"], TextViews),
    "texts of one token": ([b"a", b"b", b"c", b"d", b"e"], lambda: TextViews("bytes")),
    "two pictures": (PICTURES[:2], SmallImageViews),
    "one record": (PICTURES[:1], SmallImageViews),
}


@pytest.mark.parametrize(("contents", "views", "message"), NOTHING.values(), ids=NOTHING)
def test_nothing_to_learn_from_is_named(contents, views, message):
    views = views() if views is not SpectrogramViews else views(mean=0.0, std=1.0)
    with pytest.raises(ValueError, match=f"nothing to learn from: .*{message}.*, such as record 0"):
        looked_at(contents, views)


@pytest.mark.parametrize(("contents", "views"), SOMETHING.values(), ids=SOMETHING)
def test_something_to_learn_from_passes(contents, views):
    looked_at(contents, views())


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (torch.zeros(8, 3, 8, 8), "the same view of all 8 samples"),
        (
            {"input_ids": torch.ones(8, 5, dtype=torch.int64), "attention_mask": torch.ones(8, 5)},
            "the same view",
        ),
        (torch.full((4, 8), torch.nan), "without a finite value"),
        (torch.full((4, 8), torch.inf), "without a finite value"),
        (torch.eye(8), None),
        ({"input_ids": torch.eye(8).long(), "attention_mask": torch.ones(8, 8)}, None),
        (torch.zeros(1, 8), None),
        ([torch.zeros(8, 3)], None),
        (torch.zeros(4, 8), None),
    ],
)
def test_views_that_are_all_alike_are_named(view, message):
    if message is None:
        _check_views("Views", view)
        return
    with pytest.raises(ValueError, match=f"^Views gives .*{message}"):
        _check_views("Views", view)
