"""The tasks of the command ``bt-multimodal``, by modality."""

# Modality, task: the function that runs it, and what it does.
TASKS: dict[str, dict[str, tuple[str, str]]] = {
    "image": {
        "pretrain": ("encoders.image.commands:pretrain", "pretrain an encoder on pictures"),
        "linear": ("encoders.image.commands:linear", "kNN and linear probes on frozen features"),
        "classify": ("encoders.image.commands:classify", "train a classifier: linear, few labels, transfer"),
        "svm": ("encoders.image.commands:svm", "VOC07's linear SVMs"),
        "detect": ("encoders.image.commands:detect", "fine-tune a detector on VOC or COCO"),
        "convert": (
            "encoders.image.commands:convert",
            "from and to the reference, torchvision, timm",
        ),
        "ablations": ("encoders.image.commands:ablations", "a sweep of configs and seeds, one table"),
    },
    "audio": {
        "pretrain": ("encoders.audio.commands:pretrain", "pretrain an encoder on sounds"),
        "probe": ("encoders.audio.commands:probe", "kNN, linear probes, HEAR's MLPs on frozen features"),
    },
    "text": {
        "pretrain": ("encoders.text.commands:pretrain", "pretrain an encoder on texts"),
        "probe": ("encoders.text.commands:probe", "kNN, linear probes, SentEval's protocol"),
        "sts": ("encoders.text.commands:sts", "semantic textual similarity"),
        "convert": ("encoders.text.commands:convert", "a folder for sentence-transformers"),
    },
}
SEEDS = "mean and spread of the tables of several runs: bt-multimodal seeds RUN RUN ..."
