"""The command bt-multimodal: its words, its help in no time, one line for what is wrong."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bt_multimodal.commands.extras import missing_extra
from encoders.command_line import main
from encoders.completion import completion
from encoders.task_list import TASKS

EVERY = [(modality, task) for modality, tasks in TASKS.items() for task in tasks]


@pytest.mark.parametrize(("modality", "task"), EVERY, ids="-".join)
def test_a_bare_task_explains_itself(modality, task, capsys):
    assert main([modality, task]) == 0
    assert f"bt-multimodal {modality} {task} " in capsys.readouterr().out


@pytest.mark.parametrize(("modality", "task"), EVERY, ids="-".join)
def test_help(modality, task, capsys):
    with contextlib.suppress(SystemExit):  # argparse's way
        assert main([modality, task, "--help"]) == 0
    assert re.search(r"--(encoder|data\.source|to|base)\b", capsys.readouterr().out)


def test_every_task_has_a_script_that_does_the_same():
    scripts = {path.stem for path in Path("tasks").glob("*.py")}
    assert {f"{modality}_{task}" for modality, task in EVERY} | {"seeds", "image_miniature"} == scripts


def test_overview(capsys):
    assert main([]) == main(["--help"]) == 0
    out = capsys.readouterr().out
    for modality, task in EVERY:
        assert f"\n{modality} {task} " in out
    assert main(["image"]) == main(["image", "--help"]) == 0
    assert "audio" not in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"bt-multimodal \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["imgae", "pretrain"], "there is no command 'imgae'; did you mean image?"),
        (["x"], "there is no command 'x'; there are image, audio, text, seeds, completion"),
        (["text", "pertrain"], "there is no task of text 'pertrain'; did you mean pretrain?"),
        (["image", "pretrain", "fti", "--seed", "1"], "unknown word 'fti'; keys begin with --"),
        (["image", "pretrain", "--help", "ConvNot"], "no class 'ConvNot' was found; did you mean ConvNet?"),
        (["completion", "command.com"], "there is no completion for 'command.com'"),
        (["seeds", "nowhere"], "a spread needs 2 runs or more, got 1"),
        (["image", "convert", "nowhere.pth", "x.pth", "--to", "torchvision"], "no checkpoint at nowhere.pth"),
        (["text", "convert", "--encoder", "nowhere", "--out", "x"], "there is no encoder at nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "argv", [["--version"], ["image", "pretrain", "--help"], ["text", "sts"], ["completion"]]
)
def test_nothing_heavy_is_imported_to_answer(argv):
    code = (
        f"import sys; from encoders.command_line import main; assert main({argv}) == 0; "
        "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse', 'datasets', 'transformers', 'sklearn'}; "
        "assert not heavy & {*sys.modules}, heavy & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_tasks_keys_and_configs(shell, capsys):
    assert completion([shell]) == 0
    script = capsys.readouterr().out
    for word in ("pretrain", "--data.source", "--trainer.max_epochs", "image/digits", "--per_class", "--to"):
        assert word in script, word


def test_a_missing_package_is_named_with_its_extra():
    def line(module, extra):
        return missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module), extra)

    assert line("lightning.pytorch", "image").endswith("pip install 'bt_multimodal[image]'")
    assert line("torchaudio", "audio").startswith("torchaudio is not installed; ")
    assert line("timm", "image").endswith("pip install 'bt_multimodal[timm]'")
    assert line("my_lab", "image") is None
    assert missing_extra(ModuleNotFoundError("no name"), "image") is None


@pytest.mark.parametrize(
    "argv",
    [
        ["image", "pretrain", "--config", "image/digits"],
        ["image", "linear", "--encoder", "x", "--data.source", "sklearn:digits"],
    ],
)
def test_a_missing_package_is_one_line(argv):
    """In a process in which the packages of the extras do not import."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    missing = ('lightning', 'jsonargparse', 'datasets', 'PIL', 'torchvision')\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in self.missing:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"from encoders.command_line import main; sys.exit(main({argv}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"error: \w+ is not installed; this brings it: pip install 'bt_multimodal\[image\]'\n", done.stderr
    )


def test_a_users_own_missing_module_is_not_hidden(tmp_path):
    (tmp_path / "my_lab.py").write_text("import my_missing_module\n")
    argv = ["image", "pretrain", "--config", "image/digits", "--model.encoder", "my_lab.Mine"]
    code = f"import sys; from encoders.command_line import main; sys.exit(main({argv}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "my_missing_module" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error():
    """As in `... --help | head -1`; here the pipe is closed before the page is written."""
    code = (
        "import sys; sys.stdin.read(); from encoders.command_line import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "image", "pretrain", "--help"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + 13
