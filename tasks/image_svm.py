r"""Linear SVMs on an image encoder's features: VOC07 classification, mean average precision.

    python tasks/image_svm.py fit --config configs/image/voc07_svm.yaml \
        --encoder RUN --data.source VOCdevkit/VOC2007
    python tasks/image_svm.py fit --help               every key, with its meaning

--encoder       a run directory or an encoder.safetensors (tasks/image_convert.py makes one of the
                reference code's files)
--data.source   a folder with JPEGImages/ and ImageSets/Main/CLASS_SPLIT.txt
--run_dir       where to keep config.yaml, table.txt, table.json and svms.json (each class's average
                precision, C, and what C was chosen by); without it the table is only printed

The table compares raw pixels (averaged to 32 x 32 where there are more), the encoder untrained (same
class, fresh weights) and trained: one SVM a class, C chosen by cross-validation on the training split,
and the mean over the classes of the whole area under the precision-recall curve and of VOC07's 11-point
average. A picture in which a class is marked as difficult does not count in that class's test.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.svm import svm_task


def modality():
    """How images are named, and how a VOC folder is opened."""
    from torch.nn.functional import adaptive_avg_pool2d

    from encoders.image.modality import IMAGES
    from encoders.image.voc import open_voc

    def pixels(view):
        # As they are, 224 x 224 would make 150,528 features: tens of GiB in the solver.
        rows, columns = view.shape[2:]
        return adaptive_avg_pool2d(view, (min(rows, 32), min(columns, 32))).flatten(1)

    return IMAGES._replace(raw_features=pixels), open_voc


if __name__ == "__main__":
    sys.exit(svm_task(__doc__ or "", modality))
