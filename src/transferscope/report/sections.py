"""What the page shows under each of the paper's numbers: what to see, figures, the paper's figures, our tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transferscope.claims.results import TaskResults
from transferscope.report import grids, published
from transferscope.tables.grid import Grid

Results = Mapping[str, TaskResults]


@dataclass(frozen=True)
class Section:
    """One entry of the page.

    numbers: as in the paper; see: what to look for; figures: names of figures of each task; analysis: what must be
    planned for it; ours: tables of all tasks; short ones are open, `folded` ones closed.
    """

    id: str
    numbers: str
    title: str
    see: str
    analysis: str
    figures: tuple[str, ...] = ()
    paper: tuple[Grid, ...] = ()
    ours: Callable[[Results], list[Grid]] = grids.common.none
    folded: Callable[[Results], list[Grid]] = grids.common.none
    note: str = ""


@dataclass(frozen=True)
class Chapter:
    """Sections under one heading, with the appendix's own section."""

    title: str
    appendix: str
    sections: tuple[Section, ...]


CHAPTERS = (
    Chapter(
        "Learning curves",
        "B.1",
        (
            Section(
                "figure_2",
                "Figure 2",
                "Learning curves and optimization speed",
                "P-T should rise faster and end higher than RI-T; the smaller learning rate should "
                "suit P-T, the larger one RI-T.",
                "training",
                ("learning_curves", "optimization_speed"),
                (published.FIGURE_2,),
                grids.training.final_metrics,
                note="A star is the best epoch. Chosen on the test set, as in the paper, its metric is no estimate of "
                "performance; chosen on a validation part (`select_best_on`) it is one. Optimization speed is the "
                "metric on the training images, averaged over the epochs after which it was measured.",
            ),
        ),
    ),
    Chapter(
        "Mistakes",
        "B.2",
        (
            Section(
                "tables_3_6",
                "Tables 3, 4, 5, 6",
                "Common and uncommon mistakes",
                "Of a P-T and an RI-T, the RI-T should make far more mistakes that are only its own; two P-T "
                "should share most of theirs.",
                "mistakes",
                ("mistakes",),
                (published.TABLE_6,),
                grids.mistakes.mistakes,
                grids.mistakes.mistakes_per_class,
                "Uncommon, first: mistakes that only the first model makes / all mistakes of the first model. "
                "g1 counts what only the first model gets right; the paper's Table 6 prints the other convention "
                "(g1: only the first is wrong), so its two counts are exchanged here. "
                "The accuracies printed in Tables 3 to 5 do not follow from their counts and are left out. "
                "Of several labels an image each is predicted where its probability is above .5.",
            ),
            Section(
                "figure_8",
                "Figure 8",
                "Accuracy and class size",
                "P-T should lie above RI-T for most classes, and its accuracy should follow the class size more "
                "closely.",
                "mistakes",
                ("accuracy_by_class_size",),
                (published.FIGURE_8,),
                grids.mistakes.class_size_correlation,
                grids.mistakes.class_accuracy,
                "Pearson's r with its two-sided p-value; with few classes r is a rough number.",
            ),
            Section(
                "figure_9",
                "Figure 9",
                "Uncommon mistakes",
                "Images that only one of the two models classifies correctly: are RI-T's mistakes the easier images?",
                "mistakes",
                ("uncommon_mistakes",),
            ),
        ),
    ),
    Chapter(
        "Similarity of features and weights",
        "B.3",
        (
            Section(
                "tables_1_7",
                "Tables 1 and 7",
                "Similarity of features (CKA)",
                "Two P-T should be alike in every layer; pairs with an RI-T should be near the floor. Compare the"
                " order of the rows, not the numbers.",
                "similarity",
                ("cka", "cka_heat_map"),
                (published.TABLE_1, published.TABLE_7),
                grids.similarity.cka,
                grids.similarity.cka_other,
                "The paper does not say how features were pooled, on how many examples, or with which estimator; "
                "the biased estimate (Kornblith et al. 2019) of unrelated features is far from 0, the debiased and "
                "minibatch ones are near 0. Controls: a model with itself, two untrained models (RI & RI), and the "
                "same with permuted examples. The heat maps compare every block with every block.",
            ),
            Section(
                "table_2",
                "Table 2, Figure 10",
                "Distance between two models",
                "Two P-T should lie much closer together than two RI-T, in every module.",
                "similarity",
                ("distance_per_module",),
                (published.TABLE_2,),
                grids.similarity.distances_between,
                grids.similarity.distances_per_module,
                "The paper's tables do not agree with each other, so the l2 over all weights is shown beside the "
                "sum of the modules' and the square.",
            ),
            Section(
                "table_8",
                "Table 8, Figure 11",
                "Distance to the initial weights",
                "Fine-tuning should move the weights much less than training from scratch.",
                "similarity",
                ("distance_to_initialisation", "distance_travelled"),
                (published.TABLE_8,),
                grids.similarity.distances_travelled,
            ),
        ),
    ),
    Chapter(
        "Barriers in the loss landscape",
        "B.4 to B.8",
        (
            Section(
                "all_barriers",
                "Figures 12 to 29",
                "All barriers as numbers",
                "P-T pairs should lie at 0, RI-T pairs far to the right, those with the same initialisation between "
                "them, within a task as across domains.",
                "landscape",
                ("all_barriers",),
                (),
                grids.landscape.barrier_summary,
                note="The interval over examples is a 95 % bootstrap of the test images, the same for all models; that "
                "over pairs says little with few pairs, which share models. The largest gap of a noisy flat line is "
                "never below 0, so an interval near 0 says that no barrier was found. Networks with BatchNorm layers "
                "get their statistics anew at every point between two models, from training images; what the "
                "averaged statistics give has names that begin with naive.",
            ),
            Section(
                "figures_12_17",
                "Figures 12 to 17",
                "Barriers between two models",
                "The line between two P-T should be flat, that between two RI-T should fall deep in the middle, "
                "also where they share their initial weights.",
                "landscape",
                ("barrier", "loss_barrier"),
                (published.FIGURE_12, published.FIGURE_14),
                grids.landscape.barriers,
                grids.landscape.barriers_all,
                "Figures 12, 14, 16 show the metric, 13, 15, 17 the loss; 16 and 17 the pairs with the same "
                "initialisation. "
                "A barrier is the largest gap to the chord between both ends.",
            ),
            Section(
                "figure_18",
                "Figure 18",
                "Beyond the two models",
                "Outside [0, 1] the metric of a P-T pair should fall soon: both lie near the boundary of their "
                "common basin.",
                "landscape",
                ("extrapolation",),
                (),
                grids.landscape.extrapolation,
            ),
            Section(
                "basin",
                "Definition 3.1",
                "The basin of all models of a kind",
                "The hull of P-T should be a basin: a small ε, and walls (noise and steps outward) that reach 2ε at a "
                "length δ that is no larger than the distance between the models. In the hull of RI-T ε should be so "
                "large, because of the barrier inside, that no length satisfies the definition.",
                "landscape.basin",
                ("basin",),
                (),
                grids.surfaces.basin,
                note="The loss is that of the test set. ε and δ depend on the points and rays that were drawn; their "
                "numbers stand in the table. The paper reports (.0038, 49.14), (.0054, 98.28) and (.0034, 49.14) for "
                "P-T of real, clipart and quickdraw.",
            ),
            Section(
                "planes",
                "Beyond the paper",
                "The plane through three models",
                "P, P-T 1 and P-T 2: both P-T should lie in one valley, which begins on the way from P. Three RI-T: "
                "each should lie in a valley of its own, closer together where two share their initial weights.",
                "landscape.planes",
                ("plane",),
                (),
                grids.surfaces.planes,
                note="P's classifier is for other classes, so P takes part with the new classifier that the P-T "
                "started from, which knows nothing yet.",
            ),
            Section(
                "figures_19_23",
                "Figures 19 to 23",
                "Between models of two domains",
                "Between P-T of two domains there should be no barrier but a gain in the middle; between RI-T a "
                "barrier.",
                "landscape.cross_domain",
                tuple(f"figure_{number}" for number in range(19, 24)),
                (),
                grids.landscape.cross_domain,
            ),
            Section(
                "figures_24_29",
                "Figures 24 to 29",
                "With models of combined domains",
                "The same with a model trained on the union of two domains: still one basin for P-T, still a "
                "barrier for RI-T.",
                "landscape.cross_domain",
                tuple(f"figure_{number}" for number in range(24, 30)),
                (),
                grids.landscape.unions,
            ),
        ),
    ),
    Chapter(
        "Criticality of modules",
        "B.9",
        (
            Section(
                "figure_30",
                "Figure 30",
                "Module criticality",
                "The darker the maps of train and test stay towards the left and the top, the less critical the "
                "module: it bears being moved to its initial value and being shaken.",
                "landscape.criticality",
                ("criticality_heat_maps", "module_criticality"),
                (),
                grids.criticality.module_criticality,
                note="Criticality μ is the smallest distance² / σ² at which the training loss stays within ε on "
                "the grid: 0 where the module can be set back, ∞ where no measured point stays within ε. Shown is "
                "the first module; all modules of a run, a page each, are, with analyses.landscape.criticality.pages, "
                "in the file criticality_<run>.pdf of the "
                "task's folder, beside the figures: <task>.criticality_<run>.pages in the catalog.",
            ),
            Section(
                "figure_5",
                "Figure 5 of the main text",
                "Each module set back to its initial value",
                "P-T should bear it almost everywhere; RI-T should fall, most with the first module.",
                "landscape.criticality",
                ("rewinding",),
                (published.FIGURE_5,),
                grids.criticality.rewinding,
            ),
        ),
    ),
    Chapter(
        "Spectra of the weights",
        "C",
        (
            Section(
                "figure_31",
                "Figures 31 and 32",
                "Singular values of the whole network",
                "RI-T should be more concentrated towards zero.",
                "spectrum",
                ("spectrum_histogram", "spectrum_training"),
                (),
                grids.spectrum.networks,
                grids.spectrum.layers,
                note="RI is RI-T before training. The lower part leaves out values of exactly 0, of which RI has many. "
                "For the tasks in analyses.spectrum.layer_pages every layer has its own panels in the file "
                "layer_spectra.pdf beside the figures, in the catalog <task>.layer_spectra.pages. docs/spectrum.md "
                "says how to read them.",
            ),
            Section(
                "figure_33",
                "Figure 33",
                "Singular values below a threshold",
                "At small thresholds RI-T's curve should lie above P-T's.",
                "spectrum",
                ("spectrum_counts",),
                (),
                grids.spectrum.small_values,
            ),
            Section(
                "norm_ratios",
                "Appendix C",
                "Sum of ‖W‖_F / ‖W‖_2",
                "The sum should be larger for RI-T, and with it the bound on its generalisation error.",
                "spectrum",
                ("norm_ratios",),
                (),
                grids.spectrum.bound_factors,
                grids.spectrum.norm_ratios_per_layer,
            ),
        ),
    ),
)
