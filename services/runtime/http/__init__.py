"""What every HTTP side shares: problem details, request ids, API keys, rate limits, body limits."""
