"""A missing package in one line that names the extra to install."""

EXTRAS = {
    "train": (
        "datasets", "fsspec", "jsonargparse", "lightning", "matplotlib", "pyarrow", "shtab", "sklearn",
        "threadpoolctl", "tqdm", "yaml",
    ),
    "image": ("PIL", "pycocotools", "torchvision"),
    "audio": ("soundfile", "torchaudio"),
    "text": ("huggingface_hub", "scipy", "tokenizers", "transformers"),
    "timm": ("timm",),
}  # fmt: skip


def missing_extra(error: ModuleNotFoundError, wanted: str) -> str | None:
    """What to install, or ``None`` if no extra of this package brings the missing module.

    Args:
        wanted: the extra to name, if it brings the module (an extra of a modality brings ``train``).
    """
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    if extra != "timm" and wanted in EXTRAS:
        extra = wanted
    return f"{module} is not installed; this brings it: pip install 'bt_multimodal[{extra}]'"
