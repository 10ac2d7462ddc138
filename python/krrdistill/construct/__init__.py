"""From a model to points: the closed form, the nearest exact set, spans, labels, storage."""
