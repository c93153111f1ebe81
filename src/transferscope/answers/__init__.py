"""Answer questions about checkpoints in sentences: from tables to at most eight answers, each with its number.

`compare` measures checkpoints in a notebook and answers; the pipeline `report` answers from the tables of a study. The
public names are imported when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer": ["Answer", "AnswerCard"],
        "card": ["answer_questions"],
        "compared": ["Compared", "Model"],
        "comparison": ["Comparison", "compare"],
        "study": ["answers_of_study"],
    },
)
