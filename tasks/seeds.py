"""Mean and spread of the final tables of several runs: the same as `bt-multimodal seeds`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.seeds import seeds as main

if __name__ == "__main__":
    sys.exit(main())
