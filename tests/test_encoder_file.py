"""An exported encoder comes back as it was; what is no such file is refused in one line."""

import contextlib
import importlib
import io
import json
import math
import os
import socket
import sys
import warnings
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bt_multimodal.encoder_file import INITIAL, export_encoder, load_encoder
from encoders.image.encoders import ConvNet

ENCODER = {
    "class_path": "encoders.image.encoders.ConvNet",
    "init_args": {"widths": [8, 16], "in_channels": 1},
}
VIEWS = {"class_path": "encoders.image.views.DigitViews", "init_args": {"noise": 0.5}}


def test_round_trip(tmp_path):
    encoder = ConvNet([8, 16], in_channels=1).eval()
    export_encoder(tmp_path / "encoder.safetensors", encoder, ENCODER, VIEWS)
    loaded = load_encoder(tmp_path)
    x = torch.randn(3, 1, 8, 8)
    state = loaded.encoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    torch.testing.assert_close(loaded.encoder(x), encoder(x))
    assert loaded.augmentations.noise == 0.5
    assert not torch.allclose(load_encoder(tmp_path, weights=False).encoder(x), encoder(x))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]
    (tmp_path / "other").write_bytes(b"")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # as readable as any other file


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="there is no encoder at"):
        load_encoder(tmp_path)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_encoder(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no bt_multimodal.encoder/1"):
        load_encoder(tmp_path / "other.safetensors")
    encoder = ConvNet([8, 16], in_channels=1)
    wider = {**ENCODER, "init_args": {"widths": [8, 32], "in_channels": 1}}
    export_encoder(tmp_path / "misfit.safetensors", encoder, wider, VIEWS)
    with pytest.raises(ValueError, match="do not fit ConvNet"):
        load_encoder(tmp_path / "misfit.safetensors")
    missing = {"class_path": "encoders.image.encoders.Missing"}
    export_encoder(tmp_path / "missing.safetensors", encoder, missing, VIEWS)
    with pytest.raises(ValueError, match=r"cannot build encoders.image.encoders.Missing"):
        load_encoder(tmp_path / "missing.safetensors")


def exported(folder):
    encoder = ConvNet([8, 16], in_channels=1).eval()
    export_encoder(folder / "encoder.safetensors", encoder, ENCODER, VIEWS)
    return load_encoder(folder)


def test_representations_of_undecoded_contents(tmp_path):
    loaded = exported(tmp_path)
    digits = [np.full((8, 8), 3 * i, np.uint8) for i in range(10)]
    features = loaded.embed(digits, batch_size=4)
    assert features.shape == (10, loaded.encoder.features_dim)
    assert not features.requires_grad
    for i in (0, 9):
        view = loaded.augmentations.clean_batch(loaded.augmentations.decode(digits[i])[None])
        torch.testing.assert_close(features[i], loaded.encoder(view)[0].detach())
    file = io.BytesIO()
    Image.fromarray(digits[9]).save(file, "png")
    torch.testing.assert_close(loaded.embed([file.getvalue()])[0], features[9])


def test_contents_that_have_none(tmp_path):
    loaded = exported(tmp_path)
    with pytest.raises(ValueError, match="there are no contents to embed"):
        loaded.embed([])
    with pytest.raises(ValueError, match=r"content 1 \(from 0\) cannot be decoded: \w*Error: ") as caught:
        loaded.embed([np.zeros((8, 8), np.uint8), b"no picture"])
    assert "\n" not in str(caught.value)


def test_an_encoder_whose_extra_is_not_installed(tmp_path, monkeypatch):
    exported(tmp_path)
    real = importlib.import_module

    def without_torchvision(name):
        if name.startswith("encoders.image"):
            raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_torchvision)
    with pytest.raises(ValueError, match=r"'torchvision'; .*pip install 'bt_multimodal\[image\]'$"):
        load_encoder(tmp_path)


STATE_LAB = """
import torch
from torch import nn

class Kept(nn.Module):
    features_dim = 3

    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments
        self.linear = nn.Linear(2, 3)
        self.extra = None
        self.register_buffer("buffer", torch.zeros(2))

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state
"""
LAB = {"class_path": "state_lab.Kept"}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "state_lab.py").write_text(STATE_LAB)
    monkeypatch.syspath_prepend(tmp_path / "lab")
    yield importlib.import_module("state_lab")
    sys.modules.pop("state_lab", None)


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert found.layout == expected.layout
        assert found.dtype == expected.dtype
        dense = expected.to_dense() if expected.layout != torch.strided else expected
        found = found.to_dense() if found.layout != torch.strided else found
        assert found.shape == dense.shape
        if not dense.is_complex():  # torch.equal knows no float8
            found, dense = found.double(), dense.double()
        assert torch.equal(found, dense)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, float) and expected != expected:
        assert found != found
    else:
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.parametrize(
    "extra",
    [
        None, 3, True, -(10**30), 1.5, math.nan, math.inf, "text", "", "\u00e4\n", b"\x00\xff", 2 - 1j,
        {"step": 3, "scale": torch.ones(2)}, {1: "a", (2, "b"): None}, {":tensor": "x"}, {}, [], (), set(),
        {"nested": [{"deep": (torch.zeros(1, 2), [None])}]}, {3, 4}, frozenset({"a"}), torch.Size([2, 3]),
        torch.float16, torch.device("cpu"), torch.tensor(4.0), torch.zeros(0, 3),
        torch.ones(2, dtype=torch.bool),
        torch.ones(2, 2).to_sparse(),
        torch.randn(2, 3, dtype=torch.complex64), torch.randn(2, dtype=torch.complex128).conj(),
        torch.ones(3).to(torch.float8_e4m3fn), torch.ones(3, dtype=torch.uint16),
        torch.arange(6).view(2, 3).T,
        np.arange(3.0), np.float32(2.5).item(), {"a": np.ones((2, 2), np.int16)},
    ],
    ids=lambda value: repr(value)[:40].replace("\n", " "),
)  # fmt: skip
def test_state_that_is_no_plain_tensor(tmp_path, lab, extra, recwarn):
    encoder = lab.Kept()
    encoder.extra = extra
    export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)
    assert not [warning for warning in recwarn if "leaves out" in str(warning.message)]
    loaded = load_encoder(tmp_path, trust="state_lab").encoder
    same(loaded.extra, extra.resolve_conj() if isinstance(extra, torch.Tensor) and extra.is_conj() else extra)
    torch.testing.assert_close(loaded.linear.weight, encoder.linear.weight)


@pytest.mark.filterwarnings("ignore:Sparse CS")
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc])
def test_compressed_sparse_state(tmp_path, lab, layout):
    encoder = lab.Kept()
    encoder.extra = torch.eye(3).to_sparse(layout=layout)
    export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)
    same(load_encoder(tmp_path, trust="state_lab").encoder.extra, encoder.extra)


def holds_itself():
    held: list = []
    held.append(held)
    return held


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor|.*torch.quantize")
@pytest.mark.parametrize(
    "extra",
    [
        len, object(), lambda: 3, holds_itself(), torch.empty(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), {"a": [torch.ones(1), object()]},
        np.array(["a"], dtype=object), torch.Generator(),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_state_that_cannot_be_kept_is_left_out_with_a_line(tmp_path, lab, extra):
    """The weights are kept, and loading says what was left out."""
    encoder = lab.Kept()
    encoder.extra = extra
    with pytest.warns(UserWarning, match="leaves out _extra_state: ") as caught:
        export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)
    assert "\n" not in str(caught[0].message)
    with pytest.warns(UserWarning, match="does not hold _extra_state: kept as built"):
        loaded = load_encoder(tmp_path, trust="state_lab").encoder
    torch.testing.assert_close(loaded.linear.weight, encoder.linear.weight)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.tensor(3.0), torch.ones(2, 3).to_sparse(), torch.randn(2, dtype=torch.complex64),
        torch.ones(3).to(torch.float8_e5m2), torch.zeros(0), torch.ones(2, 3).T, torch.ones(1).expand(4),
        torch.ones(2, dtype=torch.bfloat16),
    ],
    ids=lambda value: f"{value.dtype} {value.layout} {list(value.shape)}",
)  # fmt: skip
def test_buffers_of_any_kind(tmp_path, lab, buffer, monkeypatch):
    encoder = lab.Kept()
    encoder.buffer = buffer
    export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)
    made = lab.Kept.__init__

    def init(self, **arguments):
        made(self, **arguments)
        self.buffer = torch.zeros_like(buffer)

    monkeypatch.setattr(lab.Kept, "__init__", init)
    same(load_encoder(tmp_path, trust="state_lab").encoder.buffer, buffer)


def test_tied_tensors_and_a_state_dict_that_fails(tmp_path, lab, monkeypatch):
    encoder = lab.Kept()
    encoder.linear.bias = torch.nn.Parameter(encoder.linear.weight[:, 0])
    export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)
    torch.testing.assert_close(
        load_encoder(tmp_path, trust="state_lab").encoder.linear.bias, encoder.linear.bias
    )
    monkeypatch.setattr(lab.Kept, "get_extra_state", lambda self: 1 / 0)
    with pytest.warns(UserWarning, match=r"leaves out state_dict\(\): ZeroDivisionError"):
        export_encoder(tmp_path / "encoder.safetensors", encoder, LAB, VIEWS)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Path("/a/b"), "/a/b"), ((1, 2), [1, 2]), ({"a": (1,)}, {"a": [1]}), (np.float32(0.5), 0.5),
        (np.arange(2), [0, 1]), (torch.device("cpu"), "cpu"), (torch.bfloat16, torch.bfloat16),
        (torch.nn.GELU, torch.nn.GELU), (None, None), ([], []), ({}, {}), ("\u00e4", "\u00e4"),
        (10**30, 10**30),
        (HTTPStatus.OK, None), (len, None), (lambda x: x, None), (object(), None), ({1: 2}, None), (3j, None),
        (holds_itself(), None),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_arguments_that_json_does_not_have(tmp_path, lab, value, kept):
    spec = {**LAB, "init_args": {"value": value, "other": 3}}
    left_out = kept is None and value is not None and not isinstance(value, HTTPStatus)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_encoder(tmp_path / "encoder.safetensors", lab.Kept(), spec, VIEWS)
    told = [
        str(warning.message) for warning in caught if "leaves out argument value of" in str(warning.message)
    ]
    assert bool(told) == left_out
    trust = ("state_lab", "http")
    expected = (
        {"other": 3} if left_out else {"value": value if isinstance(value, HTTPStatus) else kept, "other": 3}
    )
    assert load_encoder(tmp_path, trust=trust).encoder.arguments == expected


def test_the_initial_weights_of_the_run(tmp_path):
    """Every baseline takes the weights that the run began with, whatever the seed."""
    begun, trained = (ConvNet([8, 16], in_channels=1).eval() for _ in range(2))
    export_encoder(tmp_path / INITIAL, begun, ENCODER, VIEWS)
    export_encoder(tmp_path / "encoder.safetensors", trained, ENCODER, VIEWS)
    x = torch.randn(3, 1, 8, 8)
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        torch.testing.assert_close(load_encoder(path, weights=False).encoder(x), begun(x))
        torch.testing.assert_close(load_encoder(path).encoder(x), trained(x))
    torch.testing.assert_close(load_encoder(tmp_path / INITIAL, weights=False).encoder(x), begun(x))

    other = {**ENCODER, "init_args": {"widths": [8, 32], "in_channels": 1}}
    export_encoder(tmp_path / INITIAL, ConvNet([8, 32], in_channels=1), other, VIEWS)
    fresh = load_encoder(tmp_path, weights=False).encoder
    assert fresh.features_dim == 16
    assert not torch.allclose(fresh(x), trained(x))
    (tmp_path / INITIAL).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"initial.safetensors is not a safetensors file"):
        load_encoder(tmp_path, weights=False)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"encoder": "{"}, "no readable description 'encoder'"),
        ({"encoder": "[" * 100_000}, "no readable description 'encoder'"),
        ({"encoder": "3"}, "it is no JSON object"),
        ({"encoder": "NaN"}, "it is no JSON object"),
        ({"encoder": "{}"}, "needs a class_path"),
        ({"encoder": None}, "no readable description 'encoder'"),
        ({"views": None}, "no readable description 'views'"),
        ({"views": "null"}, "it is no JSON object"),
        ({"state": "[]"}, "'state': it is no JSON object"),
        ({"state": '{"x": {":tensor": "none"}}'}, "do not fit ConvNet"),
        ({"state": '{"x": {":unknown": 1}}'}, "do not fit ConvNet: its state holds ':unknown'"),
        ({"state": '{"x": {":sparse": ["_x", [9], [[1]], [1]]}}'}, "do not fit ConvNet"),
        ({"format": "bt_multimodal.encoder/9"}, "holds no bt_multimodal.encoder/1"),
        ({"format": None}, "holds no bt_multimodal.encoder/1"),
    ],
)
def test_damaged_descriptions(tmp_path, metadata, message):
    text = {"format": "bt_multimodal.encoder/1", "encoder": json.dumps(ENCODER), "views": json.dumps(VIEWS)}
    text = {key: value for key, value in (text | metadata).items() if value is not None}
    save_file({"a": torch.zeros(2)}, tmp_path / "encoder.safetensors", text)
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", ["fifo", "device", "socket", "link to nothing", "empty", "header", "truncated", "hole"]
)
def test_files_that_are_none(tmp_path, kind):
    """Each is refused at once, and nothing of its size is read."""
    path = tmp_path / "encoder.safetensors"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as opened, contextlib.chdir(tmp_path):
            opened.bind("encoder.safetensors")
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "empty":
        path.touch()
    elif kind == "header":  # 8 GB of it, in a sparse file
        path.write_bytes((2**33).to_bytes(8, "little"))
        os.truncate(path, 2**33 + 100)
    elif kind == "truncated":
        path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    else:  # a tensor of 8 GB that no encoder awaits
        text = {
            "format": "bt_multimodal.encoder/1",
            "encoder": json.dumps(ENCODER),
            "views": json.dumps(VIEWS),
        }
        tensor = {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}
        header = json.dumps({"__metadata__": text, "layers.0.weight": tensor}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, 8 + len(header) + 2**33)
    with pytest.raises(ValueError, match=r"encoder.safetensors") as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)
