"""Every ending that is taken for a picture's is one of a format that is decoded."""

import io

import numpy as np
import pytest
from PIL import Image, features

from encoders.image import ops
from encoders.image.modality import IMAGES

Image.init()


@pytest.mark.parametrize("ending", IMAGES.extensions)
def test_a_picture_with_this_ending_is_decoded(ending):
    if ending.startswith(".avif") and not features.check("avif"):
        pytest.skip("this build of Pillow has no AVIF")
    name = Image.registered_extensions()[ending]
    mode = {".pgm": "L", ".pbm": "1"}.get(ending, "RGB")
    image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, name)
    assert ops.decode_rgb(buffer.getvalue()).shape == (3, 8, 8)


def test_every_ending_of_the_formats_that_are_decoded_is_taken():
    known = {ending for ending, name in Image.registered_extensions().items() if name in ops._FORMATS}
    assert {*IMAGES.extensions} == known - {".pfm"}  # floats of any range
