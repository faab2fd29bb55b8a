"""scikit-learn on two of joblib's backends, loky and ours: equal numbers, time and memory, side by side in one run.

``python -m benchmarks.scikit_learn [ROUNDS]`` runs each workload on each backend in a process of its own, in turns, and
prints the medians. `first` has the start of the workers and their imports in it, `again` is the same call on the same
workers; `memory` is the peak of the process and its workers together (PSS), less what the process had before.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BACKENDS = ("loky", "shmexec")
WORKERS = 2


def forest() -> Any:
    """RandomForestClassifier(200), load_digits"""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    X, y = load_digits(return_X_y=True)
    made = RandomForestClassifier(200, random_state=0).fit(X, y)
    return made.predict_proba(X), made.feature_importances_


def grid() -> Any:
    """GridSearchCV(SVC), 6 candidates, 4 folds, load_digits"""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    X, y = load_digits(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [1e-3, 1e-2]}, cv=4).fit(X, y)
    return search.cv_results_["mean_test_score"], search.best_estimator_.dual_coef_


def scores() -> Any:
    """cross_val_score(LogisticRegression), 20 folds, load_breast_cancer"""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    return cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), X, y, cv=20)


def large() -> Any:
    """GridSearchCV(Ridge), 4 candidates, 4 folds, make_regression of 80 MB"""
    from sklearn.datasets import make_regression
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    X, y = make_regression(100_000, 100, random_state=0)
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1, 10, 100]}, cv=4).fit(X, y)
    return search.cv_results_["mean_test_score"], search.best_estimator_.coef_


def arrays() -> Any:
    """joblib.Parallel, 60 tasks: an array of 80 MB in, one of 8 MB out"""
    import numpy as np
    from joblib import Parallel, delayed

    X = np.random.default_rng(0).random((10_000, 1000))
    results = Parallel()(delayed(scaled)(X, i) for i in range(60))
    return np.array([result.sum() for result in results])


def scaled(X: Any, i: int) -> Any:
    return X[100 * i : 100 * i + 1000] * 2


WORKLOADS: dict[str, Callable[[], Any]] = {work.__name__: work for work in (forest, grid, scores, large, arrays)}


def digest(values: Any) -> str:
    values = values if isinstance(values, tuple) else (values,)
    return hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()[:16]


def run_one(backend: str, name: str) -> None:
    """In a process of its own."""
    import joblib
    import sklearn.model_selection  # noqa: F401

    from shmexec.integrations.joblib import register
    from shmexec.measure import PeakMemory

    register()
    work, found = WORKLOADS[name], []
    with PeakMemory() as before:
        time.sleep(0.3)
    with PeakMemory() as peak, joblib.parallel_config(backend, n_jobs=WORKERS):
        for _ in range(2):
            begun = time.perf_counter()
            values = work()
            found.append(time.perf_counter() - begun)
    more = None if peak.peak is None or before.peak is None else peak.peak - before.peak
    print(json.dumps({"first": found[0], "again": found[1], "memory": more, "digest": digest(values)}))


def main(rounds: int) -> None:
    print(f"{rounds} rounds, {WORKERS} workers, {os.cpu_count()} cores; load when it began: {os.getloadavg()[0]:.1f}")
    print(f"{'':66}{'first':>16}{'again':>17}{'memory':>19}")
    print(f"{'':66}" + f"{'loky':>9}{'shmexec':>9}" * 3)
    for name, work in WORKLOADS.items():
        taken: dict[str, list[dict[str, Any]]] = {backend: [] for backend in BACKENDS}
        for number in range(rounds):
            for backend in BACKENDS if number % 2 else BACKENDS[::-1]:
                command = [sys.executable, "-m", "benchmarks.scikit_learn", backend, name]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                taken[backend].append(json.loads(done.stdout))
        if len({one["digest"] for ones in taken.values() for one in ones}) != 1:
            raise SystemExit(f"{name}: the numbers differ")
        line = f"{(work.__doc__ or name):66}"
        for what, unit, scale in ("first", " s", 1.0), ("again", " s", 1.0), ("memory", " MB", 1e-6):
            for backend in BACKENDS:
                middle = statistics.median(one[what] for one in taken[backend]) * scale
                line += f"{middle:{9 - len(unit)}.{0 if unit == ' MB' else 2}f}{unit}"
        print(line, flush=True)
    print("the numbers are equal, to the last bit")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_one(*sys.argv[1:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
