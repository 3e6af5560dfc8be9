"""The order in which folders are searched for what is imported."""

import os
import sys
from pathlib import Path


def working_folder_last() -> None:
    """Make modules of the working folder importable, behind those that are installed.

    A user's own ``my_lab.py`` is found, and a ``timm.py`` that lies there takes no library's place. The
    folder that Python itself puts first, of a script or of ``python -m``, goes behind too. One that
    ``PYTHONPATH`` names stays where the user has put it.
    """
    here = os.getcwd()
    named = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    first = [here]
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main and sys.path and os.path.abspath(sys.path[0]) == str(Path(main).resolve().parent):
        first.append(os.path.abspath(sys.path[0]))
    moved = [folder for folder in first if folder not in named]
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or here) not in moved] + moved
