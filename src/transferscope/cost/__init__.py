"""What a plan costs before it runs."""

from transferscope.cost.plan_cost import Speed, measure_speed, plan_costs

__all__ = ["Speed", "measure_speed", "plan_costs"]
