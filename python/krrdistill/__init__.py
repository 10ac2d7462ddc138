"""Exact dataset distillation for kernel ridge regression.

>>> import krrdistill as kd
>>> data = kd.load_dataset("digits")
>>> scaling = kd.standardize(data)
>>> phi = kd.make_map("FCNN", data, scaling)
>>> result = kd.distill(data.x_train, data.y_train, phi, points_per_class=1)
>>> result.distilled.X.shape
(10, 64)
"""

import lazy_loader

from krrdistill._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
