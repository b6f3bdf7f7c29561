"""Charts of the dashboard: pure functions from answers of the API to Vega-Lite."""
