"""Links, commands, keys, paths and code in the documentation exist and work."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import torch

from bt_multimodal.augmentation_set import check_members
from bt_multimodal.commands import classify, pretrain, probe, svm
from bt_multimodal.commands.config_files import config_path
from bt_multimodal.commands.help_page import argument_names
from bt_multimodal.views import draw_views, finish_views
from encoders.command_line import TASKS
from encoders.image import commands as image
from encoders.image.detection import command as detection
from encoders.text import commands as text

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Below these a key may go as deep as the class that was chosen has arguments.
DEEP = ("model.encoder.", "model.loss.", "model.optimizer.", "views.", "trainer.")
COMMANDS = {
    ("image", "pretrain"): pretrain.KEYS,
    ("audio", "pretrain"): pretrain.KEYS,
    ("text", "pretrain"): pretrain.KEYS,
    ("image", "classify"): classify.KEYS,
    ("image", "svm"): svm.KEYS,
    ("image", "detect"): detection.KEYS,
    ("image", "linear"): probe.probe_parser(""),
    ("image", "convert"): image.convert_parser(""),
    ("image", "ablations"): image.ablations_parser(""),
    ("audio", "probe"): probe.probe_parser(""),
    ("text", "probe"): probe.probe_parser(""),
    ("text", "sts"): text.sts_parser(""),
    ("text", "convert"): text.convert_parser(""),
}


def name_of(path):
    return str(path.relative_to(ROOT))


def prose(page):
    return FENCE.sub("", page.read_text())


def blocks(page, language):
    return [code for found, code in FENCE.findall(page.read_text()) if found == language]


def spans(page):
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def command_lines(page):
    """Lines of code blocks and inline code, as words."""
    lines = [
        line for code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines() if line.strip()
    ]
    spoken = [span for span in spans(page) if re.match(r"(bt-multimodal|python|make) ", span)]
    return [words for line in [*lines, *spoken] if (words := shlex.split(line, comments=True))]


def task_of(words):
    """(modality, task, arguments) of a command of this project, or None."""
    for i, word in enumerate(words):
        if word == "bt-multimodal" and not words[i + 1].startswith("-"):
            if words[i + 1] in ("seeds", "completion"):
                return None
            return words[i + 1], words[i + 2], words[i + 3 :]
        if script := re.fullmatch(r"tasks/([a-z]+)_([a-z]+)\.py", word):
            return script[1], script[2], words[i + 1 :]
    return None


def known_keys(modality, task, arguments):
    keys = COMMANDS[modality, task]
    if isinstance(keys, tuple):
        return {*argument_names(keys)}
    if (modality, task) == ("text", "probe"):
        keys = text.senteval_parser("") if "--senteval" in arguments else keys
        return {*known_options(keys), "pooling", "senteval"}
    return {*known_options(keys)}


def known_options(parser):
    return [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]


def is_known(key, known):
    return key in known or key == "help" or key.startswith(DEEP)


def slugs(page):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_task_of_the_command_has_keys_here():
    assert {*COMMANDS} == {(modality, task) for modality, tasks in TASKS.items() for task in tasks}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_point_to_something(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        at = (page.parent / path).resolve() if path else page
        assert at.exists(), f"there is no {target}"
        assert not anchor or anchor in slugs(at), f"{name_of(at)} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_name_tasks_and_keys_that_exist(page):
    for words in command_lines(page):
        found = task_of(words)
        if found is None:
            continue
        modality, task, arguments = found
        assert task in TASKS[modality], words
        passed_on = arguments.index("--") if "--" in arguments else len(arguments)
        known = known_keys(modality, task, arguments)
        keys = [word[2:].partition("=")[0] for word in arguments[:passed_on] if word.startswith("--")]
        further = [word[2:] for word in arguments[passed_on + 1 :] if word.startswith("--")]
        unknown = [key for key in keys if not is_known(key, known)]
        unknown += [key for key in further if not is_known(key, argument_names(pretrain.KEYS))]
        assert not unknown, f"{' '.join(words)}: unknown {unknown}"
        configs = [arguments[i + 1] for i, word in enumerate(arguments) if word in ("--config", "--base")]
        for config in configs:
            assert (ROOT / config_path(config)).is_file(), f"there is no config {config}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_in_the_prose_exist(page):
    known = {"help", "version", "traceback"}
    for modality, task in COMMANDS:
        known |= known_keys(modality, task, []) | known_keys(modality, task, ["--senteval"])
    for span in spans(page):
        for key in re.findall(r"^--([a-z][\w.-]*)", span):
            assert is_known(key, known) or "-" in key, f"--{key}"  # torchrun's options have dashes


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = {*re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    for words in command_lines(page):
        if words[0] == "make":
            wanted = {word for word in words[1:] if "=" not in word}
            assert wanted <= targets, f"there is no make {wanted - targets}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_and_names_in_code_exist(page):
    folders = "bt_multimodal|encoders|tasks|tests|benchmarks|configs|docs"
    scripts = [word for words in command_lines(page) for word in words]
    for span in [*spans(page), *scripts]:
        if re.fullmatch(rf"({folders})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"there is no {span}"
        elif re.fullmatch(r"(bt_multimodal|encoders)(\.\w+)+", span):
            assert defines(span), f"nothing defines {span}"
        elif re.fullmatch(r"(image|audio|text)/\w+", span):
            assert (ROOT / config_path(span)).is_file(), f"there is no config {span}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_modules_and_members_exist(page):
    found = re.findall(r"^::: ([\w.]+)\n(?:    options: \{.*members: \[(.*)\]\})?", page.read_text(), re.M)
    for name, members in found:
        assert defines(name), f"nothing defines {name}"
        for member in filter(None, members.split(", ")):
            assert defines(f"{name}.{member}"), f"nothing defines {name}.{member}"


def defines(dotted):
    """Whether a module, or a name at the top level of one, has this path."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module, name = path.parent, path.name
    source = module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py"
    if not source.is_file():
        return False
    text = source.read_text()
    defined = rf"^(class|def) {name}\b|^{name}\b.*=|^    \"{name}\",$"
    return re.search(defined, text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_code_imports_what_exists(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("bt_multimodal", "encoders")
            ):
                for name in node.names:
                    assert defines(f"{node.module}.{name.name}"), f"{node.module} has no {name.name}"


def test_the_example_of_a_domain_makes_views_and_features(tmp_path):
    page = ROOT / "docs" / "your_own_domain.md"
    code = next(code for code in blocks(page, "python") if "class SignalViews" in code)
    names = {"__name__": "my_lab"}
    exec(compile(code, "my_lab.py", "exec"), names)
    augmentations, encoder = names["SignalViews"](), names["SignalEncoder"]()
    check_members(augmentations)
    assert "waves" in names["modality"]().embedded
    table = names["waves"]()
    assert len(table["signal"]) == len(table["label"]) == 1000
    decoded = [augmentations.decode(raw) for raw in table["signal"][:8]]
    index = torch.arange(8)
    views = finish_views(augmentations, draw_views(augmentations, decoded, -torch.ones(8), 0, 0, index))
    clean = torch.stack(decoded)
    assert views.first.shape == views.second.shape == clean.shape == (8, 3, 128)
    assert not torch.equal(views.first, views.second)
    hidden = (views.first == 0).all(1) & (clean != 0).any(1)
    gain = (views.first / clean).masked_fill(hidden.unsqueeze(1), torch.nan).nanmean(2)
    assert ((gain > 0.4) & (gain < 1.6)).all()
    assert encoder(views.first).shape == (8, encoder.features_dim)
