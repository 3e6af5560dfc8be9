"""What a view of a text is."""

import pytest
import torch

from bt_multimodal.views import draw_views, finish_views
from encoders.text import presets
from encoders.text.views import TextViews

TEXTS = ["", "a", "some words of a text", "x" * 300, "ein längerer Text, 😀 und עברית " * 4]


def made(views, texts=TEXTS, epoch=0):
    decoded = [views.decode(text.encode()) for text in texts]
    batch = draw_views(views, decoded, torch.zeros(len(texts)), 1, epoch, torch.arange(len(texts)))
    return finish_views(views, batch)


def spelled(view):
    """The bytes of each row, special tokens left out."""
    rows = zip(view["input_ids"].tolist(), view["attention_mask"].sum(1).tolist(), strict=True)
    return [bytes(i - 5 for i in row[:n] if i >= 5) for row, n in rows]


# Tokens 5 ... 260 are the bytes in the order of their names, not of their values.
def order():
    tokens = TextViews("bytes").tokens
    return {tokens.encode(chr(i))[0] - 5: i for i in range(128)}


def read(view):
    known = order()
    return ["".join(chr(known.get(b, 63)) for b in row) for row in spelled(view)]


def test_without_distortions_views_are_the_beginning_of_the_text():
    batch = made(TextViews("bytes", length=32), TEXTS[:4])
    assert read(batch.first) == read(batch.second) == ["", "a", "some words of a text", "x" * 30]
    assert batch.first["attention_mask"].sum(1).tolist() == [2, 3, 22, 32]
    assert "dropout" not in batch.first


def test_clean_views_are_what_the_tokeniser_gives():
    views = TextViews("bytes", length=32, delete=0.5, crop=(0.1, 0.2))
    data = views.collate([views.clean(views.decode(text.encode())) for text in TEXTS[:4]])
    assert read(views.clean_batch(data)) == ["", "a", "some words of a text", "x" * 30]


def test_each_view_is_padded_on_its_own():
    batch = made(TextViews("bytes", length=128, delete=(0.0, 0.6)))
    assert batch.first["input_ids"].shape[1] == 128 > batch.second["input_ids"].shape[1]
    for view in batch.first, batch.second:
        assert int(view["attention_mask"].sum(1).max()) == view["input_ids"].shape[1]


def test_a_span_is_a_share_of_the_text_from_anywhere_in_it():
    text = "".join(chr(33 + i) for i in range(90))
    views = TextViews("bytes", length=128, crop=(0.2, 0.5))
    first, second = ([read(view)[0] for view in pair] for pair in zip(
        *[made(views, [text], epoch)[:2] for epoch in range(200)], strict=True))  # fmt: skip
    for spans in first, second:
        assert all(span in text for span in spans)
        assert {min(map(len, spans)), max(map(len, spans))} <= {18, 19, 44, 45}
        starts = [text.index(span) for span in spans]
        assert min(starts) < 5
        assert max(s + len(span) for s, span in zip(starts, spans, strict=True)) > 85
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 5


def test_spans_apart_share_nothing():
    text = "".join(chr(33 + i) for i in range(90))
    views = TextViews("bytes", apart=True)
    cuts = set()
    for epoch in range(50):
        first, second = (read(view)[0] for view in made(views, [text], epoch)[:2])
        assert first + second == text
        cuts.add(len(first))
    assert 22 <= min(cuts) < 30
    assert 60 < max(cuts) <= 68
    one = made(views, ["ab", "a", ""])
    assert (read(one.first), read(one.second)) == (["a", "a", ""], ["b", "a", ""])
    both = made(TextViews("bytes", apart=True, crop=(0.5, 0.5)), [text])
    assert read(both.first)[0] in text[:68]
    assert len(read(both.first)[0]) + len(read(both.second)[0]) in (44, 45, 46)


def test_rates_of_each_view():
    long = ["abcdefgh" * 60] * 20
    views = TextViews("bytes", length=512, delete=(0.0, 0.6), mask=(0.3, 0.0), dropout=(0.05, 0.155))
    batch = made(views, long)
    assert batch.first["attention_mask"].sum(1).tolist() == [482] * 20
    assert (batch.second["attention_mask"].sum() - 40).item() / 9600 == pytest.approx(0.4, abs=0.02)
    masked = (batch.first["input_ids"] == 4).sum().item() / 9600
    assert masked == pytest.approx(0.3, abs=0.02)
    assert not (batch.second["input_ids"] == 4).any()
    assert batch.first["dropout"].tolist() == pytest.approx([0.05] * 20)
    assert batch.second["dropout"].tolist() == pytest.approx([0.155] * 20)


def test_shuffling_and_spans_of_masks():
    batch = made(TextViews("bytes", length=512, shuffle=3.0, mask_spans=0.2), ["abcdefgh" * 60] * 20)
    assert (batch.first["input_ids"] == 4).sum().item() / 9600 == pytest.approx(0.2, abs=0.02)
    shuffled = made(TextViews("bytes", length=512, shuffle=3.0), ["some words of a text"])
    first, second = read(shuffled.first)[0], read(shuffled.second)[0]
    assert sorted(first) == sorted(second) == sorted("some words of a text")
    assert len({first, second, "some words of a text"}) == 3


def test_the_same_views_for_any_batch():
    views = TextViews("bytes", crop=(0.3, 0.9), delete=0.3, mask=0.1, shuffle=3.0)
    decoded = [views.decode(text.encode()) for text in TEXTS]
    whole = made(views)
    for i in range(len(TEXTS)):
        alone = draw_views(views, decoded[i : i + 1], torch.zeros(1), 1, 0, torch.tensor([i]))
        for view, own in zip(whole[:2], finish_views(views, alone)[:2], strict=True):
            length = int(view["attention_mask"][i].sum())
            assert torch.equal(view["input_ids"][i, :length], own["input_ids"][0])


def test_a_document_of_100_000_words():
    views = TextViews("bytes", length=64, crop=(0.0001, 0.0005))
    batch = made(views, ["word " * 100_000, "short"])
    assert batch.first["input_ids"].shape[1] <= 64
    assert read(batch.first)[0] in "word " * 100


def test_a_learnt_tokeniser_is_kept():
    views = TextViews(vocabulary=300)
    with pytest.raises(ValueError, match="not trained yet"):
        views.decode(b"a")
    views.learn([b"the cat sat on the mat"] * 10 + [b"\xff damaged"])
    again = TextViews(**views.portable)
    assert torch.equal(again.decode("the mat 😀".encode()), views.decode("the mat 😀".encode()))
    again.load_state_dict(views.state_dict())
    other = TextViews(vocabulary=300)
    other.learn([b"other words"] * 10)
    with pytest.raises(ValueError, match="the training texts have changed"):
        other.load_state_dict(views.state_dict())


def test_presets():
    assert made(presets.simcse("bytes"), ["abc"]).first.keys() == {"input_ids", "attention_mask"}
    decorrelation = made(presets.self_contrastive_decorrelation("bytes"), ["abc"])
    assert decorrelation.first["dropout"].item() == pytest.approx(0.05)
    assert decorrelation.second["dropout"].item() == pytest.approx(0.155)
    batch = made(presets.tsdae("bytes", length=512), ["abcdefgh" * 60] * 20)
    for view in batch[:2]:
        assert (view["attention_mask"].sum() - 40).item() / 9600 == pytest.approx(0.4, abs=0.02)
    spans = read(made(presets.cropping("bytes"), ["abcdefgh" * 60] * 50).first)
    assert 24 <= min(map(len, spans)) < 60
    assert 180 < max(map(len, spans)) <= 240


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"delete": 1.0}, "delete must be a share from 0 to below 1"),
        ({"mask": (0.1, -0.1)}, "mask must be a share"),
        ({"dropout": (0.1, 2.0)}, "dropout must be a share"),
        ({"crop": (0.0, 0.5)}, "crop must be two shares"),
        ({"crop": (0.5, 0.2)}, "crop must be two shares"),
        ({"shuffle": -1.0}, "shuffle must be 0 or more"),
        ({"span": 0}, "span 1 or more"),
        ({"length": 2}, "length 2 leaves no room"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        TextViews("bytes", **arguments)


def test_masks_need_a_mask_token():
    from tokenizers import Tokenizer, models

    bare = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str()
    assert made(TextViews(bare), ["b"]).first["input_ids"].tolist() == [[1]]
    with pytest.raises(ValueError, match="no mask token"):
        TextViews(bare, mask=0.1)


def test_undecodable_bytes_are_damage():
    with pytest.raises(UnicodeDecodeError):
        TextViews("bytes").decode(b"\xff\xfe")


def test_damaged_texts_teach_nothing_and_empty_ones_are_texts():
    good = [b"the cat sat on the mat", b"a dog"] * 20
    bad = [b"\xff\xfe" * 50, b"caf\xe9"]
    views, clean = TextViews(vocabulary=300), TextViews(vocabulary=300)
    clean.learn(good)
    views.learn([*good[:7], *bad, *good[7:]])
    assert views.tokens.to_json() == clean.tokens.to_json()
    for raw in bad:
        with pytest.raises(ValueError, match="utf-8"):
            views.decode(raw)
    assert views.decode(b"").tolist() == []
