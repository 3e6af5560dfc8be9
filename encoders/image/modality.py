"""How images are found in data."""

from bt_multimodal.data import Modality

IMAGES = Modality(
    name="image",
    unit="images",
    raw="raw pixels",
    extensions=(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"),
    columns=("image", "img", "images", "path", "file", "filename", "file_name"),
)
