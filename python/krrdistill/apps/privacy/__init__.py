"""What a distilled set reveals, and what noise a release needs (docs/guide/privacy.md)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
