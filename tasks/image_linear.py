"""Evaluate an image encoder by kNN and linear probes: the same as `bt-multimodal image linear`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.image.commands import linear as main

if __name__ == "__main__":
    sys.exit(main())
