"""Tables of spectrum: singular values of the layers, and bounds that they enter."""

from __future__ import annotations

from transferscope.datasets.schemas.column_kinds import count, flag, number, optional, ranged, share, table, text
from transferscope.datasets.schemas.shared_columns import EPOCH, MODULE, RUN, TASK

STATUS = ("exact", "converged", "bounded", "estimated")
MARGIN = (
    number("margin", "smallest margin on the training examples", "logits"),
    number("margin_median", "median margin on the training examples", "logits"),
    number("input_norm", "largest l2 norm of a normalised image", low=0),
    count("input_dimension", "values of an image", empty=True),
    count("num_examples", "training examples", "examples", empty=True),
)

TABLES = {
    "singular_values": table(
        "A row per epoch, layer and distinct singular value.",
        *RUN,
        EPOCH,
        MODULE,
        number("value", "singular value", low=0, always=True),
        count("multiplicity", "how often it occurs", low=1),
    ),
    "singular_vectors": table(
        "A row per layer, singular value and pixel of its right singular vector.",
        *RUN,
        EPOCH,
        MODULE,
        count("rank", "place among the singular values, from 1", low=1),
        number("value", "singular value", low=0),
        count("channel", "channel of the layer's input"),
        count("row", "row of the layer's input", "px"),
        count("column", "column of the layer's input", "px"),
        number("amplitude", "entry of the vector of length 1", low=-1, high=1),
        share("share", "part of the squared length in this channel"),
        key=("run", "epoch", "module", "rank", "channel", "row", "column"),
    ),
    "spectrum": table(
        "A row per epoch and layer, `all` side by side, and their `sum`.",
        *RUN,
        EPOCH,
        text("stride", "whether strides count", "honoured", "ignored"),
        MODULE,
        number("frobenius", "root of the sum of squared singular values", low=0),
        number("spectral_norm", "largest singular value", low=0),
        number("ratio", "`frobenius` over `spectral_norm`", low=0),
        number("stable_rank", "`ratio` squared", low=0),
        number("effective_rank", "exponential of the entropy of the singular values", low=0),
        number("condition", "largest over smallest singular value", low=1),
        count(r"^count_below_[\d.e+-]+$", "singular values below this threshold", pattern=True),
        count(
            r"^relative_below_[\d.e+-]+$",
            "singular values below this part of their root mean square",
            pattern=True,
        ),
        count("num_values", "singular values", low=1),
        *optional(text("left_out", "layers of the network with weights and without a spectrum here", empty=True)),
        key=("run", "epoch", "module"),
    ),
    "network_spectrum": table(
        "A row per padding and layer, and `all` side by side.",
        *RUN,
        EPOCH,
        MODULE,
        text("layer", "type of the layer", empty=True),
        text("padding", "the network's own or a circular one", "network", "circular"),
        flag("folded", "whether BatchNorm or a gain is part of the map"),
        text("method", "how the spectrum was found; `none` where there is none", empty=True),
        *(
            text(f"{name}_status", f"how sure {what} is", *STATUS, empty=True)
            for name, what in (
                ("top", "the largest value"),
                ("smallest", "the smallest value"),
                ("counts", "each count"),
            )
        ),
        text("note", "reason or remark", empty=True),
        number("frobenius", "root of the sum of squared singular values", low=0),
        number("spectral_norm", "largest singular value", low=0),
        number("norm_bound", "certified bound on it", low=0),
        number("ratio", "`frobenius` over `spectral_norm`", low=0),
        number("stable_rank", "`ratio` squared", low=0),
        number("smallest", "smallest singular value", low=0),
        number(r"^(count|low|high)_below_[\d.e+-]+$", "values below this threshold, with its ends", pattern=True),
        number("num_values", "singular values", low=0),
        *optional(number("alpha", "exponent of the power law of the eigenvalues")),
        key=("run", "epoch", "module", "padding"),
    ),
    "margin": table("A row per run.", *RUN, EPOCH, *MARGIN, key=("run", "epoch")),
    "bound_factors": table(
        "A row per run and epoch: the factors of generalisation bounds.",
        *RUN,
        EPOCH,
        number("sum_of_ratios", "sum over the layers of `ratio`", low=0),
        number("sum_of_squared_ratios", "sum over the layers of `stable_rank`", low=0),
        number("log_product_of_norms", "natural logarithm of the product of the spectral norms"),
        count("num_layers", "layers that are not zero", "layers"),
        *MARGIN,
        key=("run", "epoch"),
    ),
    "small_values": table(
        "A row per threshold: whether runs from scratch have more small singular values.",
        TASK,
        text("label_a", "label of the first runs"),
        text("label_b", "label of the second runs"),
        number("threshold", "singular values below it count", low=0, always=True),
        share("fraction_a", "share of those of the first that is below"),
        share("fraction_b", "share of those of the second that is below"),
        *ranged(number("difference", "`fraction_a` less `fraction_b`", "share", low=-1, high=1), prefix=""),
        count("layers_more_in_a", "layers with more of them in the first", "layers"),
        count("num_layers", "layers", "layers"),
        share(
            "probability_smaller", "chance that a value of the first is smaller than one of the second", "probability"
        ),
        key=("label_a", "label_b", "threshold"),
    ),
}
