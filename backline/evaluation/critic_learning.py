"""Fit a critic to real songs and to songs that a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backline.evaluation.critic import Critic, describe
from backline.music.vocab import Vocabulary

FOLDS = 5  # of the cross-validation
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03)  # inverse, of the penalty on weights (L2)
LEAST_SCALE = 1e-3  # of a column that hardly changes


class Fitted(NamedTuple):
    """A critic, and how well such critics told songs apart that they were not fitted to.

    auc: area under the ROC curve over the folds: 0.5 is guessing.
    """

    critic: Critic
    auc: float
    strength: float


def fit_critic(real: Sequence[np.ndarray],
               made: Sequence[np.ndarray],
               vocabulary: Vocabulary) -> Fitted:
    """Fit a critic to (N, F) rows of songs of either kind, cut to like lengths.

    The strength of the penalty is the one whose critics tell unseen songs apart best.
    """
    # Slow to import, and only this needs them.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    columns = np.stack([describe(rows, vocabulary) for rows in (*real, *made)])
    is_real = np.repeat([1, 0], [len(real), len(made)])
    mean = columns.mean(0)
    scale = np.maximum(columns.std(0), LEAST_SCALE)
    scaled = (columns - mean) / scale
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)

    def model(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)

    areas = []
    for strength in STRENGTHS:
        odds = cross_val_predict(model(strength), scaled, is_real, cv=folds, method="decision_function")
        areas.append(float(roc_auc_score(is_real, odds)))
    best = int(np.argmax(areas))
    fitted = model(STRENGTHS[best]).fit(scaled, is_real)
    critic = Critic(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))
    return Fitted(critic, areas[best], STRENGTHS[best])
