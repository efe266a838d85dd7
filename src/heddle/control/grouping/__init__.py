"""Pods that nobody wrote a Workload for, as workloads: who belongs together, what each asks of a node."""
