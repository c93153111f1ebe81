"""Estimates of the cost of a plan."""

from transferscope.cost.plan_cost import plan_costs
from transferscope.cost.speed import Speed, measure_speed

__all__ = ["Speed", "measure_speed", "plan_costs"]
