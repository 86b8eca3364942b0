"""The offline side: trains generators and exports them. Knows nothing of serving."""
