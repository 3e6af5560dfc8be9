"""Pretrain an image encoder: the same as `bt-multimodal image pretrain`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.image.commands import pretrain as main

if __name__ == "__main__":
    sys.exit(main())
