"""Evaluate a text encoder by semantic textual similarity: the same as `bt-multimodal text sts`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.text.commands import sts as main

if __name__ == "__main__":
    sys.exit(main())
