"""The Kedro side: configuration loader, hooks, staleness, Kedro-Viz status, runners."""
