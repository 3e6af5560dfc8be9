"""Text as a modality: file names, column names and baselines."""

from bt_multimodal.modality import Modality
from encoders.text.docstrings import docstrings
from encoders.text.tfidf import tfidf_baselines

TEXTS = Modality(
    unit="texts",
    extensions=(".txt",),
    columns=("text", "sentence", "sentence1,sentence2", "content", "document", "article", "body", "abstract",
             "review", "question", "title", "docstring", "question1,question2", "premise,hypothesis",
             "text1,text2", "#1 string,#2 string", "tweet", "comment", "headline", "utterance", "message"),
    embedded={"docstrings": docstrings},
    inline=True,
    baselines=tfidf_baselines,
)  # fmt: skip
