"""Text encoders as folders for sentence-transformers.

    python tasks/text_convert.py --encoder runs/text/TIME --out FOLDER

--encoder   a run directory or an encoder.safetensors
--out       the folder to write, new or empty: SentenceTransformer(FOLDER) loads it. Encoders that are no
            model of transformers need this checkout to be importable, and trust_remote_code=True.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: Sequence[str]) -> int:
    """Convert; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", required=True)
    if not argv:
        print((__doc__ or "").strip())
        return 0
    arguments = parser.parse_args(argv)
    from bt_multimodal.commands.cli import fail
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.report import check_empty
    from encoders.text.exchange import save_sentence_transformer

    sys.path.insert(0, os.getcwd())  # a user's own encoder
    try:
        check_empty(Path(arguments.out))
        encoder, views = load_encoder(arguments.encoder)
        save_sentence_transformer(encoder, views, arguments.out, arguments.encoder)
    except (ValueError, OSError) as error:
        return fail(str(error))
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
