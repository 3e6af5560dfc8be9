"""The way of a text from its table to two views, stage by stage, and what padding costs an encoder.

    python benchmarks/text_views.py --source ../shared/data/text/ag_news
    python benchmarks/text_views.py                       # the embedded documentation strings
    python benchmarks/text_views.py --device cuda --group 64 128 256

Stages run on one core, each over the same texts: ``read`` (a table's cell), ``tokenise`` (byte-pair
encoding learnt from the texts), ``draw`` (random parameters), ``cut`` (the spans of both views),
``views`` (shuffling, deletion and masks, special tokens, padding; both views). Each figure is the median
over ``--rounds`` rounds that run all stages in turn. With ``data.cache`` the first two happen once.

Padding: a `TextTransformer` (256 wide, 4 layers) on all cores or on a GPU (in bfloat16), rows in groups of
like length (`encoders.text.lengths`) against the whole batch padded to its longest text. ``train`` is forward
and backward of one view of batches of 256 drawn at random, as the loss wants them; ``encode`` is all texts in
batches of 32, sorted by length (`SentenceEncoder`) against in the order they come in. Medians, the sides in
turn. ``--group`` are the rows of a group, one number or more; ``--encoder`` the folder of a model of
transformers, or the JSON text of a configuration, in the place of the `TextTransformer`.
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
    """Seconds of a step in groups of each size and padded whole, and the latter's share of padding."""
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
            found = in_length_groups(encoder._embed, view, size)
        found.square().sum().backward()

    took: dict[int, list[float]] = {size: [] for size in (*sizes, BATCH)}
    for view in (*batches, *batches):  # twice: kernels of a new shape have to be loaded first
        for size, seconds in took.items():
            encoder.zero_grad()
            seconds.append(timed(lambda view=view, size=size: step(view, size), device)[0])
    medians = {size: statistics.median(seconds[rounds:]) for size, seconds in took.items()}
    return medians, medians.pop(BATCH), padding


def encoding(
    encoder: Any, views: Any, texts: list[str], rounds: int, device: str
) -> tuple[float, float, float]:
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
    parser.add_argument("--texts", type=int, default=2000, help="that are encoded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--group", type=int, nargs="+", help="rows of a group, one or more")
    parser.add_argument("--encoder", help="a folder or the JSON text of a configuration")
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
