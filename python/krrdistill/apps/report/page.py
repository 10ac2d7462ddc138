"""The page of a run: one HTML file that refers to nothing outside of itself and runs no script."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from krrdistill.apps.report.canvas import plain_number
from krrdistill.apps.report.charts import Chart, race_charts
from krrdistill.apps.report.html import Markup, document, element, join
from krrdistill.apps.report.record import CURVE, DATA, DISTILLED, PAGE, REPORT, RunRecord, read_run
from krrdistill.apps.report.solution import solution_section
from krrdistill.apps.report.sprites import ClassPictures, Gallery, gallery
from krrdistill.apps.text import mean_r2, megabytes, number, percent, score_name, seconds
from krrdistill.common.files import write_atomically

__all__ = ["accuracy_chart", "facts", "gallery_of", "pictures", "run_page", "section", "table", "write_page"]

LAMBDA = "\N{GREEK SMALL LETTER LAMDA}"
_OPTIONS = {
    "preprocessing": "preprocessing",
    "lambda_s": f"{LAMBDA}_S asked for",
    "realism": "realism, from noise (0) to real samples (1)",
    "root": "root of Theorem 5.1",
    "scale_labels": "labels may be scaled",
    "refit": "refit on all data",
    "validation_fraction": "held out for validation",
}
_KIP_OPTIONS = {
    "variant": "variant of KIP",
    "iterations": "iterations asked for",
    "lr": "learning rate",
    "batch_size": "samples per step",
    "warm_start": "started at the closed form",
    "time_budget": "seconds of steps at most",
}


def write_page(folder: Path) -> Path:
    """Writes ``folder``/report.html from what the folder holds; the same folder gives the same bytes.

    Raises DataError for a folder that is not that of a run, OSError when it cannot be written.
    """
    page = run_page(read_run(folder))
    write_atomically(folder / PAGE, lambda stream: stream.write(page))
    return folder / PAGE


def run_page(run: RunRecord) -> bytes:
    """The page of one run."""
    found = solution_section(run.report)
    return document(
        f"{run.title}: krrdistill",
        element("header", element("h1", run.title), _summary(run.report), _verdict(run), _warnings(run)),
        element(
            "main",
            _accuracies(run),
            None if run.curve is None else section("kip", "KIP against the closed form", _race(run)),
            section("pictures", "Distilled samples", _pictures(run)),
            section("certificate", "Certificate", _certificate(run)),
            None if found is None else section("inputs", "How the inputs were found", found),
            section("path", f"Choice of {LAMBDA}", _lambda_path(run)),
            section("spectrum", "Singular values of the distilled features", _spectrum(run)),
            section("privacy", "Privacy", _privacy(run)),
            section("asked", "What was asked", _asked(run.report, run.meta)),
            section("time", "Time and memory", _time(run.report)),
            section("again", "Versions and how to run it again", _again(run)),
        ),
    )


def section(name: str, title: str, *content: str | None) -> Markup:
    """A part of a page under its heading."""
    heading = f"{name}-title"
    return element("section", element("h2", title, id=heading), *content, id=name, aria_labelledby=heading)


def _summary(report: dict[str, Any]) -> Markup:
    return element(
        "p",
        f"{report['n_train']} training samples of {report['k']} classes distilled to {report['m']}. "
        f"{report['init'].capitalize()} start, seed {report['seed']}, finished {report['finished']}.",
        class_="muted",
    )


def _verdict(run: RunRecord) -> Markup:
    if run.curve is not None:
        best, last = run.report["best"], run.report["last"]
        text = (
            f"{run.report['iterations']} iterations of KIP: test accuracy {percent(last['test_accuracy'])} at the "
            f"last, {percent(best['test_accuracy'])} at the best by validation, iteration {best['iteration']}; the "
            f"original model has {percent(run.report['original']['test_accuracy'])}."
        )
        return element("p", text, class_="verdict")
    error, agreement = (run.report["certificate"][key] for key in ("weight_relative_error", "prediction_agreement"))
    numbers = (
        f"relative weight error {number(error, digits=2)}, target {run.target:.0e} for {run.report['store']} storage; "
        f"{percent(agreement)} of the test predictions agree."
    )
    if run.exact:
        text = f"The model retrained from the file is the original one: {numbers}"
        return element("p", element("strong", "Exact. "), text, class_="verdict good")
    text = f"The model retrained from the file differs from the original one: {numbers}"
    return element("p", element("strong", "NOT EXACT. "), text, class_="verdict bad", role="alert")


def _warnings(run: RunRecord) -> Markup | None:
    items = [element("li", str(warning)) for warning in run.report["warnings"]]
    return element("ul", *items, class_="warnings muted") if items else None


def _race(run: RunRecord) -> Markup:
    """KIP's loss and accuracy against time, on one axis with what ``distill`` makes of the same model."""
    report, curve = run.report, run.curve
    assert curve is not None
    name, ours = f"KIP, {report['variant']}", report["closed_form"]
    methods = {} if ours is None else {"closed form": ([ours["seconds"]], [ours["train_loss"]], [ours["val_accuracy"]])}
    at = report["setup_seconds"] + curve["seconds"]
    methods[name] = (at.tolist(), curve["train_loss"].tolist(), curve["val_accuracy"].tolist())
    charts = (element("figure", svg, element("figcaption", text)) for text, svg in race_charts(methods, run.title))
    ends = [(f"KIP, {end}", report[end]) for end in ("best", "last")]
    rows = [
        (text, f"{end['iteration']}", number(end["train_loss"]), percent(end["val_accuracy"]),
         percent(end["test_accuracy"])) for text, end in ends
    ]  # fmt: skip
    if ours is not None:
        accuracy = percent(report["original"]["test_accuracy"])
        rows.append(("closed form", "none", number(ours["train_loss"]), percent(ours["val_accuracy"]), accuracy))
    note = "The map is not onto, so there is no closed form." if ours is None else (
        f"The closed form, for the same model, points per class and start, took {seconds(ours['seconds'])}; "
        "its test accuracy is the original model's."
    )  # fmt: skip
    pace = (
        f"{seconds(report['setup_seconds'])} before the first step, then {seconds(report['seconds_per_iteration'])} "
        "per iteration; looks at the validation set are not counted. The best iteration is chosen by validation "
        "accuracy. "
    )
    return join(
        element("p", pace, note),
        element("div", *charts, class_="charts"),
        table(("", "iteration", "loss per training sample", "validation accuracy", "test accuracy"), rows),
    )


def facts(pairs: Iterable[tuple[str, str | None]], *, small: bool = False) -> Markup:
    """Names and values as cards."""
    cards = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *cards, class_="facts small" if small else "facts")


def table(head: Iterable[str], rows: Iterable[Iterable[str | None]]) -> Markup:
    """A table whose first column names the rows; wide ones scroll."""
    header = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    body = []
    for first, *rest in rows:
        body.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest)))
    return element("div", element("table", header, element("tbody", *body)), class_="scroll", tabindex="0",
                   role="region", aria_label="table")  # fmt: skip


def _accuracies(run: RunRecord) -> Markup:
    report = run.report
    pairs = (
        ("test accuracy, original", percent(report["original"]["test_accuracy"])),
        ("test accuracy, distilled", percent(report["distilled"]["test_accuracy"])),
        ("predictions that agree", percent(report["certificate"]["prediction_agreement"])),
        ("samples", f"{report['n_train']} \N{RIGHTWARDS ARROW} {report['m']}"),
        ("time", seconds(report["seconds"]["total"])),
    )
    return facts(pairs)


def _certificate(run: RunRecord) -> Markup:
    report, values = run.report, run.report["certificate"]
    rows: tuple[tuple[str, str, str], ...] = (
        ("test accuracy", percent(report["original"]["test_accuracy"]), percent(report["distilled"]["test_accuracy"])),
        (f"{LAMBDA}, absolute", number(report["lambda"]), number(report["lambda_s"])),
        ("relative weight error", "", number(values["weight_relative_error"])),
        ("cosine of the weights", "", number(values["weight_cosine"], digits=10)),
        ("predictions that agree", "", percent(values["prediction_agreement"])),
        ("condition number of the distilled features", "", number(values["condition"])),
    )
    r2 = [mean_r2(report[model]) for model in ("original", "distilled")]
    if r2[0] is not None:
        rows = (("R\N{SUPERSCRIPT TWO} on the test set, mean over targets", percent(r2[0]), percent(r2[1])), *rows)
    note = "Measured on the file after it was written and read back."
    return join(table(("", "original", "distilled"), rows), element("p", note, class_="muted"))


def _lambda_path(run: RunRecord) -> Markup:
    path = run.path
    cells = zip(*(path[name] for name in ("lambdas", "val_accuracy", "train_rmse", "below_noise_floor")), strict=True)
    rows = [
        (
            number(float(lam)) + (" (chosen)" if index == run.best else ""),
            percent(_finite(accuracy)),
            number(_finite(rmse)),
            "under the noise floor" if below else "",
        )
        for index, (lam, accuracy, rmse, below) in enumerate(cells)
    ]
    count, score = f"{run.report['n_val']} validation samples", score_name(run.report)
    return join(
        element("p", f"{LAMBDA} = {plain_number(run.report['lambda'])} has the best {score} on {count}.", _floor(run)),
        element(
            "div",
            element("figure", accuracy_chart(run).svg(), element("figcaption", f"Validation {score}")),
            element("figure", _rmse_chart(run).svg(), element("figcaption", "Training error")),
            class_="charts",
        ),
        element(
            "details",
            element("summary", "The numbers"),
            table((LAMBDA, f"validation {score}", "training RMSE", ""), rows),
        ),
    )


def _floor(run: RunRecord) -> str | None:
    if not run.path["below_noise_floor"].any():
        return None
    floor = plain_number(run.noise_floor)
    return (
        f" Those under the noise floor of the Gram matrix, {floor}, are shaded; they count only if there are no others."
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def accuracy_chart(run: RunRecord, *, y_limits: tuple[float, float] | None = None) -> Chart:
    """Validation accuracy in per cent against lambda."""
    accuracy = 100.0 * run.path["val_accuracy"].astype(np.float64)
    label = f"validation {score_name(run.report)} (%)"
    return _path_chart(run, accuracy, label, unit=" %", y_limits=y_limits)


def _rmse_chart(run: RunRecord) -> Chart:
    rmse = run.path["train_rmse"].astype(np.float64)
    return _path_chart(run, np.where(rmse > 0.0, rmse, np.nan), "training RMSE", unit="", y_limits=None)


def _path_chart(run: RunRecord, y: Any, label: str, *, unit: str, y_limits: tuple[float, float] | None) -> Chart:
    lambdas, below = run.path["lambdas"].astype(np.float64), run.path["below_noise_floor"]
    lam, value = float(lambdas[run.best]), float(y[run.best])
    chosen = f"{plain_number(value)}{unit} at {LAMBDA} = {plain_number(lam)}"
    return Chart(
        x=lambdas,
        y=y,
        x_label=LAMBDA,
        y_label=label,
        description=f"Line chart: {label}, {LAMBDA} from {lambdas.min():.3g} to {lambdas.max():.3g}; chosen: {chosen}",
        chosen=run.best,
        chosen_text=chosen,
        shade_to=_shade_edge(lambdas, below, run.noise_floor) if below.any() else None,
        shade_text="under the noise floor",
        y_limits=y_limits,
        point_text=lambda index: f"{LAMBDA} = {plain_number(lambdas[index])}: {plain_number(float(y[index]))}{unit}",
    )


def _shade_edge(lambdas: Any, below: Any, noise_floor: float) -> float:
    """The floor, kept between the last point below it and the first one above."""
    return float(min(max(noise_floor, lambdas[below].max()), lambdas[~below].min(initial=np.inf)))


def gallery_of(run: RunRecord) -> Gallery:
    """The pictures of a run."""
    low, high = run.report["value_range"]
    return gallery(run.images, run.class_names, start=run.start_images, value_range=(low, high))


def _pictures(run: RunRecord) -> Markup:
    shown = gallery_of(run)
    if run.start_images is None:
        start = "Made from noise: no real sample went into them as a start."
    else:
        start = "Above, the real training samples that they started from; below, the distilled ones."
    notes = [element("li", note[0].upper() + note[1:] + ".") for note in shown.notes]
    return join(
        element("p", start, " Choose a class to see it large."),
        _likeness(run.report["realism"]),
        element("ul", *notes, class_="muted") if notes else None,
        _zoom(),
        pictures(shown, width=f"min({5.5 * min(shown.columns, 5):g}rem, {21 if shown.columns == 1 else 43}vw)"),
    )


def _likeness(measured: dict[str, Any]) -> Markup:
    pairs: list[tuple[str, str | None]] = [("pixels out of range", percent(measured["out_of_range"]))]
    if measured["mse"] is not None:
        psnr = "identical" if measured["psnr"] is None else f"{measured['psnr']:.2f} dB"
        pairs.insert(0, ("mean squared distance to the real samples, range 0 to 1", number(measured["mse"])))
        pairs.insert(1, ("peak signal-to-noise ratio", psnr))
    return facts(pairs, small=True)


def _zoom() -> Markup:
    parts: list[str] = ["Size: "]
    for factor in (1, 2, 4):
        name = f"zoom-{factor}"
        checked = "checked" if factor == 1 else None
        parts.append(element("input", type="radio", name="zoom", id=name, checked=checked))
        parts.append(element("label", f"{factor}\N{MULTIPLICATION SIGN}", for_=name))
    return element("p", *parts, class_="zoom")


def pictures(shown: Gallery, *, width: str) -> Markup:
    """One card per class, which its link enlarges to the whole window (``:target``)."""
    last = len(shown.classes) - 1
    cards = (_card(c, last, picture, shown.copies) for c, picture in enumerate(shown.classes))
    return element("ul", *cards, class_="gallery", style=f"--card-width: {width}")


def _card(c: int, last: int, picture: ClassPictures, copies: int) -> Markup:
    what = picture.name if copies == 1 else f"{picture.name}, {copies} samples"
    images = [("real start", picture.start), ("distilled", picture.distilled)]
    pair = (
        element(
            "span",
            element("span", role, class_="role"),
            element("img", src=uri, alt=f"{role}: {what}", width=picture.width, height=picture.height),
        )
        for role, uri in images
        if uri is not None
    )
    near = ((c - 1, "previous"), (c + 1, "next"))
    links = (element("a", text, href=f"#class-{to}") for to, text in near if 0 <= to <= last)
    link = element("a", element("span", *pair, class_="pair"), href=f"#class-{c}")
    figure = element(
        "figure",
        element("nav", element("a", "close", href=f"#at-{c}"), *links, aria_label=f"pictures of {picture.name}"),
        element("figcaption", picture.name),
        link,
        id=f"class-{c}",
    )
    return element("li", figure, id=f"at-{c}")


def _spectrum(run: RunRecord) -> Markup:
    values = run.singular_values
    condition = number(run.report["certificate"]["condition"])
    if not values.size:
        return element("p", f"Only their ratio, the condition number, was computed: {condition}.")
    chart = Chart(
        x=np.arange(1.0, values.size + 1.0),
        y=np.where(values > 0.0, values, np.nan),
        x_label="index",
        y_label="singular value",
        description=f"Line chart of {values.size} singular values, from {values[0]:.3g} down to {values[-1]:.3g}",
        x_log=False,
        y_log=True,
        point_text=lambda index: f"{index + 1}: {values[index]:.3g}",
    )
    text = f"{values.size} values from {values[0]:.4g} to {values[-1]:.4g}; condition number {condition}."
    return join(element("p", text), element("div", element("figure", chart.svg()), class_="charts"))


def _privacy(run: RunRecord) -> Markup:
    """What the file gives away: said always, measured where ``krrdistill privacy`` was asked."""
    if run.privacy is None:
        shown = " The real samples that it started from show through." if run.report["init"] == "real" else ""
        text = f"W is revealed to whoever has this file: it retrains to it by the certificate above.{shown} "
        ask = f"krrdistill privacy {DISTILLED} measures what else it gives away."
        return join(element("p", text), element("p", ask, class_="muted"))
    audit = run.privacy
    near, theorem, rebuilt = audit["neighbours"], audit["theorem"], audit["reconstruction"]
    distances = [(name, number(near[name]), number(near[f"baseline_{name}"])) for name in ("median", "minimum")]
    conditions = [
        (c["name"], "holds" if c["holds"] else "VIOLATED", str(c["statement"])) for c in theorem["conditions"]
    ]
    verdict = "applies" if all(c["holds"] for c in theorem["conditions"]) else "does not apply"
    return join(
        element(
            "p",
            f"W rebuilt from the file alone: relative error {number(rebuilt['relative_error'])}, "
            f"test accuracy {percent(rebuilt['test_accuracy'])}.",
        ),
        table(("distance to the nearest training sample (RMS per entry)", "distilled", "held-out"), distances),
        element(
            "p",
            f"{percent(near['near_share'])} of {near['count']} distilled samples are nearer than 95 % of held-out "
            "samples are; fresh data: 5 %. Small distances show copies, large ones prove nothing.",
            class_="muted",
        ),
        element(
            "p",
            f"Theorem 6.2 {verdict}. The deviation of Z that it asks for at epsilon {number(audit['epsilon'])}, "
            f"delta {number(audit['delta'])}: {number(theorem['sigma'])}.",
        ),
        table(("assumption", "", ""), conditions),
        element("ul", *(element("li", str(limit)) for limit in audit["limits"])),
    )


def _asked(report: dict[str, Any], meta: dict[str, Any]) -> Markup:
    pairs: list[tuple[str, str]] = [
        ("data set", report["dataset"]),
        ("kernel", report["kernel"]),
        ("samples per class", str(report["ipc"])),
        ("start", report["init"]),
        ("samples: train, validation, test", ", ".join(str(report[key]) for key in ("n_train", "n_val", "n_test"))),
        ("input size d", str(report["d"])),
        ("features p", str(report["p"])),
        ("classes k", str(report["k"])),
        ("storage", report["store"]),
        ("precision", report["precision"]),
        ("backend", report["backend"]),
        ("seed", str(report["seed"])),
    ]
    kip = _dictionary(meta, "kip")
    pairs += [(label, _plain(kip[name])) for name, label in _KIP_OPTIONS.items() if kip.get(name) is not None]
    options = {**_dictionary(meta, "options"), "preprocessing": _dictionary(meta, "preprocessing").get("kind")}
    for name, label in _OPTIONS.items():
        if options.get(name) is not None:
            pairs.append((label, _plain(options[name])))
    if report["range_scale"] != 1.0:
        pairs.append(("features scaled to the range of the map by", number(float(report["range_scale"]))))
    return facts(pairs, small=True)


def _plain(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else number(value)


def _dictionary(meta: dict[str, Any], key: str) -> dict[str, Any]:
    value = meta.get(key)
    return value if isinstance(value, dict) else {}


def _time(report: dict[str, Any]) -> Markup:
    stages = {stage: value for stage, value in report["seconds"].items() if stage != "total"}
    longest = max(stages.values(), default=0.0)
    floors = report["floor_seconds"]
    known = any(value is not None for value in floors.values())
    rows: list[tuple[str | None, ...]] = [
        (stage, seconds(value), seconds(floors.get(stage)), _bar(value, floors.get(stage), longest))
        for stage, value in stages.items()
    ]
    rows.append(("total", seconds(report["seconds"]["total"]), "", ""))
    if known:
        note = (
            "Floor: the arithmetic of the pass over the data at the rate of a matrix product, measured after the run. "
            "Bytes under the identity map are summed as integers, which can take less."
        )
    else:
        note = "The pass over the data was too short for its floor to be measured."
    memory = f"Peak memory of the process: {megabytes(report['peak_memory_bytes'])}."
    return join(table(("stage", "time", "floor", ""), rows), element("p", note, class_="muted"), element("p", memory))


def _bar(value: float, floor: float | None, longest: float) -> Markup:
    """A bar as long as the stage took, and a mark at its floor."""
    scale = 100.0 / longest if longest > 0.0 else 0.0
    mark = None
    if floor is not None:
        x = f"{min(scale * floor, 100.0):.2f}"
        mark = element("line", x1=x, x2=x, y1=0, y2=8, vector_effect="non-scaling-stroke")
    bar = element("rect", x=0, y=0, width=f"{scale * value:.2f}", height=8)
    return element("svg", bar, mark, viewBox="0 0 100 8", preserveAspectRatio="none", class_="bar", aria_hidden="true")


def _again(run: RunRecord) -> Markup:
    versions, machine = _dictionary(run.meta, "versions"), run.report["machine"]
    pairs = [(name, str(value)) for name, value in (*versions.items(), *machine.items())]
    of = (REPORT, DISTILLED, DATA) if run.curve is None else (REPORT, DISTILLED, CURVE, DATA)
    files = f"This page is made of {', '.join(of[:-1])} and {of[-1]}; krrdistill report FOLDER writes it again."
    return join(
        element("pre", element("code", run.report["command"])),
        element("p", f"krrdistill verify {DISTILLED} recomputes the certificate. {files}", class_="muted"),
        facts(pairs, small=True),
    )
