"""Many runs on one data set, one pass over the data per map: what ``krrdistill sweep`` does, without the printing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
