"""Applications of the core: the command line, reports, KIP, privacy, the published tables. Nothing imports them."""
