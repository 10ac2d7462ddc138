"""Every option of the commands: name, help, and how its default reads.

An option that a configuration file can set has the value None when it is not given on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = "Model"
RESULT = "Distilled set"
RUN = "Computation"
FILES = "Files"
ITERATION = "Iteration"
PRIVACY = "Privacy"


@dataclass
class Session:
    """What one invocation has to remember beyond its command."""

    traceback: bool = False


def _remember_traceback(context: typer.Context, value: bool) -> None:
    if value and isinstance(context.obj, Session):
        context.obj.traceback = True


def _option(*names: str, text: str, metavar: str | None = None, default: Any = False, panel: str) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=default, rich_help_panel=panel)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Traceback = Annotated[
    bool,
    typer.Option(
        "--traceback",
        callback=_remember_traceback,
        is_eager=True,
        help="Show where an error comes from (also KRRDISTILL_TRACEBACK=1).",
    ),
]

DataDir = Annotated[
    Path | None,
    _option("--data-dir", text="Folder of the named data sets.", metavar="DIR", panel=FILES),
]
Dataset = Annotated[
    str | None,
    _option(
        "--dataset",
        text="digits, mnist, cifar10, cifar100 or a file.",
        metavar="NAME|FILE.npz",
        default="digits",
        panel=FILES,
    ),
]
VerifyDataset = Annotated[
    str | None,
    _option(
        "--dataset",
        text="What the file was made from, if the file does not name it.",
        metavar="NAME|FILE.npz",
        panel=FILES,
    ),
]
Download = Annotated[bool, _option("--download", text="Fetch missing official files.", panel=FILES)]
Config = Annotated[
    Path | None,
    _option(
        "--config",
        text="Configuration of the published code; options given here win over it.",
        metavar="FILE.yaml",
        panel=FILES,
    ),
]
Out = Annotated[
    Path | None,
    _option("--out", text="Output folder.", metavar="DIR", default="runs/<what was asked for>", panel=FILES),
]

Kernel = Annotated[
    str | None,
    _option(
        "--kernel",
        text="Feature map: identity, random_fourier, orthogonal_fourier, FCNN, deep_linear, conv, or an object to "
        "import, a callable or torch module.",
        metavar="NAME|PACKAGE.MODULE:OBJECT",
        default="identity",
        panel=MODEL,
    ),
]
HiddenLayer = Annotated[
    int | None,
    _option("--hidden-layer", text="Hidden layers of FCNN.", metavar="N", default="1", panel=MODEL),
]
VerifyKernel = Annotated[
    str | None,
    _option(
        "--kernel",
        text="The feature map of a file made with one of your own; no file loads it by itself.",
        metavar="PACKAGE.MODULE:OBJECT",
        panel=MODEL,
    ),
]
Widths = Annotated[
    str | None,
    _option(
        "--widths",
        text="Outputs of each layer of FCNN or deep_linear, with commas between.",
        metavar="P,P,..",
        default="FCNN: the input size; deep_linear: twice the input size",
        panel=MODEL,
    ),
]
NFeatures = Annotated[
    int | None,
    _option("--n-features", text="Fourier features.", metavar="P", default="the input size", panel=MODEL),
]
Sigma2 = Annotated[
    float | None,
    _option(
        "--sigma2",
        text="Squared width of the Fourier features' kernel.",
        metavar="V",
        default="1000 on MNIST and CIFAR, else the median heuristic",
        panel=MODEL,
    ),
]
Spectral = Annotated[
    str | None,
    _option(
        "--spectral",
        text="Kernel of random_fourier: gaussian, laplacian or matern.",
        metavar="NAME",
        default="gaussian",
        panel=MODEL,
    ),
]
Nu = Annotated[
    float | None,
    _option("--nu", text="Smoothness of matern, a multiple of 1/2.", metavar="V", default="1.5", panel=MODEL),
]
Channels = Annotated[
    str | None,
    _option(
        "--channels",
        text="Channels of each layer of conv, with commas between.",
        metavar="C,C,..",
        default="3 times those of the inputs",
        panel=MODEL,
    ),
]
KernelSize = Annotated[
    int | None,
    _option("--kernel-size", text="Side of the kernels of conv.", metavar="N", default="3", panel=MODEL),
]
Stride = Annotated[
    int | None, _option("--stride", text="Stride of the layers of conv.", metavar="N", default="2", panel=MODEL)
]
Padding = Annotated[
    int | None,
    _option("--padding", text="Zeros around the inputs of the layers of conv.", metavar="N", default="1", panel=MODEL),
]
Zca = Annotated[
    bool | None,
    _option("--zca/--no-zca", text="ZCA whitening in place of standardising.", default="no-zca", panel=MODEL),
]
Lambdas = Annotated[
    str | None,
    _option(
        "--lambdas",
        text="Ridge parameters to choose from (absolute), with commas between.",
        metavar="V,V,..",
        default="the published grid",
        panel=MODEL,
    ),
]
Refit = Annotated[
    bool, _option("--refit", text="Refit on train and validation data with the lambda chosen.", panel=MODEL)
]

Ipc = Annotated[
    int | None,
    _option("--ipc", text="Distilled samples per class.", metavar="N", default="1", panel=RESULT),
]
Init = Annotated[
    str | None,
    _option("--init", text="Start from noise or from real samples.", metavar="NAME", default="noise", panel=RESULT),
]
LabelsOnly = Annotated[
    bool,
    _option("--labels-only", text="Keep the real samples of --init real and learn labels for them.", panel=RESULT),
]
Strict = Annotated[
    bool,
    _option("--strict", text="Refuse a map that has approximate preimages only.", panel=RESULT),
]
RegS = Annotated[
    bool | None,
    _option(
        "--reg-s/--no-reg-s",
        text="Train on the distilled set with the lambda chosen, or the largest possible below it.",
        default="no-reg-s",
        panel=RESULT,
    ),
]
LambdaS = Annotated[
    float | None,
    _option(
        "--lambda-s",
        text="Train on the distilled set with this lambda.",
        metavar="V",
        default="0",
        panel=RESULT,
    ),
]
Targets = Annotated[
    str,
    _option(
        "--targets",
        text="What y of a FILE.npz holds: classes, or real values, one column or several (0 and 1: labels).",
        metavar="NAME",
        default=True,
        panel=MODEL,
    ),
]
Intercept = Annotated[
    bool,
    _option("--intercept", text="An unpenalised intercept, also when training on the distilled set.", panel=MODEL),
]
CenterTargets = Annotated[
    bool, _option("--center-targets", text="Targets about their mean; the file has the mean.", panel=MODEL)
]
LambdaPerTarget = Annotated[
    bool, _option("--lambda-per-target", text="For every real-valued target the lambda best for it.", panel=MODEL)
]
Realism = Annotated[
    float | None,
    _option(
        "--realism",
        text="The exact set nearest to inputs between noise (0) and real samples (1); implies --init real.",
        metavar="0..1",
        default="the published construction",
        panel=RESULT,
    ),
]
Root = Annotated[
    str,
    _option("--root", text="Root of Theorem 5.1: plus or minus.", metavar="NAME", default=True, panel=RESULT),
]
Store = Annotated[
    str,
    _option(
        "--store",
        text="Storage of the file: float64, float32, float16 or uint8.",
        metavar="NAME",
        default=True,
        panel=RESULT,
    ),
]
IncludeWeights = Annotated[
    bool, _option("--include-weights", text="Store the original model's weights too.", panel=RESULT)
]

EmbedMap = Annotated[
    bool | None,
    _option(
        "--embed-map/--no-embed-map",
        text="Store the weights of the feature map, not only their seed.",
        default="when they are at most 2^20 numbers",
        panel=RESULT,
    ),
]
ScaleLabels = Annotated[
    bool,
    _option("--scale-labels", text="Let labels be scaled where a given --lambda-s needs it.", panel=RESULT),
]

Seed = Annotated[int | None, _option("--seed", text="Seed of every draw.", metavar="S", default="0", panel=RUN)]
Precision = Annotated[
    str,
    _option(
        "--precision",
        text="Of the pass over the data: float32 or float64.",
        metavar="NAME",
        default=True,
        panel=RUN,
    ),
]
Backend = Annotated[
    str | None,
    _option(
        "--backend", text="native, numba, array or cuda.", metavar="NAME", default="the first that works", panel=RUN
    ),
]
Threads = Annotated[
    int | None, _option("--threads", text="Number of threads.", metavar="T", default="all cores", panel=RUN)
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        help="Largest relative weight error that passes.",
        metavar="V",
        show_default="1e-6; 1e-4 where float32 statistics are made again, 1e-2 for smaller storage",
    ),
]
ComparePage = Annotated[
    Path | None, typer.Option("--out", help="Write a page too.", metavar="FILE.html", show_default=False)
]
KipInit = Annotated[
    str | None,
    _option("--init", text="Start from noise or from real samples.", metavar="NAME", default="real", panel=RESULT),
]
Variant = Annotated[
    str | None,
    _option(
        "--variant",
        text="gram: from the sufficient statistics; published: from all training features, with PyTorch.",
        metavar="NAME",
        default="gram",
        panel=ITERATION,
    ),
]
WarmStart = Annotated[
    bool,
    _option("--warm-start", text="Start from the closed form that distill makes of this --init.", panel=ITERATION),
]
Iterations = Annotated[
    int | None, _option("--iterations", text="Steps of Adam.", metavar="N", default="30000", panel=ITERATION)
]
LearningRate = Annotated[
    float | None, _option("--lr", text="Learning rate of Adam.", metavar="V", default="0.01", panel=ITERATION)
]
BatchSize = Annotated[
    int | None,
    _option(
        "--batch-size",
        text="Training samples in the loss of a step.",
        metavar="N",
        default="5000 for published, all for gram",
        panel=ITERATION,
    ),
]
TimeBudget = Annotated[
    float | None,
    _option(
        "--time-budget",
        text="End after this many seconds of steps.",
        metavar="V",
        default="none",
        panel=ITERATION,
    ),
]
EvaluateEvery = Annotated[
    int | None,
    _option(
        "--evaluate-every",
        text="Iterations between two looks at the validation set.",
        metavar="N",
        default="100",
        panel=ITERATION,
    ),
]
CheckpointEvery = Annotated[
    int | None,
    _option(
        "--checkpoint-every",
        text="Iterations between two checkpoints; the same command goes on from the last one.",
        metavar="N",
        default="100",
        panel=ITERATION,
    ),
]


def _several(name: str, text: str, metavar: str, default: str) -> Any:
    return _option(name, text=f"{text}, with commas between.", metavar=metavar, default=default, panel=RESULT)


Datasets = Annotated[str | None, _several("--datasets", "Data sets", "NAME,..", "mnist,cifar100")]
Kernels = Annotated[
    str | None, _several("--kernels", "Feature maps", "NAME,..", "identity,random_fourier,FCNN; table4 FCNN")
]
Ipcs = Annotated[str | None, _several("--ipcs", "Distilled samples per class", "N,..", "1,10,50")]
Seeds = Annotated[str | None, _several("--seeds", "Seeds", "S,..", "0,1,2,3")]
Methods = Annotated[str | None, _several("--methods", "Rows of table4", "NAME,..", "closed_form,gram,published")]
KipIterations = Annotated[
    int | None,
    _option("--kip-iterations", text="Steps of a whole KIP run.", metavar="N", default="30000", panel=ITERATION),
]
CellBudget = Annotated[
    float | None,
    _option(
        "--time-budget",
        text="Seconds of steps of one KIP cell; the rest of its time is extrapolated, and marked.",
        metavar="V",
        default="60",
        panel=ITERATION,
    ),
]
TableFolder = Annotated[
    Path | None,
    _option("--out", text="Output folder; a run goes on from it.", metavar="DIR", default="runs/TABLE", panel=FILES),
]
Epsilon = Annotated[
    float | None, _option("--epsilon", text="Of differential privacy.", metavar="V", default="1", panel=PRIVACY)
]
Delta = Annotated[
    float | None, _option("--delta", text="Of differential privacy.", metavar="V", default="1e-5", panel=PRIVACY)
]
NormBound = Annotated[
    float | None,
    _option(
        "--norm-bound",
        text="Norm that no feature vector exceeds: checked, and with --mechanism enforced by clipping.",
        metavar="B",
        default="read off the data; with --mechanism what standardised inputs have",
        panel=PRIVACY,
    ),
]
SecretLabels = Annotated[
    bool, _option("--secret-labels", text="Assume that the distilled labels stay unknown.", panel=PRIVACY)
]
Mechanism = Annotated[
    str | None,
    _option(
        "--mechanism",
        text="Make a private file: noise on the sufficient statistics (statistics) or on W (output).",
        metavar="NAME",
        panel=PRIVACY,
    ),
]
ModelLambda = Annotated[
    float | None,
    _option(
        "--model-lambda",
        text="Ridge parameter of the model (absolute), chosen without the data.",
        metavar="V",
        default="0 for Theorem 6.2; with --mechanism from epsilon, delta, n, p and B",
        panel=PRIVACY,
    ),
]
PrivateStore = Annotated[
    str | None,
    _option(
        "--store",
        text="Storage of the file: float64, float32, float16 or uint8.",
        metavar="NAME",
        default="float64",
        panel=RESULT,
    ),
]
MapSeed = Annotated[
    int | None,
    _option("--seed", text="Seed of the map and of Z; never of the noise.", metavar="S", default="0", panel=RUN),
]
