"""Patients with correlated findings, and what a radiologist would have written about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from transferscope.generated.thorax import FINDINGS, Body

COLUMNS = (
    "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly",
    "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
    "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The columns of CheXpert's train.csv."""

PREVALENCE = {
    "Cardiomegaly": 0.3, "Edema": 0.32, "Consolidation": 0.25, "Atelectasis": 0.34, "Pleural Effusion": 0.4,
}  # fmt: skip
LOADINGS = {  # of heart failure and of infection on the tendency to each finding
    "Cardiomegaly": (0.7, 0.0), "Edema": (0.65, 0.2), "Consolidation": (0.0, 0.65), "Atelectasis": (0.25, 0.3),
    "Pleural Effusion": (0.5, 0.4),
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One examination: what there is, and what the report says of it.

    `report` maps columns of CheXpert to what they hold; those left out are blank.
    """

    patient: int
    number: int
    views: int
    body: Body
    portable: bool
    devices: bool
    severities: Mapping[str, float]
    report: Mapping[str, str]


def draw_studies(rng: np.random.Generator) -> Iterator[Study]:
    """Studies without end, patient by patient: one to about five of each."""
    patient = 0
    while True:
        patient += 1
        body = Body.draw(rng)
        causes = rng.standard_normal(2)
        about = {"Sex": str(rng.choice(["Male", "Female"])), "Age": str(int(rng.integers(18, 91)))}
        for number in range(1, 1 + min(6, int(rng.geometric(0.45)))):
            severities = _severities(causes, rng)
            portable = bool(rng.random() < 0.4 + 0.15 * np.sign(causes[0]))
            devices = bool(rng.random() < 0.3)
            report = about | {"Frontal/Lateral": "Frontal", "AP/PA": "AP" if portable else "PA"}
            report |= _findings_report(severities, rng) | ({"Support Devices": "1.0"} if devices else {})
            views = 2 if rng.random() < 0.12 else 1
            yield Study(patient, number, views, body, portable, devices, severities, report)


def _severities(causes: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Severity in {0} and .3 .. 1 of each finding, given how much heart failure and infection the patient has."""
    severities = {}
    for finding in FINDINGS:
        heart, infection = LOADINGS[finding]
        own = np.sqrt(1 - heart**2 - infection**2)
        tendency = heart * causes[0] + infection * causes[1] + own * rng.standard_normal()
        excess = tendency - NormalDist().inv_cdf(1 - PREVALENCE[finding])
        severities[finding] = float(min(1.0, 0.3 + 0.6 * excess)) if excess > 0 else 0.0
    return severities


def _findings_report(severities: Mapping[str, float], rng: np.random.Generator) -> dict[str, str]:
    """Weak findings are often uncertain, absent ones mostly not mentioned, and a few entries are wrong."""
    report: dict[str, str] = {}
    for finding, severity in severities.items():
        if severity >= 0.5:
            choices, chances = ("1.0", "-1.0", ""), (0.95, 0.03, 0.02)
        elif severity:
            choices, chances = ("1.0", "-1.0", ""), (0.5, 0.42, 0.08)
        else:
            choices, chances = ("", "0.0", "-1.0"), (0.73, 0.25, 0.02)
        report[finding] = str(rng.choice(choices, p=chances))
    opaque = severities["Edema"] or severities["Consolidation"]
    if opaque and rng.random() < 0.6:
        report["Lung Opacity"] = "1.0"
    if severities["Consolidation"] and rng.random() < 0.3:
        report["Pneumonia"] = "-1.0"
    if not any(severities.values()):
        report["No Finding"] = "1.0"
    return {column: value for column, value in report.items() if value}
