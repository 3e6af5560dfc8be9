"""Convert image encoders to and from other formats: the same as `bt-multimodal image convert`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.image.commands import convert as main

if __name__ == "__main__":
    sys.exit(main())
