"""Images as a modality: file names, column names and baseline features."""

from typing import Any

import numpy as np

from bt_multimodal.modality import Modality


def digits() -> dict[str, list[Any]]:
    """Returns scikit-learn's 1,797 handwritten digits, uint8 arrays ``[8, 8]``, and their 10 labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return {"image": list(images), "label": bunch.target.tolist()}


IMAGES = Modality(
    unit="images",
    raw="raw pixels",
    raw_features=lambda view: view.flatten(1),
    extensions=(
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jpe",
        ".jfif",
        ".apng",
        ".jp2",
        ".j2k",
        ".jpf",
        ".jpx",
        ".j2c",
        ".jpc",
        ".avif",
        ".avifs",
    ),  # those of the formats that `encoders.image.ops` decodes
    columns=("image", "img", "images", "path", "file", "filename", "file_name"),
    embedded={"sklearn:digits": digits},
)
