"""The embedded API server: the Kubernetes REST dialect over a Store."""
