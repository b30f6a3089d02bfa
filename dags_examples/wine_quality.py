"""Train a classifier of wines: split, search the best depth by fan-out, fit, evaluate.

You will see one task instance for each candidate depth, their accuracies as metrics, and the final
model in the store as a pickle: only an output that declares a pickle is stored as one.

    dbnd run dags_examples/wine_quality.py --set depths=2,4,8
"""

from __future__ import annotations

from typing import Annotated, Any

from pandas import DataFrame

from airflow_provider_dbnd import log_metric, log_metrics, output, parameter, pipeline, task


@task
def load_wines() -> DataFrame:
    """Return scikit-learn's wines: 178 rows, 13 measurements, 3 cultivars as ``target``."""
    from sklearn.datasets import load_wine

    return load_wine(as_frame=True).frame


@task(result="train,test")
def split(wines: DataFrame, test_share: float = 0.3) -> tuple[DataFrame, DataFrame]:
    from sklearn.model_selection import train_test_split

    kinds = wines["target"]
    train, test = train_test_split(wines, test_size=test_share, stratify=kinds, random_state=0)
    return train, test


@task
def try_depth(train: DataFrame, depth: int) -> dict[str, float]:
    """Return the accuracy of one candidate, by cross-validation."""
    from sklearn.model_selection import cross_val_score

    measured = train.drop(columns="target")
    accuracy = cross_val_score(_model(depth), measured, train["target"], cv=5).mean()
    log_metric("accuracy", accuracy)
    return {"depth": depth, "accuracy": float(accuracy)}


@task
def fit_best(train: DataFrame, candidates: list[dict[str, float]]) -> Annotated[Any, output.pickle]:
    best = max(candidates, key=lambda candidate: candidate["accuracy"])
    log_metrics({"depth": int(best["depth"]), "candidates": len(candidates)})
    return _model(int(best["depth"])).fit(train.drop(columns="target"), train["target"])


@task
def evaluate(model: Annotated[Any, parameter.pickle], test: DataFrame) -> float:
    accuracy = model.score(test.drop(columns="target"), test["target"])
    log_metric("accuracy", accuracy)
    return float(accuracy)


def _model(depth: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=20, max_depth=depth, random_state=0)


@pipeline
def wine_quality(depths: list[int] = [1, 2, 4], test_share: float = 0.3) -> float:  # noqa: B006
    train, test = split(load_wines(), test_share)
    candidates = try_depth.partial(train=train).expand(depth=depths)
    return evaluate(fit_best(train, candidates), test)


dag = wine_quality.as_dag(schedule=None, tags=["dbnd"])
