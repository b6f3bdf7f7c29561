"""What the HTTP API takes and answers, declared once for the API, its OpenAPI document and the dashboard."""
