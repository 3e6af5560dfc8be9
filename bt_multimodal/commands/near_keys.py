"""Unknown keys: what was probably meant, by spelling and by the names that other tools use."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# The names that other tools give to our keys; the first key that a command has is meant.
_MEANT = (
    (("model.optimizer.lr", "model.lr", "model.head_lr"), "lr learning_rate base_lr rate eta"),
    (("model.optimizer.weight_decay", "model.weight_decay"), "weight_decay wd decay l2"),
    (("model.optimizer.momentum", "model.momentum"), "momentum"),
    (("model.optimizer",), "optimizer optim optimiser opt"),
    (("trainer.max_epochs",), "epochs epoch num_epochs n_epochs nepochs num_train_epochs total_epochs ep"),
    (("trainer.max_steps",), "steps iterations iters num_steps total_steps max_iter train_steps"),
    (("trainer.devices",), "gpus gpu num_gpus ngpus n_gpus nproc nproc_per_node ngpu world_size"),
    (("trainer.accelerator",), "device cuda cpu use_gpu use_cuda no_cuda"),
    (("trainer.num_nodes",), "nodes nnodes n_nodes"),
    (("trainer.precision",), "fp16 bf16 amp half mixed_precision dtype use_amp"),
    (("trainer.gradient_clip_val",), "clip clip_grad grad_clip max_grad_norm clip_grad_norm gradient_clip"),
    (("data.batch_size",), "bs batch b batchsize train_batch_size per_device_train_batch_size bsz"),
    (("data.num_workers",), "workers j n_workers worker dataloader_num_workers nworkers"),
    (("data.source",), "data_dir data_path dataset datapath dataroot data_root root train_dir path input"
                       " input_dir folder dataset_name train_data"),
    (("data.validation",), "val_split validation_split val_size valid_size val_fraction"),
    (("data.content_column",), "text_column image_column audio_column column"),
    (("run_dir",), "output out output_dir out_dir outdir save_dir savedir log_dir logdir work_dir exp_dir"
                   " dir workdir checkpoint_dir ckpt_dir default_root_dir experiment o"),
    (("run_dir",), "resume_from resume_from_checkpoint ckpt_path ckpt checkpoint_path restart load_from"
                   " continue restore"),
    (("encoder", "run_dir"), "pretrained weights checkpoint ckpt model_path model_name_or_path"),
    (("model.encoder", "encoder"), "arch backbone architecture network net a model_name encoder"),
    (("model.projector",), "proj projection projection_head head proj_dim projector_dim mlp"),
    (("model.loss.lambd",), "lambd lambda lmbda lambda_param lambda_offdiag"),
    (("model.warmup_epochs",), "warmup warm_up warmup_epoch warmup_steps num_warmup_steps"),
    (("model.accumulate",), "accum accum_iter gradient_accumulation_steps accumulation grad_accum"),
    (("seed",), "random_seed manual_seed rng_seed random_state s"),
    (("views",), "augmentation augmentations transform transforms aug augment"),
    (("config",), "cfg config_file conf yaml c config_path"),
    (("checkpoint.steps",), "save_steps save_every save_freq save_interval"),
    (("rank_timeout",), "timeout"),
    # of the commands that argparse reads
    (("data.source", "out"), "output"),
)  # fmt: skip
_USUAL: dict[str, tuple[str, ...]] = {
    name: tuple(key for keys, names in _MEANT if name in names.split() for key in keys)
    for name in " ".join(names for _, names in _MEANT).split()
}

_ACCUMULATE = (
    "accumulate_grad_batches would average small correlation matrices, which is another objective; "
    "model.accumulate takes the exact loss of a batch in micro-batches"
)


def unknown(name: str, keys: Sequence[str]) -> str:
    """The message for an unknown key, with what was probably meant.

    Args:
        name: as given, without its dashes.
        keys: those of the command.
    """
    if name.rpartition(".")[2].replace("-", "_") == "accumulate_grad_batches":
        return _ACCUMULATE
    shown = name.encode(errors="backslashreplace").decode() or "''"
    near = near_key(name, keys)
    return f"unknown key {shown}; " + (f"did you mean {near}?" if near else "--help lists the keys")


def group(name: str, value: str, keys: Sequence[str]) -> str:
    """The message for a value of what is a group of keys."""
    below = [key for key in keys if key.startswith(f"{name}.") and not key.endswith(".help")]
    hint = f"; to continue a run: --run_dir {value}" if name == "checkpoint" else ""
    return f"{name} is a group of keys: {', '.join(below[:4])}{' ...' if len(below) > 4 else ''}{hint}"


def near_key(name: str, keys: Sequence[str]) -> str | None:
    """The key that ``name`` probably means; ``None`` if nothing is near."""
    keys = [*(key for key in keys if not key.endswith(".help")), "config"]
    wanted = name.strip("-.").replace("-", "_").lower()
    group, _, last = wanted.rpartition(".")
    lower = {key.lower(): key for key in keys}
    if wanted in lower:
        return lower[wanted]
    below = [key for key in lower if key.startswith(f"{group}.")] if group else []
    usual = [key for name in (wanted, last) for key in _USUAL.get(name, ()) if _reaches(key, keys)]
    if usual and (not below or usual[0] in keys):
        return usual[0]
    if near := difflib.get_close_matches(last, [key.rpartition(".")[2] for key in below], n=1, cutoff=0.75):
        return next(lower[key] for key in below if key.rpartition(".")[2] == near[0])
    if usual:
        return usual[0]
    ends = [key for key in lower if key.rpartition(".")[2] == last]
    if ends:
        return lower[max(ends, key=lambda key: difflib.SequenceMatcher(None, key, wanted).ratio())]
    if near := difflib.get_close_matches(wanted, lower, n=1, cutoff=0.75):
        return lower[near[0]]
    lasts = {key.rpartition(".")[2]: lower[key] for key in lower}
    usual_names = {usual: key for usual, all_ in _USUAL.items() for key in all_[:1] if _reaches(key, keys)}
    if near := difflib.get_close_matches(last, {**usual_names, **lasts}, n=1, cutoff=0.7):
        return {**usual_names, **lasts}[near[0]]
    near = difflib.get_close_matches(wanted, lower, n=1, cutoff=0.6)
    return lower[near[0]] if near else None


def check_words(argv: Iterable[str], keys: Sequence[str]) -> None:
    """Refuse arguments that name no key.

    Raises:
        ValueError: names the key that was probably meant.
    """
    argv = list(argv)
    for i, word in enumerate(argv):
        if word == "--":
            return
        if not word.startswith("--"):
            continue
        name, given, value = word[2:].partition("=")
        value = value if given else next(iter(argv[i + 1 : i + 2]), "")
        whole = name in keys and not _leaf(name, keys)
        if whole and not value.lstrip().startswith("{") and not value.endswith((".yaml", ".yml", ".json")):
            raise ValueError(group(name, value, keys))
        if name == "resume" and value not in ("same", "extend"):
            path = value if value and not value.startswith("--") else "PATH"
            raise ValueError(
                f"--resume takes same or extend; to continue a run, name its directory: --run_dir {path}"
            )
        if not _reaches(name.removesuffix("+"), (*keys, "config", "help")):
            raise ValueError(unknown(name, keys))


def check_mapping(config: Mapping[Any, Any], keys: Sequence[str], file: str) -> None:
    """Refuse keys of a config file that a command does not have.

    Raises:
        ValueError: names the file, and the key that was probably meant.
    """
    for name, value in config.items():
        if isinstance(value, list | int | float) and name in keys and not _leaf(name, keys):
            raise ValueError(f"{file}: {group(name, str(value), keys)}")
    for name in _names(config, keys):
        if not isinstance(name, str):
            raise ValueError(f"{file}: the key {name!r} is no word")
        if name == "config":
            raise ValueError(f"{file}: a config file has no key config; give --config twice, the base first")
        if not _reaches(name.removesuffix("+"), keys):
            raise ValueError(f"{file}: {unknown(name, keys)}")


def _names(config: Mapping[Any, Any], keys: Sequence[str], prefix: str = "") -> Iterator[Any]:
    """The names of a config's values; what is below a key that is no group belongs to a class."""
    for name, value in config.items():
        if not isinstance(name, str):
            yield name
            continue
        whole = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and not (_leaf(whole, keys) or _class_of(whole, keys)):
            yield from _names(value, keys, f"{whole}.")
        else:
            yield whole


def _leaf(key: str, keys: Sequence[str]) -> bool:
    return key in keys and not any(
        other.startswith(f"{key}.") and not other.endswith(".help") for other in keys
    )


def _class_of(name: str, keys: Sequence[str]) -> bool:
    """Whether a name is below a key whose own keys depend on the class that it is given."""
    parts = name.split(".")
    return any(_leaf(".".join(parts[:i]), keys) for i in range(1, len(parts)))


def _reaches(name: str, keys: Sequence[str]) -> bool:
    return name in keys or _class_of(name, keys)
