"""One round of federated learning: sites send statistics, the server solves; no sample leaves its site.

Four sites hold the data, most classes at one site only. In one round they agree on a scaling, in the next each sends
its statistics, in the last each counts, for every lambda, how many of its held-out samples the model gets right. The
server's model is that of the pooled data, and so are the points that it distils. With --epsilon each site adds noise to
its statistics first, so that what it sends is (epsilon, delta)-differentially private.

    pip install "krrdistill[cli,privacy]"
    python examples/federated.py --dataset cifar100 --kernel FCNN
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.apps import privacy

SITES = 4
DELTA = 1e-5


def samples_of(site: int, dataset: str) -> tuple[Any, Any]:
    """What one site has: sorted by class, so that sites differ as much as they can."""
    data = kd.load_dataset(dataset)
    rows = np.array_split(np.argsort(data.y_train, kind="stable"), SITES)[site]
    return data.x_train[rows], data.y_train[rows]


def moments(site: int, dataset: str) -> kd.Moments:
    """Round 1: sums for the scaling, which all sites must share."""
    return kd.Moments.of(samples_of(site, dataset)[0])


def statistics(site: int, dataset: str, phi: kd.FeatureMap, k: int) -> kd.RidgeStatistics:
    """Round 2: the statistics of nineteen samples in twenty."""
    summed = kd.RidgeStatistics(phi, k, precision="float64", shard=f"site {site}")
    summed.update_batches([samples_of(site, dataset)], holdout=0.05, seed=site)
    return summed


def counts(site: int, dataset: str, phi: kd.FeatureMap, k: int, path: kd.RidgePath) -> kd.CorrectCounts:
    """Round 3: how many of the held-out samples each model of the path gets right."""
    own = kd.RidgeStatistics(phi, k, precision="float64")
    held = own.update_batches([samples_of(site, dataset)], holdout=0.05, seed=site)
    return kd.count_correct(path, own, held)


def noisy(site: int, dataset: str, phi: kd.FeatureMap, k: int, B: float, epsilon: float) -> Any:
    """Round 2 with privacy: (G, C) of clipped features plus noise, all that the site ever sends."""
    clipped = privacy.clipped_statistics(*samples_of(site, dataset), phi, k, norm_bound=B)
    return privacy.private_statistics(clipped, privacy.PrivacyBudget(epsilon, DELTA))


def pooled(dataset: str, phi: kd.FeatureMap, k: int) -> tuple[kd.RidgeStatistics, Iterator[kd.HeldOutRows]]:
    """What somebody with all data would have: the same rows held out."""
    total = kd.RidgeStatistics(phi, k, precision="float64")
    held = [total.update_batches([samples_of(s, dataset)], holdout=0.05, seed=s) for s in range(SITES)]
    return total, iter(held)


def main() -> None:
    """Runs the rounds and compares with the pooled data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--kernel", default="identity")
    parser.add_argument("--epsilon", type=float)
    options = parser.parse_args()
    data = kd.load_dataset(options.dataset)  # the server's own: a test set, and the shape of a sample
    test, k = (data.x_test, data.y_test), data.n_classes

    with multiprocessing.get_context("spawn").Pool(2) as sites:
        scaling = kd.standardize(sum_of(sites.imap(partial(moments, dataset=options.dataset), range(SITES))))
        phi = kd.make_map(options.kernel, data.x_train[:1000], scaling)
        task = partial(statistics, dataset=options.dataset, phi=phi, k=k)
        total = sum(sites.imap_unordered(task, range(SITES)))
        path = kd.ridge_path(total)
        task = partial(counts, dataset=options.dataset, phi=phi, k=k, path=path)
        correct = sum_of(sites.imap(task, range(SITES)))
        model = kd.fit_model(total, validation=correct)
        points = kd.distill_model(model, points_per_class=1)

        reference, held = pooled(options.dataset, phi, k)
        expected = kd.fit_model(reference, validation=sum_of(kd.count_correct(path, reference, each) for each in held))
        difference = np.linalg.norm(model.W - expected.W) / np.linalg.norm(expected.W)
        print(f"{SITES} sites send {kilobytes(total)} kB each, {total.n} samples, lambda {model.lambda_:g}")
        print(f"model against the pooled data's: relative difference {difference:.1e}, lambda {expected.lambda_:g}")
        print(f"points: {points}")
        print(f"test accuracy {model.score(*test):.4f}, from the points {certified(points, model, test):.4f}")
        if options.epsilon is not None:
            phi = privacy.public_inputs(data, options.kernel, {}, seed=0)  # a scaling that owes nothing to the data
            budget, B = privacy.PrivacyBudget(options.epsilon, DELTA), privacy.default_norm_bound(phi)
            task = partial(noisy, dataset=options.dataset, phi=phi, k=k, B=B, epsilon=options.epsilon)
            G, C = map(sum_of, zip(*sites.imap(task, range(SITES)), strict=True))
            lambda_ = privacy.default_lambda("statistics", budget, B, len(data.y_train), len(G)) * SITES**0.5
            scores = phi.transform(test[0], dtype=float) @ privacy.private_weights(G, C, lambda_).T
            accuracy = float((scores.argmax(axis=1) == test[1]).mean())
            print(f"every site ({options.epsilon:g}, {DELTA:g})-differentially private: test accuracy {accuracy:.4f}")


def sum_of(parts: Any) -> Any:
    """Their sum, without a zero to begin with."""
    parts = iter(parts)
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def kilobytes(total: kd.RidgeStatistics) -> int:
    """What one site sends: the packed triangle of G, C and the small sums, in float64."""
    return sum(array.nbytes for array in total.to_arrays()[1].values()) // 1000


def certified(points: kd.DistilledDataset, model: kd.RidgeModel, test: tuple[Any, Any]) -> float:
    """Test accuracy of the model that the points retrain to."""
    return points.verify(model, test=test).distilled_accuracy


if __name__ == "__main__":
    main()
