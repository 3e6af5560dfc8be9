"""Extraction leaves the encoder as found, names damaged records, and a table survives its file."""

import pytest
import torch
from torch import Tensor, nn

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import DataError
from bt_multimodal.evaluation.features import (
    FeatureTable,
    extract_features,
    load_features,
    raw_features,
    save_features,
)


class Augmentations:
    draws = 0

    def decode(self, raw: bytes) -> Tensor:
        if b"!" in raw:
            raise OSError("broken\nstream")
        return torch.tensor(list(raw), dtype=torch.uint8)

    def clean(self, decoded: Tensor) -> Tensor:
        return decoded[:4]

    def clean_batch(self, data: Tensor) -> Tensor:
        return data.float() / 255

    def draw(self, u, view):
        raise AssertionError("evaluation draws nothing")

    on_record = on_batch = draw


class Records:
    classes = ("even", "odd")

    def __init__(self, raws: list[bytes]):
        self.raws, self.labels = raws, torch.arange(len(raws)) % 2

    def __len__(self) -> int:
        return len(self.raws)

    def raw(self, index: int) -> bytes:
        return self.raws[index]

    def name(self, index: int) -> str:
        return f"folder/{index}.bin"


def make_encoder() -> nn.Module:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    encoder.features_dim = 3  # type: ignore[assignment]
    return encoder


def decoded(raws: list[bytes], allowed: float = 0.01) -> DecodedRecords:
    return DecodedRecords(Records(raws), Augmentations().decode, allowed=allowed)  # type: ignore[arg-type]


RAWS = [bytes(range(i, i + 6)) for i in range(7)]
RECORDS = decoded(RAWS)
# Four products and a bias, then BatchNorm's four operations, all of numbers below 1: ten roundings of
# float32, in an order that may depend on the batch.
ROUNDING = 10 * torch.finfo(torch.float32).eps


def test_features_are_those_of_the_eval_mode_encoder_for_any_batch_size():
    encoder = make_encoder()
    encoder[2].eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    table = extract_features(encoder, Augmentations(), RECORDS, batch_size=3)
    assert [m.training for m in encoder.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())

    inputs = torch.tensor([list(raw[:4]) for raw in RAWS]) / 255
    torch.testing.assert_close(table.features, encoder.eval()(inputs).detach())
    assert table.features.dtype == torch.float32
    assert not table.features.requires_grad
    assert not table.features.is_inference()
    assert table.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert table.labels.dtype == torch.int64
    assert table.classes == ["even", "odd"]
    torch.testing.assert_close(
        raw_features(Augmentations(), RECORDS, lambda view: view.flatten(1)).features, inputs
    )


def test_half_precision_becomes_float32():
    encoder = make_encoder().to(torch.bfloat16)
    augmentations = Augmentations()
    augmentations.clean_batch = lambda data: data.bfloat16()  # type: ignore[method-assign]
    assert extract_features(encoder, augmentations, RECORDS).features.dtype == torch.float32


def test_damaged_records_are_left_out_and_too_many_restore_the_mode():
    encoder = make_encoder()
    raws = [b"!", *RAWS, b"!!"]
    with pytest.warns(UserWarning, match=r"damaged record folder/[08].bin: OSError: broken stream"):
        table = extract_features(encoder, Augmentations(), decoded(raws, allowed=0.5), batch_size=2)
    expected = extract_features(encoder, Augmentations(), RECORDS).features
    torch.testing.assert_close(table.features, expected, rtol=0, atol=ROUNDING)
    assert table.labels.tolist() == [1, 0, 1, 0, 1, 0, 1]
    records = decoded(raws + [b"!"] * 4)
    many = pytest.raises(DataError, match="6 of 13 damaged so far, over the allowed 5")
    with pytest.warns(UserWarning, match="damaged record"), many:
        extract_features(encoder, Augmentations(), records, batch_size=2)
    assert all(m.training for m in encoder.modules())


class Wide(nn.Linear):
    features_dim = 5


@pytest.mark.parametrize(
    ("encoder", "raws", "batch_size", "message"),
    [
        (nn.Linear(4, 3), RAWS, 4, "needs features_dim"),
        (Wide(4, 3), RAWS, 4, r"features_dim = 5 but returned \[4, 3\]"),
        (make_encoder(), [], 4, "no records"),
        (make_encoder(), RAWS, 0, "batch_size must be 1 or more, not 0"),
        (
            make_encoder(),
            [b"abcd", b"ab"],
            4,
            r"the same shape: folder/1.bin is \[2\], folder/0.bin is \[4\]",
        ),
    ],
)
def test_wrong_inputs(encoder, raws, batch_size, message):
    with pytest.raises(ValueError, match=message):
        extract_features(encoder, Augmentations(), decoded(raws), batch_size)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_no_such_device(device):
    with pytest.raises(ValueError, match=f"there is no device '{device}': ") as caught:
        extract_features(make_encoder(), Augmentations(), RECORDS, device=device)
    assert "\n" not in str(caught.value)


def test_a_table_survives_its_file(tmp_path):
    table = FeatureTable(torch.randn(5, 3).T.contiguous().T, torch.tensor([0, 1, -1, 1, 0]), ["é, a", "b"])
    save_features(tmp_path / "table.safetensors", table)
    loaded = load_features(tmp_path / "table.safetensors")
    assert torch.equal(loaded.features, table.features)
    assert torch.equal(loaded.labels, table.labels)
    assert loaded.classes == table.classes


def test_files_that_hold_no_table(tmp_path):
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="holds no feature table"):
        load_features(tmp_path / "junk")
    with pytest.raises(OSError, match="missing"):
        load_features(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"labels \[N\], not \[5, 3\] and \[4\]"):
        save_features(tmp_path / "x", FeatureTable(torch.ones(5, 3), torch.zeros(4, dtype=torch.int64), []))
