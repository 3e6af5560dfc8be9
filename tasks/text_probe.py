"""Evaluate a text encoder on frozen features: the same as `bt-multimodal text probe`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.text.commands import probe as main

if __name__ == "__main__":
    sys.exit(main())
