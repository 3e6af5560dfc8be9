"""Write a text encoder for sentence-transformers: the same as `bt-multimodal text convert`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.text.commands import convert as main

if __name__ == "__main__":
    sys.exit(main())
