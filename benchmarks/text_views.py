"""The way of a text from its table to two views, stage by stage, and what padding costs an encoder.

    python benchmarks/text_views.py --source ../shared/data/text/ag_news
    python benchmarks/text_views.py                       # the embedded documentation strings

Stages run on one core, each over the same texts: ``read`` (a table's cell), ``tokenise`` (byte-pair
encoding learnt from the texts), ``draw`` (random parameters), ``cut`` (the spans of both views),
``views`` (shuffling, deletion and masks, special tokens, padding; both views). Each figure is the median
over ``--rounds`` rounds that run all stages in turn. With ``data.cache`` the first two happen once.

Padding: a `TextTransformer` (256 wide, 4 layers) on all cores, rows in groups of like length
(`encoders.text.lengths`) against the whole batch padded to its longest text. ``train`` is forward and
backward of one view of batches of 256 drawn at random, as the loss wants them; ``encode`` is all texts
in batches of 32, sorted by length (`SentenceEncoder`) against in the order they come in. Medians, the two
sides in turn.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stages import BATCH, print_stages, timed


def training(encoder: Any, views: Any, decoded: list[Any], rounds: int) -> tuple[float, float, float]:
    """Seconds of a step in groups and padded whole, and the share of the latter that is padding."""
    import torch

    from encoders.text.lengths import in_length_groups

    encoder.train()
    generator = torch.Generator().manual_seed(0)
    took: dict[str, list[float]] = {"groups": [], "whole": []}
    padding = []
    for _ in range(rounds + 1):
        chosen = torch.randperm(len(decoded), generator=generator)[:BATCH].tolist()
        view = views.clean_batch(views.collate([views.clean(decoded[i]) for i in chosen]))
        padding.append(1 - float(view["attention_mask"].float().mean()))
        for name, embed in (
            ("groups", lambda view=view: in_length_groups(encoder._embed, view)),
            ("whole", lambda view=view: encoder._embed(view)),
        ):
            encoder.zero_grad()
            took[name].append(timed(lambda embed=embed: embed().square().sum().backward())[0])
    groups, whole = (statistics.median(took[name][1:]) for name in ("groups", "whole"))  # the first warms up
    return groups, whole, statistics.mean(padding)


def encoding(encoder: Any, views: Any, texts: list[str], rounds: int) -> tuple[float, float, float]:
    """As `training`, of all texts without gradients."""
    import torch

    from encoders.text.sentences import SentenceEncoder

    sentences = SentenceEncoder(encoder.eval(), views)
    padding: list[float] = []

    @torch.no_grad()
    def as_they_come() -> None:
        padding.clear()
        for at in range(0, len(texts), 32):
            some = [views.clean(views.decode(text.encode())) for text in texts[at : at + 32]]
            view = views.clean_batch(views.collate(some))
            padding.append(1 - float(view["attention_mask"].float().mean()))
            encoder._embed(view)

    groups, whole = [], []
    for _ in range(rounds):
        groups.append(timed(lambda: sentences.encode(texts, batch_size=32))[0])
        whole.append(timed(as_they_come)[0])
    return statistics.median(groups), statistics.median(whole), statistics.mean(padding)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="docstrings")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=2000, help="that are encoded")
    arguments = parser.parse_args()

    import torch

    from bt_multimodal.memory import keep_freed_memory
    from encoders.text.modality import TEXTS
    from encoders.text.transformer import TextTransformer
    from encoders.text.views import TextViews

    keep_freed_memory()
    cores = torch.get_num_threads()
    records = TEXTS.open(arguments.source).train
    raw = [records.raw(i) for i in range(len(records))]
    views = TextViews(crop=(0.3, 0.8), shuffle=3.0, delete=0.2, mask=0.1, mask_spans=0.1)
    views.learn(raw)
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))

    torch.set_num_threads(1)
    print(f"{len(records)} texts of {arguments.source}, batches of {BATCH}, one core")
    print_stages(records, views, order, arguments.rounds, warm_up=1, decode="tokenise")

    torch.set_num_threads(cores)
    encoder = TextTransformer(views.tokens.size, length=views.length)
    texts = [bytes(raw[i]).decode() for i in order[: arguments.texts].tolist()]
    decoded = [views.decode(text.encode()) for text in texts]
    print(f"\nan encoder on {cores} cores, texts of {views.length} tokens at most")
    print(f"{'':<10}{'padding':>10}{'by length':>12}{'padded':>12}{'ratio':>8}")
    for name, (groups, whole, padding) in (
        ("train", training(encoder, views, decoded, arguments.rounds)),
        ("encode", encoding(encoder, views, texts, max(1, arguments.rounds // 2))),
    ):
        line = f"{name:<10}{100 * padding:>8.0f} %{groups:>10.2f} s{whole:>10.2f} s{whole / groups:>8.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
