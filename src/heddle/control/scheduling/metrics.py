"""What the scheduler counts of itself, for Prometheus."""

import prometheus_client as prometheus

from heddle.engine import Bind, Evict, Plan

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """Counters of one scheduler, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._plans = prometheus.Histogram(
            "heddle_plan_duration_seconds", "Seconds that one plan took.", buckets=_SECONDS, registry=self.registry
        )
        self._binds = self._counter("heddle_binds", "Pods that plans gave a node.")
        self._evictions = self._counter("heddle_evictions", "Pods that plans evicted.")
        self.failed_binds = self._counter("heddle_failed_binds", "Binds that the API server refused or lost.")
        self.refused_evictions = self._counter("heddle_refused_evictions", "Evictions that a budget forbade.")

    def _counter(self, name: str, text: str) -> prometheus.Counter:
        return prometheus.Counter(name, text, registry=self.registry)

    def planned(self, plan: Plan, seconds: float) -> None:
        """A plan was made, in so many seconds."""
        self._plans.observe(seconds)
        self._binds.inc(sum(isinstance(action, Bind) for action in plan.actions))
        self._evictions.inc(sum(isinstance(action, Evict) for action in plan.actions))
