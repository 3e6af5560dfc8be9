"""Pretrain a text encoder: the same as `bt-multimodal text pretrain`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.text.commands import pretrain as main

if __name__ == "__main__":
    sys.exit(main())
