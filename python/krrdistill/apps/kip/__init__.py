"""Kernel inducing points (KIP): the iterative baseline, as published and from the sufficient statistics alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
