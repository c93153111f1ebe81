"""The study that the user writes in `conf/`, and the plan that follows from it. Knows neither torch nor Kedro."""
