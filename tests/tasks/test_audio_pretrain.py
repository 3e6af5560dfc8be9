"""Audio from the command line: a folder of sounds to an encoder that loads again."""

import numpy as np
import pytest
import soundfile
import torch
import yaml

from bt_multimodal.encoder_file import load_encoder
from tasks import audio_pretrain

SMALL = ["fit", "--config", "configs/audio/speech_commands_cpu.yaml", "--trainer.max_epochs", "2",
         "--model.warmup_epochs", "1", "--model.projector", "[32, 32]", "--data.batch_size", "16",
         "--model.encoder.widths", "[8, 8]", "--views.seconds", "0.3"]  # fmt: skip


def run(argv):
    return audio_pretrain.main(argv)


@pytest.fixture
def sounds(tmp_path):
    """Two kinds of sound, of different lengths and rates."""
    random = np.random.default_rng(0)
    for kind in ("tone", "noise"):
        folder = tmp_path / "sounds" / kind
        folder.mkdir(parents=True)
        for i in range(40):
            rate = (8000, 16_000)[i % 2]
            time = np.arange(int(rate * random.uniform(0.1, 0.6))) / rate
            wave = np.sin(2 * np.pi * random.uniform(200, 2000) * time)
            wave = wave if kind == "tone" else random.standard_normal(len(time))
            soundfile.write(folder / f"{i}.wav", 0.1 * wave, rate)
    return tmp_path / "sounds"


def test_a_folder_of_sounds(tmp_path, sounds, capsys):
    out = tmp_path / "run"
    assert run([*SMALL, "--data.source", str(sounds), "--run_dir", str(out)]) == 0
    table = capsys.readouterr().out
    for words in ("log-mel mean, std", "untrained encoder", "trained encoder", "16 test clips"):
        assert words in table
    encoder, views = load_encoder(out)
    assert views.std > 0.1  # measured, and kept with the encoder
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert config["views"]["init_args"]["mean"] == pytest.approx(views.mean)
    assert encoder(views.clean_batch(torch.zeros(3, 4800))).shape == (3, 8 * 16)


@pytest.mark.parametrize("below", ["", "recordings"])
def test_a_flat_folder_has_no_labels_to_probe(tmp_path, sounds, below, capsys):
    flat = tmp_path / "flat"
    (flat / below).mkdir(parents=True)
    for i, file in enumerate(sorted(sounds.rglob("*.wav"))):
        file.rename(flat / below / f"{i}.wav")
    argv = [*SMALL, "--data.source", str(flat), "--run_dir", str(tmp_path / "run")]
    assert run(argv) == 0
    assert "test clips" not in capsys.readouterr().out
    assert load_encoder(tmp_path / "run").encoder.features_dim == 8 * 16


@pytest.fixture
def hub(tmp_path, sounds):
    """The sounds as the hub serves them: 40 to train, 20 to test."""
    from datasets import Audio, ClassLabel, Dataset, Features, Value

    files = sorted(sounds.rglob("*.wav"))
    features = Features(
        {"file": Value("string"), "audio": Audio(decode=False), "label": ClassLabel(names=["noise", "tone"])}
    )
    for split, part in (("train", files[::2]), ("test", files[1::4])):
        rows = {
            "file": [str(file) for file in part],
            "audio": [{"bytes": file.read_bytes(), "path": file.name} for file in part],
            "label": [file.parent.name for file in part],
        }
        plain = Dataset.from_dict(
            {**rows, "label": [features["label"].str2int(name) for name in rows["label"]]}
        )
        plain.cast(features).to_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "hub"


def test_parquet_as_the_hub_serves_it(tmp_path, hub, capsys):
    argv = [*SMALL, "--data.cache", "false", "--data.source", str(hub), "--run_dir", str(tmp_path / "run")]
    assert run(argv) == 0
    assert "20 test clips, 40 for the probes" in capsys.readouterr().out


def test_a_stream_is_trained_on_and_continued(tmp_path, hub, capsys):
    out = tmp_path / "run"
    argv = [*SMALL, "--data.stream", "32", "--data.source", str(hub), "--run_dir", str(out)]
    assert run(argv) == 0
    assert "untrained encoder" not in capsys.readouterr().out  # nothing is held out of a stream
    assert load_encoder(out).augmentations.std > 0.1
    assert run([*argv, "--trainer.max_epochs", "3", "--resume", "extend"]) == 0
    steps = [
        line.split(",")[:2] for line in (out / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert steps == [["1", "2"], ["2", "4"], ["3", "6"]]
    capsys.readouterr()
    assert run([*argv, "--data.batch_size", "64", "--run_dir", str(tmp_path / "other")]) == 2
    assert "batch_size 64 does not work with 32 records per epoch" in capsys.readouterr().err


def test_a_pretrained_model_is_fine_tuned(tmp_path, sounds, capsys):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(10, 8), conv_kernel=(20, 16), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    out = tmp_path / "run"
    argv = ["fit", "--config", "configs/audio/finetune_wav2vec2.yaml", "--data.source", str(sounds),
            "--model.encoder.name", str(tmp_path / "model"), "--model.projector", "[32]",
            "--views.seconds", "0.3", "--data.batch_size", "16", "--trainer.max_epochs", "2",
            "--trainer.precision", "32", "--trainer.accelerator", "cpu", "--run_dir", str(out)]  # fmt: skip
    assert run(argv) == 0
    assert "trained encoder" in capsys.readouterr().out
    before, after = Wav2Vec2Model.from_pretrained(tmp_path / "model"), load_encoder(out).encoder.model
    name = "encoder.layers.0.attention.q_proj.weight"
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])
    front = "feature_extractor.conv_layers.0.conv.weight"
    assert torch.equal(before.state_dict()[front], after.state_dict()[front])


WRONG = {
    "nothing usable": ("{tmp}/text", "damaged record"),
    "no audio": ("{tmp}/empty", "no file with extension"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(case, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text" / "a").mkdir(parents=True)
    for i in range(40):
        (tmp_path / "text" / "a" / f"{i}.wav").write_text("no sound")
    source, message = WRONG[case]
    out = tmp_path / "run"
    status = run([*SMALL, "--data.source", source.replace("{tmp}", str(tmp_path)), "--run_dir", str(out)])
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
