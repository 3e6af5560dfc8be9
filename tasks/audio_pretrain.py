"""Pretrain an audio encoder: the same as `bt-multimodal audio pretrain`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.audio.commands import pretrain as main

if __name__ == "__main__":
    sys.exit(main())
