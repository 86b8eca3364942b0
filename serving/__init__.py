"""The online side: HTTP, batching, cache, metrics. Knows nothing of training."""
