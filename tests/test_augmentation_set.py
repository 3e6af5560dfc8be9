"""The base class of augmentation sets: its defaults, objects that only look like one, and what is refused."""

import pytest
import torch
from torch import nn

from bt_multimodal.augmentation_set import AugmentationSet, check_members, completed, stacks
from bt_multimodal.views import draw_views, finish_views


class Noise(AugmentationSet):
    """The smallest set there can be: Gaussian-like noise on vectors."""

    draws = 2

    def decode(self, raw):
        return torch.tensor(raw, dtype=torch.float32)

    def draw(self, u, view):
        return {"noise": u - 0.5}

    def on_batch(self, data, parameters, view):
        return data + parameters["noise"]

    def clean_batch(self, data):
        return data


class Duck:
    """The same without the base class."""

    draws = 2
    decode, draw, on_batch, clean_batch = Noise.decode, Noise.draw, Noise.on_batch, Noise.clean_batch


RECORDS = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]


def views_of(augmentations):
    batch = draw_views(augmentations, RECORDS, torch.tensor([0, 1]), seed=1, epoch=0, index=torch.arange(2))
    return finish_views(augmentations, batch)


def test_the_defaults():
    noise = Noise()
    check_members(noise)
    assert completed(noise) is noise
    assert (noise.shared, noise.on_record, noise.common, noise.read) == (0, None, None, None)
    assert (noise.portable, noise.measure([]), noise.learn([b"a"])) == ({}, {}, None)
    assert noise.clean(RECORDS[0]) is RECORDS[0]
    assert torch.equal(noise.collate(RECORDS), torch.stack(RECORDS))
    assert isinstance(noise, nn.Module)


def test_an_object_that_looks_like_a_set_gives_the_same_views():
    duck = Duck()
    check_members(duck)
    ours, theirs = views_of(Noise()), views_of(duck)
    assert torch.equal(ours.first, theirs.first)
    assert torch.equal(ours.second, theirs.second)
    completed(duck)
    assert torch.equal(duck.collate(RECORDS), torch.stack(RECORDS))
    assert duck.clean(RECORDS[0]) is RECORDS[0]
    assert (duck.portable, duck.measure([])) == ({}, {})


def test_what_an_object_defines_itself_is_kept():
    duck = Duck()
    duck.collate = lambda samples: "own"
    duck.shared = 1
    completed(duck)
    assert (duck.collate(RECORDS), duck.shared) == ("own", 1)


def test_a_set_without_random_numbers():
    class Still(Noise):
        draws = 0

        def draw(self, u, view):
            assert u.shape == (2, 0)
            return {}

        def on_record(self, decoded, parameters):
            assert parameters == {}
            return decoded + 1

        def on_batch(self, data, parameters, view):
            return data

    views = views_of(Still())
    assert torch.equal(views.first, torch.stack(RECORDS) + 1)
    assert torch.equal(views.second, views.first)


def test_who_stacks():
    class Own(Noise):
        def collate(self, samples):
            return samples

    assert stacks(Noise())
    assert stacks(Duck())
    assert not stacks(Own())


def test_samples_of_different_shapes_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"Noise gives samples of different shapes, such as \[2\] and \[3\]: .*collate"
    ):
        Noise().collate([torch.zeros(2), torch.zeros(3)])


def without(member):
    return type("Partial", (AugmentationSet,), {k: v for k, v in vars(Noise).items() if k != member})


@pytest.mark.parametrize("member", ["decode", "draw", "on_batch", "clean_batch"])
@pytest.mark.parametrize("base", [True, False])
def test_a_required_member_is_missing(member, base):
    if base:
        augmentations = without(member)()
    else:
        members = {k: v for k, v in vars(Duck).items() if k != member and not k.startswith("__")}
        augmentations = type("Partial", (), members)()
    with pytest.raises(
        ValueError, match=rf"^the augmentation set Partial lacks {member}\(.*AugmentationSet documents it$"
    ):
        check_members(augmentations)
    if base:
        with pytest.raises(TypeError, match=f"lacks {member}"):
            getattr(augmentations, member)(
                *[None] * {"decode": 1, "draw": 2, "on_batch": 3, "clean_batch": 1}[member]
            )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"draws": -1}, "needs draws, a number of uniform random numbers, 0 or more; it has -1"),
        ({"draws": 2.0}, "needs draws, .* it has 2.0"),
        ({"draws": True}, "needs draws, .* it has True"),
        ({"shared": None}, "needs shared, .* it has None"),
        ({"shared": 3}, "shares 3 of 2 random numbers"),
    ],
)
def test_numbers_that_make_no_sense(members, message):
    augmentations = Noise()
    for name, value in members.items():
        setattr(augmentations, name, value)
    with pytest.raises(ValueError, match=message):
        check_members(augmentations)


def test_draws_has_to_be_said():
    with pytest.raises(ValueError, match=r"needs draws, .* it has None"):
        check_members(type("Partial", (), {k: v for k, v in vars(Duck).items() if k != "draws"})())
