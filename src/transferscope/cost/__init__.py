"""Estimates of the cost of a plan."""

from transferscope.cost.plan_cost import Speed, measure_speed, plan_costs

__all__ = ["Speed", "measure_speed", "plan_costs"]
