"""Which settings a run may be continued with."""

import copy

import pytest
import yaml

from bt_multimodal.commands.continued import check_settings, kept_config, measured

KEPT = {
    "seed": 0,
    "run_dir": "runs/a",
    "trainer": {"max_epochs": 4, "max_steps": -1, "devices": "auto", "gradient_clip_val": 1.0},
    "views": {
        "class_path": "encoders.audio.views.SpectrogramViews",
        "init_args": {"mean": -3.5, "gain": 0.2},
    },
    "model": {
        "encoder": {"class_path": "encoders.image.encoders.ConvNet", "init_args": {"widths": [4, 8]}},
        "loss": {"class_path": "bt_multimodal.BarlowTwinsLoss", "init_args": {"lambd": 0.0051}},
        "projector": [16, 16],
        "lr_by_batch": None,
    },
    "data": {"source": "sklearn:digits", "batch_size": 64, "num_workers": 0},
    "checkpoint": {"minutes": 10.0},
    "probe": {"every": 1, "per_class": [10]},
}
DEFAULTS = {"trainer": {"max_time": None, "precision": None}, "data": {"stream": None, "cache": False}}


def changed(name, value):
    """`KEPT` with another value of a dotted name, or without it (``None``)."""
    new = copy.deepcopy(KEPT)
    *groups, last = name.split(".")
    inner = new
    for group in groups:
        inner = inner[group]
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return new


FREE = [
    ("run_dir", "runs/b"),
    ("trainer.devices", 2),
    ("trainer.max_time", "00:01:00:00"),
    ("data.num_workers", 2),
    ("data.cache", True),
    ("checkpoint.minutes", 1.0),
    ("probe.every", 5),
    ("probe.per_class", [1]),
    ("views.init_args.mean", None),  # it was measured
    ("model.loss.class_path", "bt_multimodal.loss.BarlowTwinsLoss"),
    ("model.lr_by_batch", {}),
    ("resume", "same"),
]
NOT_FREE = [
    ("seed", 1, "seed 1 .it has 0"),
    ("trainer.gradient_clip_val", None, "trainer.gradient_clip_val None .it has 1.0"),
    ("trainer.precision", "bf16-mixed", "trainer.precision bf16-mixed .it has None"),
    ("trainer.max_epochs", 6, "trainer.max_epochs 6 .it has 4.*--resume extend"),
    ("trainer.max_steps", 6, "trainer.max_steps 6 .it has -1.*--resume extend"),
    ("data.batch_size", 128, "data.batch_size 128 .it has 64"),
    ("data.source", "/data", "data.source /data"),
    ("data.stream", 100, "data.stream 100 .it has None"),
    ("views.init_args.gain", 0.3, "views.init_args.gain 0.3"),
    ("views.init_args.mean", -3.0, "views.init_args.mean -3.0"),
    ("model.projector", [16, 32], r"model.projector \[16, 32\]"),
    ("model.encoder.init_args.widths", [8], r"widths \[8\]"),
    ("model.encoder.class_path", "encoders.image.encoders.TimmEncoder", "model.encoder encoders.image.*Timm"),
    ("model.loss.init_args.lambd", 0.01, "lambd 0.01"),
    ("model.lr_by_batch", {"64": 0.1}, "lr_by_batch"),
]


@pytest.mark.parametrize(("name", "value"), FREE)
def test_what_changes_no_step_is_taken(name, value):
    check_settings(KEPT, changed(name, value), DEFAULTS, extend=False)


@pytest.mark.parametrize(("name", "value", "message"), NOT_FREE)
def test_what_changes_the_course_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=f"would change the course of the run: .*{message}"):
        check_settings(KEPT, changed(name, value), DEFAULTS, extend=False)


def test_several_are_named_and_the_rest_counted():
    new = changed("seed", 1) | {
        "data": {"source": "b", "batch_size": 2},
        "model": KEPT["model"] | {"projector": []},
    }
    with pytest.raises(ValueError, match=r"data.batch_size .*data.source .*model.projector .*seed"):
        check_settings(KEPT, new, DEFAULTS, extend=False)


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("trainer.max_epochs", 6, None),
        ("trainer.max_epochs", -1, None),
        ("trainer.max_epochs", 3, "is extended, not shortened: trainer.max_epochs 3"),
        ("trainer.max_steps", 100, "is extended, not shortened: trainer.max_steps 100 .it has -1"),
        ("data.batch_size", 128, "data.batch_size 128"),
    ],
)
def test_a_longer_run(name, value, refused):
    if refused is None:
        check_settings(KEPT, changed(name, value), DEFAULTS, extend=True)
        return
    with pytest.raises(ValueError, match=refused):
        check_settings(KEPT, changed(name, value), DEFAULTS, extend=True)


@pytest.mark.parametrize(("name", "value"), [("data.num_workers", 2), ("trainer.devices", 2)])
def test_a_stream_is_shared_by_its_readers(name, value):
    kept = changed("data.stream", 100)
    new = copy.deepcopy(kept)
    group, key = name.split(".")
    new[group][key] = value
    with pytest.raises(ValueError, match=name):
        check_settings(kept, new, DEFAULTS, extend=False)


class Views(dict):
    def __init__(self, class_path, init_args):
        super().__init__(init_args=init_args)
        self.class_path, self.init_args = class_path, init_args


def test_what_was_measured_is_taken_over():
    same = Views("encoders.audio.views.SpectrogramViews", {"mean": None, "gain": 0.2})
    measured(KEPT, same)
    assert same.init_args == {"mean": -3.5, "gain": 0.2}
    other = Views("my_lab.Views", {"mean": None})
    measured(KEPT, other)
    assert other.init_args == {"mean": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "the run cannot be continued: "),
        ("- a\n- b\n", "holds a list"),
        ("", "is empty"),
        ("name: my website\n", "is not the config of a run"),
        ("\x00", "the run cannot be continued: "),
    ],
)
def test_a_config_that_is_none(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        kept_config(path)


def test_a_config_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(KEPT), encoding="utf-8")
    assert kept_config(path) == KEPT
