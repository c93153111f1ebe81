"""Estimates of the cost of a plan."""

from transferscope.cost.device_speed import Speed, measure_speed
from transferscope.cost.plan_cost import plan_costs

__all__ = ["Speed", "measure_speed", "plan_costs"]
