"""What the names of splits mean, such as ``Training``, ``train-clean-100``, ``val2017``, ``dev_test``."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from bt_multimodal.data.columns import DataError, shortened, there_are

TRAIN, TEST, VALIDATION = "train", "test", "validation"
_ROLES = {
    TRAIN: ("train", "training", "trn", "trainset", "trainingset", "traindata", "trainval"),
    TEST: ("test", "testing", "tst", "testset", "testdata", "holdout", "heldout"),
    VALIDATION: (
        "val", "valid", "validation", "validating", "dev", "development", "eval", "evaluation", "valset",
        "devset", "evalset",
    ),
}  # fmt: skip
_WORDS = {word: role for role, words in _ROLES.items() for word in words}
_SHARD = re.compile(r"-\d+-of-\d+(-\w+)?$")


class Choice(NamedTuple):
    """The splits of a source that are used, by name, and a line on each unusual choice."""

    train: list[str]
    test: list[str]
    left: list[str]
    notes: list[str]


def without_shard(name: str) -> str:
    """``name`` without ``-00000-of-00002`` at its end."""
    return _SHARD.sub("", name)


def words(name: str) -> list[str]:
    """The words of a name in lower case: its parts between other characters, digits and ``camelCase``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+", name)]


def exact_role(name: str) -> str | None:
    """What a name means that is a split's and nothing else: ``Training``; ``None`` for any other."""
    return _WORDS.get(name.strip().lower())


def role(name: str) -> str | None:
    """`TRAIN`, `TEST` or `VALIDATION`, if a word of a name says so; ``None`` if none does or they disagree.

    With a word for a test split and one for validation (``dev_test``) it is a test split; with one for
    training and one for validation, the last counts, but ``train_val`` is training.
    """
    parts = words(without_shard(name))
    found = [_WORDS[word] for word in parts if word in _WORDS]
    if "".join(parts[-2:]) in ("trainval", "trainvalid"):
        return TRAIN
    if TRAIN in found and TEST in found:
        return None
    return TEST if TEST in found else found[-1] if found else None


def partner(name: str) -> str:
    """A name without the word that names a split, to see which names belong together (``seg_train``)."""
    parts = words(without_shard(name))
    return " ".join(word for word in parts if word not in _WORDS)


def by_role(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of each role, those that are nothing but a split's name first."""
    exact_first = sorted(names, key=lambda name: exact_role(name) is None)
    return {kind: [name for name in exact_first if role(name) == kind] for kind in _ROLES}


def choose(source: str, names: Sequence[str], train: str | None, test: str | None) -> Choice:
    """The splits to train and to test on.

    By default all that are named for training, and all that are named for testing or else for validation; of
    several, those whose name says nothing else (``train`` beside ``train_mini``).
    What is named for testing or validation is never trained on unless the user asks for it.

    Args:
        source: its name in messages.
        names: the splits that it has.
        train, test: names by the user, several between commas.

    Raises:
        DataError: no such split, or none to train on.
    """
    roles = by_role(names)
    notes: list[str] = []
    tests = asked(source, names, test) if test else None
    if train:
        trains = asked(source, names, train)
    elif len(names) == 1 and not test and role(names[0]) not in (TEST, VALIDATION):
        trains = list(names)
    elif not (trains := _plainest([name for name in roles[TRAIN] if name not in (tests or ())])):
        trains = _without_train(source, names, roles, notes)
    if tests is None:
        free = {kind: [name for name in roles[kind] if name not in trains] for kind in (TEST, VALIDATION)}
        evaluation = [name for name in free[VALIDATION] if {"eval", "evaluation"} & {*words(name)}]
        tests = _plainest(free[TEST] or evaluation or free[VALIDATION])  # beside val, eval is for testing
    if shared := [name for name in trains if name in tests]:
        raise DataError(f"{source!r}: the split {shared[0]!r} cannot be both trained and tested on")
    left = [name for name in names if name not in (*trains, *tests)]
    return Choice(trains, tests, left, notes)


def _plainest(names: list[str]) -> list[str]:
    return [name for name in names if exact_role(name)] or names


def asked(source: str, names: Sequence[str], wanted: str) -> list[str]:
    """The splits that the user names: one by its name, or several between commas, in letters of any case.

    Raises:
        DataError: there is no such split.
    """
    if wanted in names:
        return [wanted]
    found = []
    for part in (part.strip() for part in wanted.split(",")):
        same = [name for name in names if name == part] or [
            name for name in names if name.lower() == part.lower()
        ]
        if len(same) != 1:
            raise DataError(
                f"{source!r} has no split {shortened(part)!r}; {there_are('splits', [part], list(names))}"
            )
        found += same
    return list(dict.fromkeys(found))


def _without_train(
    source: str, names: Sequence[str], roles: dict[str, list[str]], notes: list[str]
) -> list[str]:
    development = [name for name in roles[VALIDATION] if {"dev", "development"} & {*words(name)}]
    if development and (
        roles[TEST] or len(development) < len(roles[VALIDATION])
    ):  # as in VoxCeleb and FSD50K
        shown = ", ".join(map(shortened, development))
        notes.append(f"no split is named train: took {shown} for it; --data.train_split chooses another")
        return development
    listed = there_are("splits", [TRAIN], list(names))
    raise DataError(f"{source!r} has no split 'train'; {listed}: choose one by --data.train_split")
