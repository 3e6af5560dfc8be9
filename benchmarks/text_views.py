"""Time from a table's text to two views by stage, and the cost of padding for an encoder.

    python benchmarks/text_views.py --source ../shared/data/text/ag_news
    python benchmarks/text_views.py                       # the embedded documentation strings
    python benchmarks/text_views.py --device cuda --group 64 128 256

All stages run on one core, over the same texts: ``read`` (a table's cell), ``tokenise`` (byte-pair encoding
learnt from the texts), ``draw`` (random parameters), ``cut`` (the spans of both views) and ``views``
(shuffling, deletion and masks, special tokens, padding; both views). Each figure is the median over
``--rounds`` rounds that run all stages in turn. With ``data.cache`` the first two stages run once.

The cost of padding is measured with a `TextTransformer` (width 256, 4 layers) on all cores or on a GPU (in
bfloat16). It compares rows in groups of similar length (`encoders.text.lengths`) with the whole batch padded
to its longest text. ``train`` is forward and backward of one view, on random batches of 256, as the loss
requires. ``encode`` compares all texts in batches of 32 sorted by length (`SentenceEncoder`) with batches in
the original order. Figures are medians of alternating runs. ``--group`` sets one or more numbers of rows per
group; ``--encoder`` replaces the `TextTransformer` by a model of transformers, given by its folder or the
JSON text of a configuration.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stages import BATCH, print_stages, timed


def training(
    encoder: Any, views: Any, decoded: list[Any], rounds: int, device: str, sizes: list[int]
) -> tuple[dict[int, float], float, float]:
    """Returns a step's seconds by group size and for a whole padded batch, and its share of padding."""
    import torch

    from encoders.text.lengths import in_length_groups

    encoder.train()
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(rounds):
        chosen = torch.randperm(len(decoded), generator=generator)[:BATCH].tolist()
        view = views.clean_batch(views.collate([views.clean(decoded[i]) for i in chosen]))
        batches.append({key: tensor.to(device) for key, tensor in view.items()})
    padding = statistics.mean(1 - float(view["attention_mask"].float().mean()) for view in batches)

    def step(view: Any, size: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            features = in_length_groups(encoder._embed, view, size)
        features.square().sum().backward()

    took: dict[int, list[float]] = {size: [] for size in (*sizes, BATCH)}
    for view in (*batches, *batches):  # twice: the first pass loads kernels for new shapes
        for size, seconds in took.items():
            encoder.zero_grad()
            seconds.append(timed(lambda view=view, size=size: step(view, size), device)[0])
    medians = {size: statistics.median(seconds[rounds:]) for size, seconds in took.items()}
    return medians, medians.pop(BATCH), padding


def encoding(
    encoder: Any, views: Any, texts: list[str], rounds: int, device: str
) -> tuple[float, float, float]:
    """Returns the same as `training`, for encoding all texts without gradients."""
    import torch

    from encoders.text.sentences import SentenceEncoder

    sentences = SentenceEncoder(encoder.eval(), views)
    padding: list[float] = []

    @torch.no_grad()
    def as_they_come() -> None:
        padding.clear()
        for start in range(0, len(texts), 32):
            batch = [views.clean(views.decode(text.encode())) for text in texts[start : start + 32]]
            view = views.clean_batch(views.collate(batch))
            padding.append(1 - float(view["attention_mask"].float().mean()))
            encoder._embed({key: tensor.to(device) for key, tensor in view.items()})

    sorted_by_length, whole = [], []
    for _ in range(rounds + 1):
        sorted_by_length.append(timed(lambda: sentences.encode(texts, batch_size=32), device)[0])
        whole.append(timed(as_they_come, device)[0])
    return statistics.median(sorted_by_length[1:]), statistics.median(whole[1:]), statistics.mean(padding)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="docstrings")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=2000, help="number of texts to encode")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--group", type=int, nargs="+", help="rows per group, one number or more")
    parser.add_argument("--encoder", help="a model's folder or a configuration's JSON text")
    arguments = parser.parse_args()

    import torch

    from bt_multimodal.commands.memory import keep_freed_memory
    from bt_multimodal.data.records import open_source
    from encoders.text.lengths import group_rows
    from encoders.text.modality import TEXTS
    from encoders.text.pretrained import PretrainedText
    from encoders.text.transformer import TextTransformer
    from encoders.text.views import TextViews

    keep_freed_memory()
    cores = torch.get_num_threads()
    records = open_source(arguments.source, TEXTS).train
    raw = [records.raw(i) for i in range(len(records))]
    views = TextViews(crop=(0.3, 0.8), shuffle=3.0, delete=0.2, mask=0.1, mask_spans=0.1)
    views.learn(raw)
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))

    torch.set_num_threads(1)
    print(f"{len(records)} texts of {arguments.source}, batches of {BATCH}, one core")
    print_stages(records, views, order, arguments.rounds, warm_up=1, decode="tokenise")

    torch.set_num_threads(cores)
    device = arguments.device
    encoder: Any = TextTransformer(views.tokens.size, length=views.length)
    if arguments.encoder:
        encoder = PretrainedText(arguments.encoder)
    encoder.to(device)
    texts = [bytes(raw[i]).decode() for i in order[: arguments.texts].tolist()]
    decoded = [views.decode(text.encode()) for text in texts]
    where = f"{cores} cores" if device == "cpu" else torch.cuda.get_device_name()
    print(f"\nan encoder on {where}, texts of {views.length} tokens at most")
    print(f"{'':<16}{'padding':>10}{'by length':>12}{'padded':>12}{'ratio':>8}")

    def line(name: str, by_length: float, whole: float, padding: float) -> None:
        print(
            f"{name:<16}{100 * padding:>8.0f} %{by_length:>10.3f} s{whole:>10.3f} s{whole / by_length:>8.2f}",
            flush=True,
        )

    sizes = arguments.group or [group_rows(torch.device(device))]
    groups, whole, padding = training(encoder, views, decoded, arguments.rounds, device, sizes)
    for size, seconds in groups.items():
        line(f"train, by {size}", seconds, whole, padding)
    line("encode", *encoding(encoder, views, texts, max(1, arguments.rounds // 2), device))


if __name__ == "__main__":
    main()
