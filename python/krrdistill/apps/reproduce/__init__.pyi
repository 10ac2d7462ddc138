from .run import TABLES as TABLES
from .run import publication as publication
from .run import reproduce as reproduce
from .sections import to_markdown as to_markdown
from .sections import to_page as to_page
from .selection import ReproduceOptions as ReproduceOptions
