"""Run the paper's ablations: the same as `bt-multimodal image ablations`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoders.image.commands import ablations as main

if __name__ == "__main__":
    sys.exit(main())
