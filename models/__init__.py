"""What a servable generator is, and when it may be promoted. Knows nothing of torch or HTTP."""
